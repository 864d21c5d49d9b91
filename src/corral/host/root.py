"""Running the few commands that change this machine, as root."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ..errors import HostError
from .system import System

ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
KEPT_LINES = 30  # of a command's output, as evidence when it fails

RunCommand = Callable[[Sequence[str], Mapping[str, str], Callable[[str], None]], int]
"""Runs argv with an environment, hands every line of output on, returns the exit status."""


def root_prefix(system: System) -> list[str] | None:
    """What makes a command run as root: nothing, sudo, or None when there is no way.

    sudo may ask for a password only where there is a terminal to ask on.
    """
    if system.uid == 0:
        return []
    sudo = system.which("sudo")
    if sudo is None:
        return None
    if system.answer([sudo, "-n", "true"]).status == 0:
        return [sudo, "-n"]
    return [sudo] if sys.stdin.isatty() else None


def run_lines(argv: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]) -> int:
    """Run a command to its end, its output line by line.

    It stays in this session, as sudo asks for its password on the terminal; and it is not tied to
    our death, as a package manager that is killed midway leaves packages half installed.
    """
    import subprocess

    with subprocess.Popen(
        list(argv),
        env=dict(env),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None  # PIPE was asked for
        for line in process.stdout:
            on_line(line.decode("utf-8", "replace").rstrip("\n"))
    return process.returncode


def run_as_root(
    commands: Sequence[Sequence[str]],
    prefix: Sequence[str],
    environ: Mapping[str, str],
    *,
    on_line: Callable[[str], None],
    may_fail: Sequence[str] = (),
    run: RunCommand = run_lines,
) -> None:
    """Run commands one after another as root; HostError at the first that fails.

    prefix: from root_prefix. may_fail: first two words of a command whose failure is passed over.
    """
    settings = {"PATH": ROOT_PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    settings |= {name: environ[name] for name in PASSED_ON if name in environ}
    through_sudo = ["env", *(f"{name}={value}" for name, value in settings.items())]
    for command in commands:
        argv = [*prefix, *(through_sudo if prefix else ()), *command]
        last: deque[str] = deque(maxlen=KEPT_LINES)

        def keep(line: str, last: deque[str] = last) -> None:
            last.append(line)
            on_line(line)

        try:
            status = run(argv, settings, keep)
        except OSError as error:
            raise HostError(f"{command[0]} did not start: {error.strerror}.") from error
        if status != 0 and list(command[:2]) != list(may_fail):
            raise HostError(
                f"`{' '.join(command)}` failed with exit status {status}.",
                hint="Its last lines are below; the command can be run again by hand as root.",
                detail="\n".join(last),
            )
