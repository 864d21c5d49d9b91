"""Finds keys, and writes them to its output: `python -m corral.gateway.keys`.

It runs in the user's environment, for a moment, and talks to no guest. Its input is a list of
`Wanted`, as JSON; its output, one line of JSON for each, a `Found`, is a pipe that the gateway
reads. So no other process of corral holds a key. (`env`: the variable is in the environment of the
program that the user started, as of every other program of theirs.)
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

import msgspec

from ..errors import ConfigError, CorralError
from ..policy import Key
from . import claude
from .found import Found, Wanted

COMMAND_SECONDS = 60.0  # a password manager may ask its user
MAX_KEY = 16 * 1024  # bytes
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
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environ),
            timeout=COMMAND_SECONDS,
            preexec_fn=_end_with_parent,  # this process has one thread
            check=False,
        )
    except OSError as error:
        raise ConfigError(f"the command {argv[0]} cannot be run: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        text = f"the command {argv[0]} did not end within {COMMAND_SECONDS:g} seconds."
        raise ConfigError(text) from None
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        why = f": {words[-1][:200]}" if words else "."
        raise ConfigError(f"the command {argv[0]} failed with status {done.returncode}{why}")
    return done.stdout[: MAX_KEY * 2].decode(errors="replace").partition("\n")[0]


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
            "a key is in the keyring, and the Python package `keyring` is not installed "
            "(pip install 'corral[keyring]')."
        ) from None
    try:
        found = keyring.get_password(service, user)
    except Exception as error:  # whatever its backends raise
        text = f"the keyring does not give the key {service} of {user}: {type(error).__name__}."
        raise ConfigError(text) from None
    if found is None:
        raise ConfigError(f"the keyring has no key {service} of {user}.")
    return found


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Answer what is asked on standard input."""
    _end_with_parent()
    for wanted in msgspec.json.decode(sys.stdin.buffer.read(), type=list[Wanted]):
        try:
            found = read(wanted.key, os.environ, rejected=wanted.rejected)
        except CorralError as error:
            found = Found(name="", key=None, problem=error.message)
        answer = msgspec.structs.replace(found, name=wanted.name)
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
