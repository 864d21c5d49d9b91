"""What is put on a jail: the floor, which is always there, and a profile as a program."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import msgspec
from msgspec import Struct

from corral_guest.seccomp import jail_filter

from ...errors import ConfigError
from .kept import kept
from .profile import MAX_SIZE, Profile, parse
from .table import Mode, Target, answer, table

DEFAULT, NONE = "default", "none"


class Filters(Struct, frozen=True):
    """Programs of classic BPF, to be installed one after the other: the strictest answer counts.

    floor: no AF_VSOCK, no typing into a terminal, no foreign system call table, and no io_uring
    but where the profile allows it. profile: None for none.
    """

    floor: bytes
    profile: bytes | None

    @property
    def programs(self) -> tuple[bytes, ...]:
        """All of them, in order."""
        return (self.floor,) if self.profile is None else (self.floor, self.profile)


def load(name: str) -> Profile | None:
    """The profile `default`, `none` (None), or that of a file. Raises ConfigError."""
    if name == NONE:
        return None
    if name == DEFAULT:
        text = resources.files(__package__).joinpath("default.json").read_bytes()
        return parse(text, name)
    try:
        # Without blocking: a name in a folder that a sandbox writes to may be a pipe.
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            text = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(
            f"the seccomp profile {name} cannot be read: {error.strerror}.",
            hint="Say default, none, or the path of a file in Docker's format.",
        ) from error
    return parse(text, Path(name).name)


def filters(name: str, mode: Mode, target: Target, needed: Iterable[str] = ()) -> Filters:
    """The programs for the profile `name`. needed: calls of whatever starts commands.

    Raises ConfigError, HostError.
    """
    profile = load(name)
    if profile is None:
        return Filters(jail_filter(target.machine), None)
    where = table(profile, target, mode, needed)
    asked = mode != "log" and answer(where, "io_uring_setup", ()).allows
    floor = jail_filter(target.machine, io_uring=asked)
    inputs = (target.machine, msgspec.json.encode(where).decode())

    def make() -> bytes:
        from .library import compile_table  # it is not needed otherwise

        return compile_table(where, target.machine)

    return Filters(floor, kept(inputs, make))
