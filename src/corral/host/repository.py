"""Git repositories in a workspace, read as plain files.

No git is run: a repository's config is code (core.fsmonitor), and a guest may have written it. What
git on the host obeys is found here, to be made read-only before a sandbox starts, or to be compared
afterwards. Sources: gitrepository-layout(5), git-config(1), githooks(5).
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

from ..errors import HostError

# Inside a git folder: programs that git runs, settings that name programs, and the file that says
# that the settings are somewhere else.
OBEYED = ("hooks", "config", "config.worktree", "commondir")
MAX_FOLDERS = 20_000  # of one workspace that are looked into for further repositories
_MAX_HOOKS = 256
_MAX_CONFIGS = 16  # of one repository, with those that they include
_MAX_PLACES = 16  # for the hooks of one repository
_MAX_READ = 1000  # repositories of one workspace whose settings are read for further places
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_SMALL = 64 * 1024  # bytes of a git config that are read
_SECTION = re.compile(r"\s*\[\s*([A-Za-z0-9.-]+)")
_SETTING = re.compile(r"\s*(path|hookspath)\s*=\s*(.*?)\s*(?:[#;].*)?$", re.IGNORECASE)


def inner_folders(git_folder: Path, depth: int = 3) -> list[Path]:
    """The git folders of a repository's submodules and linked worktrees, which are in it.

    Raises HostError where one cannot be looked into: what is there would not be protected.
    """
    found: list[Path] = []
    for folder in (git_folder / "modules", git_folder / "worktrees"):
        for entry in _folders_in(folder):
            if _is_there(entry / "HEAD"):
                found.append(entry)
            elif depth:  # a submodule's name may have slashes
                found += _submodules_below(entry, depth - 1)
            if depth:
                found += inner_folders(entry, depth - 1)
    return found


def _submodules_below(folder: Path, depth: int) -> list[Path]:
    found: list[Path] = []
    for entry in _folders_in(folder):
        if _is_there(entry / "HEAD"):
            found += [entry, *(inner_folders(entry, depth - 1) if depth else [])]
        elif depth:
            found += _submodules_below(entry, depth - 1)
    return found


def _folders_in(folder: Path) -> list[Path]:
    """Folders in a folder, no link followed; none where it is none. Raises HostError."""
    with _looking(folder):
        if stat.S_ISDIR(folder.lstat().st_mode):
            return [each for each in sorted(folder.iterdir()) if stat.S_ISDIR(mode_of(each))]
    return []


def _is_there(path: Path) -> bool:
    """Whether there is such a name, if only a link to nothing. Raises HostError."""
    return mode_of(path) != 0


def mode_of(path: Path) -> int:
    """What lstat says, 0 for nothing. Raises HostError."""
    with _looking(path):
        return path.lstat().st_mode
    return 0


@contextlib.contextmanager
def _looking(path: Path) -> Iterator[None]:
    """What is not there is left out; what cannot be looked at is a HostError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOTHING:
            raise unreadable(str(path), error) from error


def is_git_file(dot_git: Path) -> bool:
    """Whether a `.git` is a file, no link followed. Raises HostError."""
    return stat.S_ISREG(mode_of(dot_git))


def unreadable(path: str, error: OSError) -> HostError:
    """What says that a path of the workspace cannot be looked at."""
    return HostError(
        f"{path!a} cannot be looked at: {error.strerror}. What git obeys or a mask hides "
        "there could not be protected.",
        hint="A sandbox may have left it so. See what it and the folders above it are (ls -ld), "
        "then remove it or make it readable (chmod u+rwX).",
    )


def git_folder_of(dot_git: Path) -> Path | None:
    """The folder that a `.git` is or, as a file, names; None where it is neither. Nothing is sure
    of that folder: the name may be of whoever could write the file.
    """
    text = _small_text(dot_git)
    if text.startswith("gitdir: "):
        return Path(os.path.realpath(dot_git.parent / text[len("gitdir: ") :].strip()))
    return Path(os.path.realpath(dot_git)) if os.path.isdir(dot_git) else None  # noqa: PTH112


def common_folder(git_folder: Path) -> Path:
    """Where a git folder has its config, hooks and objects: where commondir says, or in itself."""
    text = _small_text(git_folder / "commondir").rstrip("\r\n")
    return Path(os.path.realpath(git_folder / text)) if text else git_folder


def linked_worktree(dot_git: Path) -> str | None:
    """The common .git folder of a linked worktree, or None when this is none.

    A `.git` file can name any folder, and the project is untrusted: the folder counts only when it
    is a repository's and names this very worktree in return, as git itself checks
    (gitrepository-layout(5), worktrees/<id>/gitdir).
    """
    text = _small_text(dot_git)
    if not text.startswith("gitdir: "):
        return None
    private = Path(os.path.normpath(dot_git.parent / text[len("gitdir: ") :].strip()))
    back = _small_text(private / "gitdir").strip()
    if not back or os.path.realpath(private / back) != os.path.realpath(dot_git):
        return None
    common = Path(os.path.realpath(private / (_small_text(private / "commondir").strip() or ".")))
    if private.parent.name != "worktrees" or private.resolve().parent.parent != common:
        return None
    is_repository = all(_is_there(common / name) for name in ("HEAD", "objects", "refs"))
    return str(common) if is_repository else None


def included(git_folder: Path) -> list[str]:
    """Files that the settings of `git_folder` include (include.path, includeIf.*.path), absolute,
    and those that these include.
    """
    return [
        path
        for section, name, path in _settings_with_included(_files_of(git_folder))
        if _is_include(section, name)
    ]


def hooks_paths(git_folder: Path, root: str) -> list[str]:
    """Where settings say that the hooks of a repository are (core.hooksPath), absolute; all of
    them, as which one counts is git's to say. root: the folder that is checked out.
    """
    files = [*map(Path, _users_files()), *_files_of(git_folder)]
    found = [
        os.path.normpath(os.path.join(root, value))  # noqa: PTH118 - value may be absolute
        for section, name, value in _settings_with_included(files)
        if section == "core" and name == "hookspath"
    ]
    return list(dict.fromkeys(found))[-_MAX_PLACES:]


def obeyed_from(dot_git: Path) -> Iterator[tuple[str, str]]:
    """What git runs or obeys by what a `.git` says, wherever it is: (as what, absolute path).

    For a repository that is the user's own: all that it names is looked at.
    """
    folder = git_folder_of(dot_git)
    if folder is None:
        return
    common = common_folder(folder)
    for hooks in (f"{common}/hooks", *hooks_paths(folder, str(dot_git.parent))):
        yield ".git/hooks", hooks
        for name in _names(hooks):
            if os.path.islink(f"{hooks}/{name}"):  # noqa: PTH114 - text, as below
                yield f".git/hooks/{name}", f"{hooks}/{name}"
    for path in (*map(str, _files_of(folder)), *included(folder)):
        yield ".gitconfig", path


def _files_of(git_folder: Path) -> list[Path]:
    """The settings that git reads for a git folder."""
    return [common_folder(git_folder) / "config", git_folder / "config.worktree"]


def _users_files() -> tuple[str, ...]:
    """The settings that git reads for a user."""
    home = os.path.expanduser("~")  # noqa: PTH111 - never an error
    above = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    return ("/etc/gitconfig", f"{above}/git/config", f"{home}/.gitconfig")


def _is_include(section: str, name: str) -> bool:
    return section in ("include", "includeif") and name == "path"


def _settings_with_included(files: list[Path]) -> Iterator[tuple[str, str, str]]:
    """(section, name, value) of the paths in git configs and in those that they include."""
    todo = list(dict.fromkeys(files))
    for file in todo:
        for section, name, value in _settings(file):
            if value.startswith("~"):
                value = os.path.expanduser(value)  # noqa: PTH111 - never an error
            if not value or value.startswith("~"):
                continue
            if _is_include(section, name):
                value = os.path.normpath(file.parent / value)
                if len(todo) < _MAX_CONFIGS and Path(value) not in todo:
                    todo.append(Path(value))
            yield section, name, value


def _settings(config: Path) -> Iterator[tuple[str, str, str]]:
    """(section, name, value) of the paths in a git config; enough of its grammar for that."""
    section = ""
    for line in _small_text(config).splitlines():
        if header := _SECTION.match(line):
            section = header[1].lower()
            line = line[line.find("]") + 1 :]
        if setting := _SETTING.match(line):
            yield section, setting[1].lower(), setting[2].strip('"')


def snapshot(root: str) -> dict[str, tuple[object, ...]]:
    """What git obeys in and below `root`: for each path its state, to be compared by `changed`.

    Every `.git` (a folder, a file, a link), what is in it for submodules and worktrees, and every
    folder that git would take for a repository counts, as deep as MAX_FOLDERS go, the nearest
    first. A guest cannot forge a change time: it is the host kernel's clock.
    """
    states: dict[str, tuple[object, ...]] = {}
    todo = [root]
    git_folders: list[tuple[str, str]] = []
    for seen, folder in enumerate(todo):
        if seen >= MAX_FOLDERS:
            break
        try:
            with os.scandir(folder) as entries:
                found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:
            continue  # not for us to see, or gone a moment ago
        if ".git" in found:
            dot_git = f"{folder}/.git"
            if found.pop(".git"):
                # Its times change with every commit; only what it is counts.
                states[dot_git] = ("folder",)
                git_folders.append((dot_git, folder))
                todo += [f"{dot_git}/modules", f"{dot_git}/worktrees"]
            else:
                states[dot_git] = _state(dot_git)
        if _may_be_git_folder(found):
            git_folders.append((folder, folder))
        todo += [f"{folder}/{name}" for name, is_folder in found.items() if is_folder]
    for git_folder, _root in git_folders:
        _note_git_folder(git_folder, states)
    for git_folder, checked_out in git_folders[:_MAX_READ]:
        _note_further(git_folder, checked_out, states)
    return states


def _may_be_git_folder(names: Container[str]) -> bool:
    """Whether git may take a folder with these names in it for one of its own.

    As is_git_directory in git's setup.c has it: HEAD, and objects and refs, in it or where its
    commondir says. These may be links, and programs instead of folders. One without HEAD may be
    what another's commondir names.
    """
    if "objects" in names and "refs" in names:
        return True
    return "HEAD" in names and "commondir" in names


def changed(
    before: Mapping[str, tuple[object, ...]], after: Mapping[str, tuple[object, ...]]
) -> list[str]:
    """Paths that appeared or changed between two snapshots, without those inside one that did."""
    paths: list[str] = []
    for path in sorted(path for path, state in after.items() if before.get(path) != state):
        if not any(path.startswith(found + "/") for found in paths):
            paths.append(path)
    return paths


def _note_git_folder(folder: str, states: dict[str, tuple[object, ...]]) -> None:
    for name in OBEYED:
        path = f"{folder}/{name}"
        if name == "hooks":
            _note_hooks(path, states)
        elif os.path.lexists(path):
            states[path] = _state(path)


def _note_further(folder: str, root: str, states: dict[str, tuple[object, ...]]) -> None:
    """What the settings of a git folder name that is elsewhere."""
    for hooks in hooks_paths(Path(folder), root):
        _note_hooks(hooks, states)
    for path in included(Path(folder)):
        if os.path.lexists(path):
            states[path] = _state(path)


def _note_hooks(folder: str, states: dict[str, tuple[object, ...]]) -> None:
    if os.path.islink(folder):  # noqa: PTH114 - many paths, all of them text
        states[folder] = _state(folder)
        return
    for name in _names(folder):
        states[f"{folder}/{name}"] = _state(f"{folder}/{name}")


def _names(hooks: str) -> list[str]:
    """Of the first hooks in a folder; none where it cannot be listed."""
    try:
        names = sorted(os.listdir(hooks))[:_MAX_HOOKS]  # noqa: PTH208 - many, all of them text
    except OSError:
        return []
    return [name for name in names if not name.endswith(".sample")]


def _state(path: str) -> tuple[object, ...]:
    try:
        found = os.lstat(path)
        link = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""  # noqa: PTH115
    except OSError as error:
        return (error.errno,)
    return (found.st_mode, found.st_ino, found.st_size, found.st_ctime_ns, link)


def _small_text(path: Path) -> str:
    """The beginning of a regular file; "" for anything else (a FIFO would block us for ever)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        text = os.read(fd, _SMALL).decode(errors="surrogateescape")
        return text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # no path has one
    except OSError:
        return ""
    finally:
        os.close(fd)
