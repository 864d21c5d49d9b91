"""The machine as the fact functions see it: its files, its environment, and a way to ask programs.

Facts take a `System` instead of looking around by themselves, so that an Ubuntu, Fedora or NixOS
host is a folder of files in a test.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from .. import search

ANSWER_SECONDS = 10.0  # how long a program may take to print its version
PATH_FALLBACK = "/usr/local/bin:/usr/bin:/bin"


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
    ask: runs a program and returns what it said. changeable: folders from which no program is run.
    """

    root: Path = Path("/")
    environ: Mapping[str, str] = msgspec.field(default_factory=lambda: dict(os.environ))
    uid: int = msgspec.field(default_factory=os.getuid)
    ask: Ask = ask_program
    changeable: frozenset[str] = msgspec.field(default_factory=search.changeable)

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
        """The real path of a program that corral may start: where the system has programs, one of
        `further` (absolute paths), or on PATH; None when there is none. See `search`.
        """
        folders = self.environ.get("PATH", "").split(":")
        theirs = (f"{folder}/{name}" for folder in folders if folder.startswith("/"))
        system = (f"{folder}/{name}" for folder in search.SYSTEM_FOLDERS)
        for candidate in (*system, *further, *theirs):
            real = self.real(candidate)
            if real is not None:
                return real
        return None

    def real(self, absolute: str) -> str | None:
        """The path of this executable file with symlinks resolved; None when it is none, or when a
        sandbox or another user may have put it there.
        """
        try:
            passed = search.steps(absolute, self.root)
        except OSError:  # not there, or in a folder that may not be searched
            return None
        path, status = passed[-1]
        if not (stat.S_ISREG(status.st_mode) and os.access(self.path(path), os.X_OK)):
            return None
        return path if search.is_sound(passed, self.changeable) else None

    def search_path(self) -> str:
        """PATH for programs that start others by it, a pager say: by the same rule."""
        found = [folder for folder in search.SYSTEM_FOLDERS if self.path(folder).is_dir()]
        for folder in self.environ.get("PATH", "").split(":"):
            with contextlib.suppress(OSError):
                if folder.startswith("/") and search.is_sound(
                    search.steps(folder, self.root), self.changeable
                ):
                    found.append(folder)
        return ":".join(dict.fromkeys(found))

    def answer(self, argv: Sequence[str], **env: str) -> Answer:
        """Ask a program, in an environment made from nothing but a PATH, the locale C and `env`."""
        return self.ask(argv, {"PATH": PATH_FALLBACK, "LC_ALL": "C.UTF-8", **env})


@contextlib.contextmanager
def sound_path() -> Iterator[None]:
    """This process with a PATH of `System.search_path`, for libraries that start programs by it."""
    before = os.environ.get("PATH")
    os.environ["PATH"] = System().search_path()
    try:
        yield
    finally:
        os.environ.pop("PATH") if before is None else os.environ.update(PATH=before)
