"""What the file system holds where a sandbox is built from: a survey, taken just before planning.

Everything that planning needs to know of the user's folders is found here, so that planning itself
does no I/O. No git is run: a repository's config is code (core.fsmonitor), and a guest may have
written it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from . import repository

# What holds programs. Top-level links (/bin -> usr/bin) are made again as links.
TOOLBOX = ("/usr", "/opt", "/nix/store", "/gnu/store")
TOP_LEVEL = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# What programs read in /etc and no secret lives in; what corral writes itself is not here.
ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "timezone"),
    *("ssl/certs", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "pki/tls/certs"),
    *("pki/ca-trust/extracted", "pki/tls/openssl.cnf", "crypto-policies", "ssl/cert.pem"),
    *("os-release", "debian_version", "lsb-release", "fedora-release", "redhat-release"),
    *("protocols", "services", "mime.types", "magic", "magic.mime", "inputrc", "terminfo"),
    *("profile", "bash.bashrc", "bashrc", "zsh", "fonts", "locale.conf", "default/locale"),
    *("python3", "python3.11", "python3.12", "python3.13", "perl", "java-17-openjdk"),
    *("java-21-openjdk", "maven", "gitattributes", "static", "login.defs", "shells"),
    *("debconf.conf", "dpkg", "X11/rgb.txt"),
)


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """The workspace as it is now; all paths absolute.

    mounts: folders that must be mount points of their own, so that a guest cannot rename them away
    with what is protected inside. protected: made read-only. absent: protected paths that do not
    exist: their appearance is reported. git_common: a linked worktree's common .git, outside.
    disk: under its file system, as "259:0".
    """

    path: str
    mounts: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    masked_files: tuple[str, ...] = ()
    masked_folders: tuple[str, ...] = ()
    git_common: str | None = None
    disk: str | None = None


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """What is there. folders: toolbox folders. links: (path, text). etc: paths to show read-only.

    variables: environment that programs of this host expect (locale, terminal).
    """

    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    etc: tuple[str, ...]
    workspace: Workspace


def survey(
    workspace: str,
    *,
    unprotect: tuple[str, ...],
    protected: tuple[str, ...],
    is_masked: Callable[[str, bool], bool] | None,
    program: tuple[str, ...] = (),
) -> Layout:
    """Look at the toolbox folders and at the workspace (an absolute real path).

    protected: paths relative to the workspace. is_masked: whether (path relative to the workspace,
    is a folder) is hidden; None when nothing is. program: corral's own files (paths.program_files).
    """
    folders, links = _toolbox()
    return Layout(
        folders=tuple(folders),
        links=tuple(links),
        etc=_etc(),
        workspace=_workspace(workspace, unprotect, protected, program, is_masked),
    )


def program_folders() -> tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Folders with programs, links (path, text) and paths of /etc that programs need."""
    folders, links = _toolbox()
    return tuple(folders), tuple(links), _etc()


def _etc() -> tuple[str, ...]:
    return tuple(f"/etc/{name}" for name in ETC if Path("/etc", name).exists())


def _toolbox() -> tuple[list[str], list[tuple[str, str]]]:
    folders = [path for path in TOOLBOX if Path(path).is_dir() and not Path(path).is_symlink()]
    links: list[tuple[str, str]] = []
    for path in TOP_LEVEL:
        if Path(path).is_symlink():
            links.append((path, str(Path(path).readlink())))
        elif Path(path).is_dir():
            folders.append(path)
    system = Path("/run/current-system")  # NixOS: a link into /nix/store
    if system.exists():
        links.append((f"{system}", str(system.resolve())))
    return folders, links


def _workspace(
    root: str,
    unprotect: tuple[str, ...],
    protected: tuple[str, ...],
    program: tuple[str, ...],
    is_masked: Callable[[str, bool], bool] | None,
) -> Workspace:
    wanted = [f"{root}/{path}" for path in protected if not path.startswith(".git/")]
    wanted += [path for path in program if path.startswith(root + "/")]
    common: str | None = None
    dot_git = Path(root, ".git")
    if repository.is_git_file(dot_git):
        wanted.append(str(dot_git))
        common = repository.linked_worktree(dot_git)
        if common is not None:
            wanted += _obeyed(Path(common))
    else:
        # A link stays a link, and what it leads to in the workspace is protected there.
        wanted += _obeyed(Path(os.path.realpath(dot_git)))
    free = {os.path.normpath(f"{root}/{path}") for path in unprotect}
    inside = (root + "/", *((common + "/",) if common else ()))
    wanted = [
        path
        for path in dict.fromkeys(wanted)
        if path.startswith(inside) and not _below_any(path, free)
    ]
    there = tuple(path for path in wanted if _plain(path))
    files, folders = _masked(root, is_masked) if is_masked else ([], [])
    return Workspace(
        path=root,
        mounts=_folders_above(there, (root, *((common,) if common else ()))),
        protected=there,
        absent=tuple(path for path in wanted if not os.path.lexists(path)),
        masked_files=tuple(files),
        masked_folders=tuple(folders),
        git_common=common,
    )


def _obeyed(git_folder: Path) -> list[str]:
    """What the host's git obeys in a git folder, in its submodules' and in its worktrees'."""
    paths = [f"{git_folder}/{name}" for name in repository.OBEYED]
    paths += repository.included(git_folder)
    inner = repository.inner_folders(git_folder)
    common = [repository.common_folder(folder) for folder in (git_folder, *inner)]
    for folder in dict.fromkeys((*inner, *common)):
        paths += [f"{folder}/{n}" for n in repository.OBEYED if os.path.lexists(folder / n)]
        paths += repository.included(folder)
    return paths


def _folders_above(paths: tuple[str, ...], roots: tuple[str, ...]) -> tuple[str, ...]:
    """Every folder between a root and a path: one that is no mount point could be renamed away."""
    found: dict[str, None] = {}
    for path in paths:
        root = max((r for r in roots if path.startswith(r + "/")), key=len)
        parts = path[len(root) + 1 :].split("/")[:-1]
        found |= dict.fromkeys(f"{root}/{'/'.join(parts[: n + 1])}" for n in range(len(parts)))
    return tuple(found)


def _masked(root: str, is_masked: Callable[[str, bool], bool]) -> tuple[list[str], list[str]]:
    """The masked files and folders below root, absolute; nothing below a masked folder."""
    files: list[str] = []
    folders: list[str] = []
    for parent, inner, names in os.walk(root, onerror=_refused):
        hidden = [n for n in inner if is_masked(os.path.relpath(f"{parent}/{n}", root), True)]
        for name in hidden:
            # A link is a name only: what it leads to is hidden where it is, or not in the guest.
            if not _is_link(f"{parent}/{name}"):
                folders.append(f"{parent}/{name}")
        inner[:] = [name for name in inner if name not in hidden]
        files += [
            f"{parent}/{name}"
            for name in names
            if not _is_link(f"{parent}/{name}")
            and is_masked(os.path.relpath(f"{parent}/{name}", root), False)
        ]
    return files, folders


def _refused(error: OSError) -> None:
    """Refuse a folder of the user's that cannot be listed: a sandbox could make it readable again,
    and see what a mask was to hide. One of somebody else's stays closed to it.
    """
    with contextlib.suppress(OSError):
        if error.errno == errno.EACCES and os.stat(error.filename).st_uid == os.geteuid():
            raise repository.unreadable(error.filename, error)


def _is_link(path: str) -> bool:
    return stat.S_ISLNK(repository.mode_of(Path(path)))


def _below_any(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _plain(path: str) -> bool:
    """Whether there is a file or folder at path itself: what a link names may be anywhere."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and os.path.realpath(path) == path
