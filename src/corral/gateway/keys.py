"""Finds keys, and writes them to its output: `python -m corral.gateway.keys`.

It runs in the user's environment, for a moment, and talks to no guest. Its input is a list of
`Wanted`, as JSON; its output, one line of JSON for each, a `Found`, is a pipe that the gateway
reads. So no other process of corral holds a key. (`env`: the variable is in the environment of the
program that the user started, as of every other program of theirs.)
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

import msgspec

from .. import extras
from ..errors import ConfigError, CorralError
from ..policy import Key
from . import claude
from .found import Found, Wanted

COMMAND_SECONDS = 60.0  # a password manager may ask its user
MAX_KEY = 16 * 1024  # bytes
_LAST_WORDS = 2000  # bytes of a command's complaints that are looked at
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def read(key: Key, environ: Mapping[str, str], *, rejected: str = "") -> Found:
    """The key; its name is left empty. Raises CorralError, whose text never has the key in it."""
    match key.kind:
        case "env":
            return _plain(_variable(key.value[0], environ), f"the variable {key.value[0]}")
        case "command":
            return _plain(_output(key.value, environ), f"what {key.value[0]} prints")
        case "file":
            return _plain(_first_line(Path(key.value[0]).expanduser()), key.value[0])
        case "keyring":
            service, user = key.value
            return _plain(_from_keyring(service, user), f"the keyring's {service} of {user}")
        case "claude":
            return claude.token(Path(key.value[0]).expanduser(), *key.value[1:], rejected=rejected)
    assert_never(key.kind)


def _plain(text: str, where: str) -> Found:
    key = text.strip()
    if not key:
        raise ConfigError(f"{where} is empty.")
    if len(key) > MAX_KEY or not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{where} is no key: it is long, or has characters that no key has.")
    return Found(name="", key=key)


def _variable(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise ConfigError(f"the variable {name} is not set where corral was started.")
    return environ[name]


def _output(argv: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Its first line. What it leaves running may hold its output open: that is not waited for."""
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environ),
            preexec_fn=_end_with_parent,  # this process has one thread
        )
    except OSError as error:
        raise ConfigError(f"the command {argv[0]} cannot be run: {error.strerror}.") from None
    with child:
        try:
            said, complaints = _said(child)
        finally:
            child.kill()  # nothing, when it has ended
    if said is None:
        text = f"the command {argv[0]} did not end within {COMMAND_SECONDS:g} seconds."
        raise ConfigError(text) from TimeoutError()
    if len(said) > MAX_KEY * 2:
        raise ConfigError(f"what {argv[0]} prints is no key: it is long.")
    if child.returncode != 0:
        words = complaints.decode(errors="replace").strip().splitlines()
        why = f": {words[-1][:200]}" if words else "."
        raise ConfigError(f"the command {argv[0]} failed with status {child.returncode}{why}")
    return said.decode(errors="replace").partition("\n")[0]


def _said(child: subprocess.Popen[bytes]) -> tuple[bytes | None, bytes]:
    """The beginning of its output, None when it takes too long; and the end of its complaints."""
    assert child.stdout is not None and child.stderr is not None
    end = time.monotonic() + COMMAND_SECONDS
    said, complaints = b"", b""
    with selectors.DefaultSelector() as ready:
        ended = os.pidfd_open(child.pid)
        try:
            for fd in (child.stdout.fileno(), child.stderr.fileno()):
                os.set_blocking(fd, False)
                ready.register(fd, selectors.EVENT_READ)
            ready.register(ended, selectors.EVENT_READ)
            while len(said) <= MAX_KEY * 2:
                events = [key.fd for key, _mask in ready.select(max(0.0, end - time.monotonic()))]
                if not events or time.monotonic() > end:
                    return None, complaints
                for fd in events:
                    data = _piece(fd) if fd != ended else b""
                    if fd == child.stdout.fileno():
                        said += data
                    else:
                        complaints = (complaints + data)[-_LAST_WORDS:]
                    if not data and fd != ended:
                        ready.unregister(fd)
                if events == [ended]:  # and nothing of its output is left
                    child.wait()
                    break
        finally:
            os.close(ended)
    return said, complaints


def _piece(fd: int) -> bytes:
    try:
        return os.read(fd, MAX_KEY)
    except BlockingIOError:
        return b""


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY * 2).decode(errors="replace").partition("\n")[0]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None


def _from_keyring(service: str, user: str) -> str:
    try:
        import keyring
    except ImportError:
        raise ConfigError(
            "a key is in the keyring, and the Python package `keyring` is not installed.",
            hint=f"Install it: {extras.install('keyring')}",
        ) from None
    try:
        found = keyring.get_password(service, user)
    except Exception as error:  # whatever its backends raise
        text = f"the keyring does not give the key {service} of {user}: {type(error).__name__}."
        raise ConfigError(text) from None
    if found is None:
        raise ConfigError(f"the keyring has no key {service} of {user}.")
    return found


def _end_with_parent(number: int = signal.SIGKILL) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def main() -> None:
    """Answer what is asked on standard input."""
    signal.signal(signal.SIGTERM, _end_all)
    _end_with_parent(signal.SIGTERM)
    for wanted in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Wanted]):
        try:
            found = read(wanted.key, os.environ, rejected=wanted.rejected)
        except CorralError as error:
            found = Found(name="", key=None, problem=error.message)
            if isinstance(error.__cause__, TimeoutError):
                _end_what_it_started()
        answer = msgspec.structs.replace(found, name=wanted.name)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


def _end_what_it_started() -> None:
    """End all of our own process group, which `corral.proc.own` has made, but this process."""
    if os.getpgrp() == os.getpid():
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


def _end_all(_number: int, _frame: object) -> None:
    """Corral was killed: end with all that was started for a key."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
