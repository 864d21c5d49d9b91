"""Git repositories in a workspace, read as plain files.

No git is run: a repository's config is code (core.fsmonitor), and a guest may have written it. What
git on the host obeys is found here, to be made read-only before a sandbox starts, or to be compared
afterwards. Sources: gitrepository-layout(5), git-config(1), githooks(5).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

# Inside a git folder: programs that git runs, settings that name programs, and the file that says
# that the settings are somewhere else.
OBEYED = ("hooks", "config", "config.worktree", "commondir")
MAX_FOLDERS = 20_000  # of one workspace that are looked into for further repositories
_MAX_HOOKS = 256
_SMALL = 64 * 1024  # bytes of a git config that are read
_SECTION = re.compile(r"\s*\[\s*([A-Za-z0-9.-]+)")
_SETTING = re.compile(r"\s*(path|hookspath)\s*=\s*(.*?)\s*(?:[#;].*)?$", re.IGNORECASE)


def inner_folders(git_folder: Path, depth: int = 3) -> list[Path]:
    """The git folders of a repository's submodules and linked worktrees, which are in it."""
    found: list[Path] = []
    for folder in (git_folder / "modules", git_folder / "worktrees"):
        if not folder.is_dir() or folder.is_symlink():
            continue
        for entry in sorted(folder.iterdir()):
            if entry.is_symlink() or not entry.is_dir():
                continue
            if (entry / "HEAD").exists():
                found.append(entry)
            elif depth:  # a submodule's name may have slashes
                found += _submodules_below(entry, depth - 1)
            if depth:
                found += inner_folders(entry, depth - 1)
    return found


def _submodules_below(folder: Path, depth: int) -> list[Path]:
    found: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            continue
        if (entry / "HEAD").exists():
            found += [entry, *(inner_folders(entry, depth - 1) if depth else [])]
        elif depth:
            found += _submodules_below(entry, depth - 1)
    return found


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
    is_repository = all((common / name).exists() for name in ("HEAD", "objects", "refs"))
    return str(common) if is_repository else None


def included(git_folder: Path) -> list[str]:
    """Files that the config of `git_folder` includes (include.path, includeIf.*.path), absolute."""
    return [
        os.path.normpath(git_folder / value)
        for section, name, value in _settings(git_folder / "config")
        if section in ("include", "includeif") and name == "path" and not value.startswith("~")
    ]


def hooks_path(git_folder: Path, root: str) -> str | None:
    """Where the config of `git_folder` says that hooks are (core.hooksPath), absolute."""
    for section, name, value in _settings(git_folder / "config"):
        if section == "core" and name == "hookspath" and not value.startswith("~"):
            return os.path.normpath(os.path.join(root, value))  # noqa: PTH118 - value may be absolute
    return None


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

    Every `.git` (a folder, a file, a link) and every bare repository counts, as deep as MAX_FOLDERS
    go, the nearest first. A guest cannot forge a change time: it is the host kernel's clock.
    """
    states: dict[str, tuple[object, ...]] = {}
    todo = [root]
    for seen, folder in enumerate(todo):
        if seen >= MAX_FOLDERS:
            break
        try:
            with os.scandir(folder) as entries:
                found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:
            continue  # not for us to see, or gone a moment ago
        if ".git" in found:
            _note_repository(f"{folder}/.git", folder, states)
        if found.get("objects") and found.get("refs") and "HEAD" in found:
            _note_git_folder(folder, folder, states)
            continue
        below = [name for name, is_folder in found.items() if is_folder and name != ".git"]
        todo += [f"{folder}/{name}" for name in below]
    return states


def changed(
    before: Mapping[str, tuple[object, ...]], after: Mapping[str, tuple[object, ...]]
) -> list[str]:
    """Paths that appeared or changed between two snapshots, without those inside one that did."""
    paths: list[str] = []
    for path in sorted(path for path, state in after.items() if before.get(path) != state):
        if not any(path.startswith(found + "/") for found in paths):
            paths.append(path)
    return paths


def _note_repository(dot_git: str, root: str, states: dict[str, tuple[object, ...]]) -> None:
    mode = _mode(dot_git)
    if stat.S_ISDIR(mode):
        # The folder's own times change with every commit; only what it is counts.
        states[dot_git] = ("folder",)
        _note_git_folder(dot_git, root, states)
    else:
        states[dot_git] = _state(dot_git)


def _note_git_folder(folder: str, root: str, states: dict[str, tuple[object, ...]]) -> None:
    for name in OBEYED:
        path = f"{folder}/{name}"
        if name == "hooks":
            _note_hooks(path, states)
        elif os.path.lexists(path):
            states[path] = _state(path)
    hooks = hooks_path(Path(folder), root)
    if hooks is not None:
        _note_hooks(hooks, states)


def _note_hooks(folder: str, states: dict[str, tuple[object, ...]]) -> None:
    if os.path.islink(folder):  # noqa: PTH114 - many paths, all of them text
        states[folder] = _state(folder)
        return
    try:
        names = sorted(os.listdir(folder))[:_MAX_HOOKS]  # noqa: PTH208
    except OSError:
        return
    for name in names:
        if not name.endswith(".sample"):
            states[f"{folder}/{name}"] = _state(f"{folder}/{name}")


def _state(path: str) -> tuple[object, ...]:
    try:
        found = os.lstat(path)
        link = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""  # noqa: PTH115
    except OSError as error:
        return (error.errno,)
    return (found.st_mode, found.st_ino, found.st_size, found.st_ctime_ns, link)


def _mode(path: str) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


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
