"""The machine as the fact functions see it: its files, its environment, and a way to ask programs.

Facts take a `System` instead of looking around by themselves, so that an Ubuntu, Fedora or NixOS
host is a folder of files in a test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

ANSWER_SECONDS = 10.0  # how long a program may take to print its version
PATH_FALLBACK = "/usr/local/bin:/usr/bin:/bin"
EXTRA_PATH = (  # where daemons and administration tools are that are not on every user's PATH
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/libexec",
    "/usr/lib/qemu",
    "/run/current-system/sw/bin",
)


class Answer(msgspec.Struct, frozen=True):
    """What a program said. status: exit status, or -1 when it did not start or took too long."""

    status: int
    stdout: str
    stderr: str


Ask = Callable[[Sequence[str], Mapping[str, str]], Answer]


def ask_program(argv: Sequence[str], env: Mapping[str, str]) -> Answer:
    """Run a short program without input, in a session of its own, for at most ANSWER_SECONDS.

    Its working folder is /, so that nothing of a project is found and read by it.
    """
    import subprocess

    try:
        done = subprocess.run(
            list(argv),
            env=dict(env),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_SECONDS,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Answer(-1, "", str(error))
    return Answer(
        done.returncode,
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
    )


class System(msgspec.Struct, frozen=True, kw_only=True):
    """A machine to look at.

    root: the folder that stands for /. environ: the user's environment. uid: the user's id.
    ask: runs a program and returns what it said.
    """

    root: Path = Path("/")
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))
    uid: int = msgspec.field(default_factory=os.getuid)
    ask: Ask = ask_program

    def path(self, absolute: str) -> Path:
        """Where the file of this absolute path is below the root."""
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """The text of a small file, or None when it is not there or not readable."""
        try:
            return self.path(absolute).read_text("utf-8", "replace")
        except OSError:
            return None

    def number(self, absolute: str) -> int | None:
        """The integer in a file such as a sysctl, or None."""
        text = self.read(absolute)
        try:
            return int(text) if text is not None else None
        except ValueError:
            return None

    def which(self, name: str, *further: str) -> str | None:
        """The real path of a program: on PATH, in the usual folders of daemons, or one of
        `further` (absolute paths); None when there is none.
        """
        path = self.environ.get("PATH") or PATH_FALLBACK
        folders = [*(part for part in path.split(":") if part.startswith("/")), *EXTRA_PATH]
        for candidate in (*(f"{folder}/{name}" for folder in folders), *further):
            real = self.real(candidate)
            if real is not None:
                return real
        return None

    def real(self, absolute: str) -> str | None:
        """The path of this executable file with symlinks resolved; None when it is none."""
        file = self.path(absolute)
        # Not Path.is_file, which raises for a folder of PATH that may not be searched.
        if not (os.path.isfile(file) and os.access(file, os.X_OK)):  # noqa: PTH113
            return None
        resolved, root = file.resolve(), self.root.resolve()
        inside = resolved.relative_to(root) if resolved.is_relative_to(root) else resolved
        return "/" + str(inside).lstrip("/")

    def answer(self, argv: Sequence[str], **env: str) -> Answer:
        """Ask a program, in an environment made from nothing but a PATH, the locale C and `env`."""
        return self.ask(argv, {"PATH": PATH_FALLBACK, "LC_ALL": "C.UTF-8", **env})
