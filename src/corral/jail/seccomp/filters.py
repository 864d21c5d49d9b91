"""What is put on a jail: the floor, which is always there, and a profile as a program."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from corral_guest.seccomp import jail_filter

from ...errors import ConfigError
from .kept import kept
from .target import Mode, Target

if TYPE_CHECKING:
    from .profile import Profile

DEFAULT, NONE = "default", "none"
_LONGEST = 1 << 20  # bytes; `profile` refuses what is longer
_URING, _NO_URING = b"u", b"-"  # before a program in the cache


class Filters(NamedTuple):
    """Programs of classic BPF, to be installed one after the other: the strictest answer counts.

    floor: no AF_VSOCK, no typing into a terminal, no foreign system call table, and no io_uring
    but where a rule of the profile allows it by name. profile: None for none.
    """

    floor: bytes
    profile: bytes | None

    @property
    def programs(self) -> tuple[bytes, ...]:
        """All of them, in order."""
        return (self.floor,) if self.profile is None else (self.floor, self.profile)


def load(name: str) -> Profile | None:
    """The profile `default`, `none` (None), or that of a file. Raises ConfigError."""
    from .profile import parse

    text = _text(name)
    return None if text is None else parse(text, Path(name).name)


def _text(name: str) -> bytes | None:
    if name == NONE:
        return None
    if name == DEFAULT:
        return Path(__file__).with_name("default.json").read_bytes()
    try:
        # Without blocking: a name in a folder that a sandbox writes to may be a pipe.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            return file.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigError(
            f"the seccomp profile {name} cannot be read: {error.strerror}.",
            hint="Say default, none, or the path of a file in Docker's format.",
        ) from error


def filters(name: str, mode: Mode, target: Target, needed: Iterable[str] = ()) -> Filters:
    """The programs for the profile `name`. needed: calls of whatever starts commands.

    Raises ConfigError, HostError.
    """
    text = _text(name)
    if text is None:
        return Filters(jail_filter(target.machine), None)
    calls = tuple(needed)

    def make() -> bytes:
        # What a start finds in the cache needs neither these nor libseccomp.
        from .compiler import compile_table
        from .profile import parse
        from .table import table

        where = table(parse(text, Path(name).name), target, mode, calls)
        # By name: the operations of a ring pass no filter, the floor's neither, so a profile that
        # allows what it does not name must not open that.
        asked = mode != "log" and any(e.answer.allows for e in where.of("io_uring_setup"))
        return (_URING if asked else _NO_URING) + compile_table(where, target.machine)

    inputs = (text, mode.encode(), repr(tuple(target)).encode(), " ".join(calls).encode())
    made = kept(inputs, make)
    floor = jail_filter(target.machine, io_uring=made[:1] == _URING)
    return Filters(floor, made[1:])
