"""Where a sandbox's folders are: paths exist, nothing overlaps, nothing dangerous by accident."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Sequence
from typing import cast

from msgspec import Struct

from .. import paths
from ..errors import ConfigError, HostError
from .herd import SHARED, WORKSPACE
from .layers import Entry, Merged
from .model import PROTECTED, Share
from .text import has_control, is_unicode, printable
from .values import NamedShare

# Folders of the system: a workspace or share there is almost surely a mistake.
_SYSTEM = ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr")
_SYSTEM_SOURCES = ("/usr/src", "/usr/local/src")
_PSEUDO = ("/dev", "/proc", "/sys")
# In the guest these come from the toolbox or the kernel.
_RESERVED_BELOW = (*_SYSTEM, *_PSEUDO, "/nix/store", "/corral")
_RESERVED = ("/", "/home", "/nix", "/opt", "/root", "/run", "/tmp", "/var")  # noqa: S108
_SENSITIVE = (
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".config/gcloud",
    ".config/gh",
    ".password-store",
    ".claude/.credentials.json",
    ".codex/auth.json",
    ".git-credentials",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials.toml",
    ".local/share/keyrings",
)


class Place(Struct, frozen=True):
    """Where things are. workspace: real path. home: as HOME says. homes: real paths of homes.

    project: the folder of the project's file, or None.
    """

    workspace: str
    home: str
    homes: tuple[str, ...]
    project: str | None


def beneath(path: str, folder: str) -> bool:
    """Whether the normalised absolute `path` is `folder` or inside it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def homes_of(home: str) -> tuple[str, ...]:
    """Real paths of the user's home folders: HOME's and the one in the password database."""
    found = [os.path.realpath(home)]
    # A uid without an entry is normal in some containers; HOME is all there is then.
    with contextlib.suppress(KeyError):
        found.append(os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir))
    return tuple(dict.fromkeys(found))


def check_path(path: str, what: str) -> None:
    """ConfigError when `path` has what an option of QEMU, bwrap or a share cannot carry."""
    found = (
        "bytes that are not UTF-8"
        if not is_unicode(path)
        else "a newline"
        if "\n" in path
        else "a control character"
        if has_control(path)
        else "a comma"
        if "," in path
        else "a colon"
        if ":" in path
        else None
    )
    if found:
        raise ConfigError(
            f"{what} {printable(path)} has {found} in its path.",
            hint="Rename the folder; commas, colons, control characters and bytes that are not "
            "UTF-8 cannot be passed on safely.",
        )


def check_workspace(place: Place, *, force: bool) -> None:
    path = place.workspace
    check_path(path, "the workspace")
    _check_folder(path, "the workspace")
    _refuse_broad(path, "the workspace", place, force=force)


def _refuse_broad(path: str, what: str, place: Place, *, force: bool) -> None:
    for pseudo in _PSEUDO:
        if beneath(path, pseudo):
            raise ConfigError(f"{what} {path} is part of {pseudo}, which the kernel makes.")
    reason = None
    if path == "/":
        reason = "the whole file system"
    elif any(beneath(home, path) for home in place.homes if home != "/"):
        reason = "your home folder" if path in place.homes else "a folder that holds your home"
    elif what == "the workspace" and _is_system(path):
        reason = "a folder of the system"
    if reason and not force:
        raise ConfigError(
            f"{what} {path} is {reason}: everything in it would be open to the sandbox.",
            hint="Change to a project's folder, or use --force if this is what you mean."
            if what == "the workspace"
            else "Share a folder inside it, or use --force if this is what you mean.",
        )


def _is_system(path: str) -> bool:
    if any(beneath(path, sources) for sources in _SYSTEM_SOURCES):
        return False
    return any(beneath(path, system) for system in _SYSTEM)


def _check_folder(path: str, what: str, origin: str | None = None) -> None:
    by = f" (from {origin})" if origin else ""
    shown = printable(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(f"{what} {shown}{by}: {reason}.") from error
    if not stat.S_ISDIR(mode):
        raise ConfigError(f"{what} {shown}{by} is not a folder.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise ConfigError(f"{what} {shown}{by} cannot be read by you.")


def real_path(named: str, what: str, entry: Entry, place: Place) -> str:
    """The real path of `named`, which a link planted in the project may not redirect."""
    check_path(named, what)
    real = os.path.realpath(named)
    check_path(real, what)
    fenced = [place.workspace]
    if entry.kind == "project" and place.project is not None:
        fenced.append(place.project)
    for folder in fenced:
        if beneath(named, folder) and not beneath(real, folder):
            raise ConfigError(
                f"{what} {printable(named)} (from {entry.origin}) is a link out of {folder}, "
                f"to {printable(real)}.",
                hint="What a sandbox can write may not choose what it sees. Name the folder "
                "itself.",
            )
    return real


def resolve_shares(entries: Sequence[Entry], place: Place, *, force: bool) -> list[Share]:
    shares = []
    for entry in entries:
        named = cast("NamedShare", entry.value)
        check_path(named.target, "the target")
        real = real_path(named.source, "the share", entry, place)
        _check_folder(real, "the share", entry.origin)
        _refuse_broad(real, "the share", place, force=force)
        _check_target(named.target, entry.origin, place)
        shares.append(Share(source=real, target=named.target, writable=named.writable))
    return shares


def _check_target(target: str, origin: str, place: Place) -> None:
    taken = target in _RESERVED or any(beneath(target, part) for part in _RESERVED_BELOW)
    if taken or any(beneath(home, target) for home in (place.home, *place.homes)):
        raise ConfigError(
            f"a share (from {origin}) cannot appear at {printable(target)}, "
            "which the guest has for itself.",
            hint="Choose another place: SRC:/mnt/NAME.",
        )


def resolve_tools(entries: Sequence[Entry], place: Place) -> tuple[str, ...]:
    """Folders as named (programs know themselves by these paths), without nested ones."""
    folders = []
    for entry in entries:
        named = str(entry.value)
        real = real_path(named, "the tool folder", entry, place)
        _check_folder(real, "the tool folder", entry.origin)
        for path in (named, real):
            # --force does not help: a home is not a folder of programs.
            _refuse_broad(path, "the tool folder", place, force=False)
            if any(beneath(path, part) for part in (*_PSEUDO, "/etc")):
                raise ConfigError(f"{printable(path)} (from {entry.origin}) holds no programs.")
        folders.append(named)
    unique = tuple(dict.fromkeys(folders))
    return tuple(
        folder
        for folder in unique
        if not any(other != folder and beneath(folder, other) for other in unique)
    )


def shared_entries(merged: Merged) -> list[Entry]:
    """herd.shared, as the share that it is."""
    return [
        Entry(NamedShare(str(entry.value), SHARED, False), entry.kind, entry.origin)
        for entry in merged["herd.shared"]
    ]


def refuse_overlaps(
    place: Place,
    entries: Sequence[Entry],
    shares: Sequence[Share],
    tools: Sequence[str],
    *,
    several: bool,
) -> None:
    """Nothing on the host is shared twice, and nothing in the guest hides something else.

    several: there are several agents, who find their workspaces in a place of their own.
    """
    sources = [("the workspace", place.workspace)]
    targets = [("the workspace", place.workspace)]
    if several:
        targets.append(("the agents' workspaces", WORKSPACE))
    for entry, share in zip(entries, shares, strict=True):
        label = f"the share {printable(share.source)} (from {entry.origin})"
        named = cast("NamedShare", entry.value).source
        for path in dict.fromkeys((share.source, named)):
            _refuse_overlap(label, path, sources)
        _refuse_overlap(label, share.target, targets)
        sources += [(label, path) for path in dict.fromkeys((share.source, named))]
        targets.append((label, share.target))
    for tool in tools:
        label = f"the tool folder {printable(tool)}"
        for path in dict.fromkeys((tool, os.path.realpath(tool))):
            _refuse_overlap(label, path, sources)
        _refuse_overlap(label, tool, targets)


def _refuse_overlap(label: str, path: str, others: Sequence[tuple[str, str]]) -> None:
    for other_label, other in others:
        if beneath(path, other) or beneath(other, path):
            raise ConfigError(
                f"{label} overlaps {other_label}: {printable(path)} and {printable(other)}.",
                hint="Leave one of them out.",
            )


def protect_own_files(writable: Sequence[str], *, force: bool) -> None:
    """A sandbox that could write corral's records could accept its own wishes."""
    file = paths.config_file()
    own: list[tuple[str, str]] = [("your configuration", str(file.parent))]
    if file.is_symlink():  # to a repository of dotfiles, say; it names commands that the host runs
        own.append(("your configuration", str(file)))
    # What cannot be made holds nothing yet.
    with contextlib.suppress(HostError):
        own.append(("corral's records", str(paths.state_dir())))
    with contextlib.suppress(HostError):
        own.append(("corral's cache of programs", str(paths.cache_dir())))
    for label, path in own:
        for folder in writable:
            if beneath(os.path.realpath(path), folder) and not force:
                raise ConfigError(
                    f"{label} ({printable(path)}) would be writable for the sandbox, in {folder}.",
                    hint="Share less, share it read-only (--ro), or use --force if this is what "
                    "you mean.",
                )


def protected(place: Place) -> list[str]:
    """What is read-only in the workspace unless unprotected, relative to it."""
    own = [path for path in paths.program_files() if beneath(path, place.workspace)]
    return [*PROTECTED, *(os.path.relpath(path, place.workspace) for path in own)]


def protect_program(writable: Sequence[str], workspace: str, *, force: bool) -> None:
    """A sandbox that could change corral would be corral the next time.

    In a workspace corral's files are made read-only (host/layout.py); a share has no such parts.
    """
    for path in paths.program_files():
        for folder in writable:
            inside = beneath(folder, path)
            if (inside or (folder != workspace and beneath(path, folder))) and not force:
                raise ConfigError(
                    f"corral itself ({printable(path)}) would be writable for the sandbox, in "
                    f"{printable(folder)}.",
                    hint="Share it read-only, make the folder of the whole clone the workspace "
                    "(corral's own files are read-only then), or use --force if this is what "
                    "you mean.",
                )


def sensitive(shares: Sequence[Share], place: Place) -> list[str]:
    found = []
    for share in shares:
        for home in place.homes:
            for name in _SENSITIVE:
                secret = f"{home.rstrip('/')}/{name}"
                within = beneath(share.source, secret)
                if within or (beneath(secret, share.source) and os.path.lexists(secret)):
                    found.append(f"the share {share.source} gives the sandbox your ~/{name}.")
    return found
