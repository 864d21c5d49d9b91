"""Changes as a commit on a new branch of the user's repository, without that repository's word.

Git's configuration and hooks are programs, so none of the repository's is read: git works in a
bare repository of ours, made for this and removed again, which only borrows the objects of the
user's (alternates). What it made is then put into the user's repository as new files, a pack and a
branch, by descriptor and without following links. HEAD, the index and the folder stay as they are.
Sources: gitrepository-layout(5), git-fast-import(1), git-check-ref-format(1).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..errors import ReviewError
from ..host.copies import entered
from ..host.system import System
from ..host.users import find_user
from . import refs
from .applying import BEING_WRITTEN, Accept, Outcome, staged, stuck
from .compare import Comparison
from .journal import Step
from .model import Change
from .names import is_git
from .pack import Pack
from .patch import quoted
from .showing import Shown, stand
from .surroundings import surroundings

_BRANCH = re.compile(
    r"(?!.*(?:\.\.|//|\.lock(?:/|$)|/\.|\.(?:/|$)))[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}"
)
_TIMEOUT = 600.0  # seconds for one step of git's
_MOST = 1 << 30  # bytes of one content

Tree = Mapping[bytes, tuple[bytes, bytes]]  # mode and object of each path of a commit


def commit(
    comparison: Comparison,
    here: int,
    workspace: Path,
    changes: Sequence[Change],
    accept: Accept,
    branch: str,
    message: str,
) -> tuple[str, Outcome]:
    """Make a commit of changes on the new branch; its id, or "" when nothing was left for it.

    Onto the commit that is checked out, by whom the user's own configuration says. A change is in
    conflict where that commit does not have what the snapshot was made of. What is committed is
    what was judged: contents go through the pack, which must be open for writing, and is as it was
    afterwards. Raises ReviewError.
    """
    _check_branch(branch)
    if not Path(workspace, ".git").is_dir() or Path(workspace, ".git").is_symlink():
        raise ReviewError(
            "there is no git repository in the workspace itself.",
            hint="Apply the changes to your folder: corral apply NAME",
        )
    head = _head(here)
    _check_free(here, branch)
    end = comparison.pack.end
    try:
        with _private(workspace, head) as git:
            outcome = Outcome()
            tree = _tree(git, head)
            asked = _asked(comparison, here, changes, accept, tree, outcome)
            steps = list(_fitting(asked, tree, outcome))
            if not steps:
                return "", outcome
            made = _import(git, comparison.pack, steps, head, (message, _identity()))
            _hand_over(git, here, made, head)
            _write_branch(here, branch, made)
            return made, outcome
    finally:
        comparison.pack.trim(end)


def _asked(
    comparison: Comparison,
    here: int,
    changes: Sequence[Change],
    accept: Accept,
    tree: Tree,
    outcome: Outcome,
) -> Iterator[tuple[Shown, Step]]:
    """Changes that may be committed, with their contents in the pack, where no guest can write."""
    beside = surroundings(comparison, here)
    for shown in stand(comparison, here, changes):
        found = staged(comparison, shown, beside)
        if found is None:
            outcome.conflicts.append(stuck(shown, BEING_WRITTEN))
            continue
        shown, step = found
        if reason := _conflict(comparison, shown.change, tree):
            outcome.conflicts.append(stuck(shown, reason))
        elif shown.dangers and not accept(shown):
            outcome.refused.append(shown)
        else:
            yield shown, step


def _identity() -> str:
    """Who commits, as the user's own configuration of git says."""
    user = find_user(System(), System().which("git"))
    name, email = user.git_name or user.name, user.git_email or f"{user.name}@localhost"
    return " ".join(f"{name} <{email}>".replace("\n", " ").split())


# What the user's repository says, read as plain files


def _head(here: int) -> str:
    """The commit that is checked out."""
    _name, commit = refs.head(here)
    if not commit:
        raise ReviewError(
            "the repository has no commit yet, or keeps its branches in a way that is not known.",
            hint="Apply the changes to your folder: corral apply NAME",
        )
    return commit


def _check_branch(branch: str) -> None:
    if not _BRANCH.fullmatch(branch) or branch.endswith("/"):
        raise ReviewError(
            f"{branch!a} is not a name for a branch.",
            hint="Letters, digits, . _ - and / are possible.",
        )


def _check_free(here: int, branch: str) -> None:
    if refs.is_taken(here, branch):
        raise ReviewError(
            f"there is a branch {branch} already, or one that is in its way.",
            hint="Take another name.",
        )


# Git, in a repository of ours


class _Git:
    """A bare repository and how git is run in it."""

    def __init__(self, program: str, folder: Path) -> None:
        self.folder = folder
        self._program = program
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "GIT_DIR": str(folder / "git"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "LC_ALL": "C",
        }

    def run(self, *arguments: str, given: bytes | Path = b"") -> bytes:
        """Its output. Raises ReviewError."""
        argv = [self._program, "-c", "core.hooksPath=/dev/null", *arguments]
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(given.open("rb")) if isinstance(given, Path) else None
            try:
                done = subprocess.run(
                    argv,
                    cwd=self.folder,
                    env=self._environment,
                    stdin=source,
                    input=None if isinstance(given, Path) else given,
                    capture_output=True,
                    timeout=_TIMEOUT,
                )
            except subprocess.TimeoutExpired as error:
                raise ReviewError(f"git {arguments[0]} took too long.") from error
        if done.returncode != 0:
            raise ReviewError(
                f"git {arguments[0]} failed.",
                hint="Apply the changes to your folder: corral apply NAME",
                detail=ascii(done.stderr.decode(errors="replace")[-500:]),
            )
        return done.stdout


@contextlib.contextmanager
def _private(workspace: Path, head: str) -> Iterator[_Git]:
    program = System().which("git")
    if program is None or Path(program).resolve().is_relative_to(workspace):
        raise ReviewError("git is not installed.", hint="corral apply NAME needs none.")
    with tempfile.TemporaryDirectory(prefix="corral-git-") as folder:
        git = _Git(program, Path(folder))
        kind = "sha1" if len(head) == 40 else "sha256"
        git.run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}")
        borrowed = os.fsencode(workspace / ".git" / "objects")
        info = git.folder / "git" / "objects" / "info"
        info.mkdir(exist_ok=True)
        (info / "alternates").write_bytes(quoted(os.fsdecode(borrowed)) + b"\n")
        yield git


def _tree(git: _Git, head: str) -> Tree:
    """Every path of a commit."""
    found = {}
    for line in git.run("ls-tree", "-r", "-z", "--full-tree", head).split(b"\0"):
        about, _, path = line.partition(b"\t")
        if path:
            mode, _kind, number = about.split(b" ")
            found[path] = (mode, number)
    return found


def _conflict(comparison: Comparison, change: Change, tree: Tree) -> str:
    """Why a change does not fit onto what a commit has at its path, or ""."""
    if change.problem or is_git(change.path):
        return change.problem or "git keeps no such name"
    if change.new is not None and change.new.size > _MOST:
        return "it is too large"
    known = tree.get(os.fsencode(change.path))
    if change.old is None:
        return "" if known is None else "your last commit has another one"
    if known is None:
        return "your last commit does not have it"
    content = comparison.old_content(change.path, change.old, _MOST)
    if content is None:
        return "it is too large"
    mode, number = known
    kind = hashlib.sha1 if len(number) == 40 else hashlib.sha256
    ours = kind(b"blob %d\0" % len(content) + content).hexdigest().encode()  # git's own name
    if mode != change.old.git_mode.encode() or number != ours:
        return "your last commit has it otherwise"
    return ""


def _fitting(asked: Iterable[tuple[Shown, Step]], tree: Tree, outcome: Outcome) -> Iterator[Step]:
    """Steps but those of files that would push out what a commit keeps above or below them.

    Whether it keeps that is known when all have been asked for: removing it may have been refused.
    """
    todo = list(asked)
    kept = tree.keys() - {step.path for _shown, step in todo if step.after is None}
    folders = {above for path in kept for above in _above(path)}
    for shown, step in todo:
        if step.after is not None and step.path in folders:
            outcome.conflicts.append(stuck(shown, "your last commit has others below it"))
        elif step.after is not None and not kept.isdisjoint(_above(step.path)):
            outcome.conflicts.append(stuck(shown, "your last commit has no folder above it"))
        else:
            outcome.applied.append(shown)
            yield step


def _above(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _import(git: _Git, pack: Pack, steps: Sequence[Step], head: str, words: tuple[str, str]) -> str:
    """Make the commit; its id. words: message and committer."""
    text, who = (word.encode("utf-8", "surrogateescape") for word in words)
    who += b" %d +0000" % time.time()
    stream = git.folder / "stream"
    with stream.open("wb") as file:
        file.write(b"commit refs/heads/made\ncommitter " + who + b"\n")
        file.write(b"data %d\n%s\nfrom %s\n" % (len(text), text, head.encode()))
        for step in sorted(steps, key=lambda each: each.after is not None):
            name = quoted(os.fsdecode(step.path))
            before, after = step.before, step.after
            if after is None or (before is not None and before.kind != after.kind):
                file.write(b"D " + name + b"\n")
            if after is not None:
                link = after.kind == "link"
                content = after.link if link else pack.read(after.offset, after.size)
                mode = after.side.git_mode.encode()
                file.write(b"M %s inline %s\ndata %d\n" % (mode, name, len(content)))
                file.write(content)
                file.write(b"\n")
        file.write(b"done\n")
    git.run("fast-import", "--quiet", "--done", given=stream)
    made = git.run("rev-parse", "--verify", "refs/heads/made").decode().strip()
    if not refs.ID.fullmatch(made):
        raise ReviewError("git made no commit.")
    return made


def _hand_over(git: _Git, here: int, made: str, head: str) -> None:
    """Put the new objects into the user's repository, as a pack; its index last, as git does."""
    wanted = f"{made}\n^{head}\n".encode()
    target = git.folder / "pack"
    number = git.run("pack-objects", "--revs", "--quiet", str(target), given=wanted)
    name = number.decode().strip()
    with entered(here, ".git/objects/pack") as folder:
        for suffix in (".pack", ".idx"):
            content = Path(f"{target}-{name}{suffix}").read_bytes()
            _put(folder, f"pack-{name}{suffix}", content, 0o444)


def _write_branch(here: int, branch: str, made: str) -> None:
    *above, name = branch.split("/")
    path = ".git/refs/heads"
    for part in above:
        with entered(here, path) as folder, contextlib.suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
        path += f"/{part}"
    with entered(here, path) as folder:
        _put(folder, name, f"{made}\n".encode(), 0o644)


def _put(folder: int, name: str, content: bytes, mode: int) -> None:
    """Make a new file, whole or not at all; one of the same name stays. Raises ReviewError."""
    beside = f".{name}.corral"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=folder)
    fd = os.open(beside, flags, mode, dir_fd=folder)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(beside, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError as error:
        if not name.startswith("pack-"):  # a pack's name is its content
            raise ReviewError(f"the branch {name} was made meanwhile.") from error
    finally:
        os.unlink(beside, dir_fd=folder)
    os.fsync(folder)
