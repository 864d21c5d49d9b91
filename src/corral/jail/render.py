"""A jail as a command line for bubblewrap, or as steps of a guest's supervisor. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..errors import ConfigError
from ..proc import bwrap as bubblewrap
from ..proc.bwrap import Bind, Data, Folder, Memory, Seal, Symlink
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


def guest(jail: Resolved, export: str) -> list[list[str | int]]:
    """The tree as steps of corral_guest.tree, where that has them. Raises ConfigError.

    export: the folder of the host that is the agent's export; what is bound must lie in it or in
    the toolbox, at its own path: a guest has nothing else of the host. What is read-only there is
    made so by the host, so a read-only bind in the export is refused rather than left writable.
    """
    steps: list[list[str | int]] = []
    for step in jail.tree:
        match step:
            case Memory(path=path):
                steps.append(["tmpfs", path, 0o755])
            case Bind(source=source, target=target, access=access) if source == target:
                within = source == export or source.startswith(export.rstrip("/") + "/")
                if within != (access is bubblewrap.Access.WRITABLE):
                    raise ConfigError(
                        f"{source} cannot be bound so in a guest: what is read-only is the host's "
                        "to say.",
                        hint="Make it a share of the sandbox (--share).",
                    )
                steps.append(["export" if within else "toolbox", target])
            case Folder(path=path):
                steps.append(["folder", path, 0o755])
            case Seal(path="/") | Symlink():
                continue  # the toolbox has these links; its root is an overlay of the agent's own
            case _:
                raise ConfigError("a guest's jail shows paths where they are, and whole.")
    return steps
