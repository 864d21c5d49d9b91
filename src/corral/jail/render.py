"""A jail as a command line for bubblewrap. Pure; in a guest, see guest.py."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..proc import bwrap as bubblewrap
from ..proc.bwrap import Data
from .resolve import Resolved

ARGUMENTS_FD = 10  # as bubblewrap sees it; filters and files follow
_FIRST_FD = 11


class Rendered(Struct, frozen=True):
    """argv, and what is to be at which descriptor when it starts."""

    argv: tuple[str, ...]
    contents: tuple[tuple[int, bytes], ...]


def host(
    jail: Resolved,
    bwrap: tuple[str, ...],
    command: Sequence[str],
    filters: Sequence[bytes],
    *,
    uid: int,
    gid: int,
    root: bool,
) -> Rendered:
    """bubblewrap's command line. uid, gid: in the jail, the user's own or others.
    root: the user is the host's root.

    The environment is not on it, as everybody can read command lines: it is in a descriptor.
    """
    numbers = iter(range(_FIRST_FD, _FIRST_FD + len(filters) + len(jail.files)))
    contents: list[tuple[int, bytes]] = []
    options = ["--args", str(ARGUMENTS_FD), "--hostname", jail.hostname, "--cap-drop", "ALL"]
    for program in filters:
        contents.append((next(numbers), program))
        options += ["--add-seccomp-fd", str(contents[-1][0])]
    tree = list(jail.tree)
    for path, text in jail.files:
        contents.append((next(numbers), text.encode()))
        tree.insert(len(tree) - 1, Data(contents[-1][0], path))  # before the root is sealed
    words = ["--clearenv", "--chdir", jail.cwd]
    for name, value in jail.variables:
        words += ["--setenv", name, value]
    contents.append(
        (ARGUMENTS_FD, b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words))
    )
    argv = bubblewrap.confined(
        bwrap,
        tuple(tree),
        tuple(command),
        uid=uid,
        gid=gid,
        root=root,
        network=jail.network,
        new_session=jail.session,
        options=tuple(options),
    )
    return Rendered(argv, tuple(contents))
