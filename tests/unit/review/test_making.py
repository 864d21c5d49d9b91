"""A snapshot that was made from an earlier one, or from another agent's, is as a new one is."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from corral.host.copies import remove_tree
from corral.proc.crash import VARIABLE
from corral.review import making, origin
from corral.review.origin import ORIGIN, is_local
from corral.review.snapshot import PACK, WORK, snapshot
from corral.review.store import Review
from tests.unit.review.conftest import Case
from tests.unit.review.trees import build, replace

NAMES = ("a", "d/b", "d/e/c", "d/twin", "l", "x", "secret", "shut/s")


def hidden(path: str, _folder: bool) -> bool:
    return path.rpartition("/")[2] == "secret"


def start(root: Path) -> Path:
    """A folder with something of every kind."""
    here = build(
        root / "here",
        {
            "a": b"one\n",
            "d/b": b"two\n",
            "d/e/c": b"c" * 100_000,
            "l": "a",
            "run": (b"#!/bin/sh\n",),
            "secret": b"key\n",
            "shut/s": b"s\n",
            ".git/HEAD": b"ref: refs/heads/main\n",
            ".git/refs/heads/main": b"0" * 40 + b"\n",
        },
    )
    os.link(here / "d/b", here / "d/twin")
    with open(here / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(300_000)
        file.write(b"data")
    (here / "empty").mkdir()
    return here


def tick(root: Path) -> None:
    """Wait until the clock that files are stamped by has gone on."""
    probe = root / "probe"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        probe.chmod(0o600)


# What may be done to a folder, by name. Each is given the folder, a path, and another.


def _write(data: bytes) -> Callable[[Path, str, str], object]:
    def act(root: Path, path: str, _other: str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    return act


def _behind(root: Path, path: str, _other: str) -> None:
    """Another content, with the size and the times as they were."""
    file = root / path
    status = file.lstat()
    if stat.S_ISREG(status.st_mode):
        with open(file, "r+b") as opened:
            opened.write(b"?")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove(root: Path, path: str, _other: str) -> None:
    file = root / path
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink()


def _becomes_folder(root: Path, path: str, other: str) -> None:
    _remove(root, path, other)
    (root / path).mkdir()
    (root / path / "inside").write_bytes(b"inside")


def _becomes_link(root: Path, path: str, other: str) -> None:
    _remove(root, path, other)
    # Other acts write through it: it may lead to nothing of this machine's.
    (root / path).symlink_to(root.parent / "elsewhere")


def _becomes_pipe(root: Path, path: str, other: str) -> None:
    _remove(root, path, other)
    os.mkfifo(root / path)


def _replaced(root: Path, path: str, _other: str) -> None:
    """By a file with the same content, size and time: what editors do."""
    status = (root / path).stat()
    (root / "beside").write_bytes((root / path).read_bytes())
    os.utime(root / "beside", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / "beside").replace(root / path)


def _attribute(root: Path, path: str, _other: str) -> None:
    os.setxattr(root / path, "user.corral-test", b"x")


ACTS: dict[str, Callable[[Path, str, str], object]] = {
    "same content": lambda r, p, _o: (r / p).write_bytes((r / p).read_bytes()),
    "longer": _write(b"quite another content\n"),
    "behind": _behind,
    "executable": lambda r, p, _o: (r / p).chmod(0o755),
    "private": lambda r, p, _o: (r / p).chmod(0o600),
    "unreadable": lambda r, p, _o: (r / p).chmod(0),
    "time": lambda r, p, _o: os.utime(r / p, (5, 5)),
    "remove": _remove,
    "remove its folder": lambda r, p, o: _remove(r, p.split("/")[0], o),
    "folder": _becomes_folder,
    "link": _becomes_link,
    "pipe": _becomes_pipe,
    "replaced": _replaced,
    "rename": lambda r, p, o: (r / p).rename(r / o),
    "rename folder": lambda r, _p, _o: (r / "d").rename(r / "moved"),
    "hard link": lambda r, p, o: os.link(r / p, r / o, follow_symlinks=False),
    "attribute": _attribute,
    "folder attribute": lambda r, p, o: _attribute(r, p.rpartition("/")[0] or ".", o),
    "folder mode": lambda r, p, _o: (r / p).parent.chmod(0o711),
    "shut": lambda r, _p, _o: (r / "shut").chmod(0),
    "unmask": lambda r, _p, o: (r / "secret").rename(r / o),
    "empty folder": lambda r, _p, _o: (r / "new").mkdir(),
}
_NONE = ("", "")
steps = st.lists(
    st.tuples(
        st.sampled_from(["here", "work"]),
        st.sampled_from(sorted(ACTS)),
        st.sampled_from(NAMES),
        st.sampled_from([*NAMES, "new-name", "d/secret"]),
    ),
    max_size=5,
)


def carry_out(root: Path, act: str, path: str, other: str) -> None:
    with suppress(OSError, shutil.Error):  # it needs a file there, or a file system that can
        if act in ("same content", "longer", "replaced") and (root / path).is_fifo():
            return  # who opens a pipe waits for its other end
        ACTS[act](root, path, other)


def seen(folder: Path) -> dict[str, object]:
    """All of a snapshot that is not by its very making another one each time."""
    work = folder / WORK
    found: dict[str, object] = {}
    groups: dict[int, list[str]] = {}
    with snapshot(folder) as (base, pack):
        for path, was in sorted(base.names.items()):
            file = work / path
            status = file.lstat()
            assert was.work[0] == status.st_ino and was.work[3] == status.st_ctime_ns, path
            content = pack.read(was.offset, was.size) if was.kind == "file" else b""
            known = was.kind == "file" and not was.hidden
            own = b""
            if known and os.access(file, os.R_OK):
                own = file.read_bytes()
                assert own == content, path
            attributes = [] if was.kind == "link" else os.listxattr(file)
            if was.kind == "file":
                groups.setdefault(status.st_ino, []).append(path)
            found[path] = (
                was.kind,
                was.mode,
                was.size,
                was.link,
                was.here if known else None,
                was.hidden,
                stat.S_IMODE(status.st_mode),
                0 if was.hidden or path.startswith(".git") else status.st_mtime_ns,
                (status.st_uid, status.st_gid),
                content if known else b"",
                own,
                [name for name in attributes if name.startswith("user.")],
                status.st_blocks <= 1 << 9 if path == "sparse" else None,
            )
        left = sorted(base.left)
        on_disk = {str(file.relative_to(work)) for file in work.rglob("*")}
        assert on_disk <= set(base.names)
    return {
        "names": found,
        "left": left,
        "groups": sorted(sorted(paths) for paths in groups.values()),
        "entries": sorted(entry.name for entry in folder.iterdir()),
        "root": (work.stat().st_mode, work.stat().st_mtime_ns),
    }


def open_up(root: Path) -> None:
    """Let a folder be removed again."""
    if (root / "here" / "shut").is_dir():
        (root / "here" / "shut").chmod(0o700)


@pytest.mark.parametrize("settled", [True, False])
@given(done=steps, branches=st.sampled_from([("", ""), ("corral/x/1", "other"), ("one", "one")]))
@example(done=[("here", "behind", "a", "x")], branches=_NONE)
@example(done=[("here", "behind", "d/b", "x")], branches=_NONE)
@example(done=[("work", "behind", "d/twin", "x"), ("here", "hard link", "a", "x")], branches=_NONE)
@example(done=[("work", "folder attribute", "d/b", "x")], branches=_NONE)
@example(done=[("here", "pipe", "a", "x"), ("here", "replaced", "a", "x")], branches=_NONE)
@example(done=[("here", "unmask", "a", "x"), ("work", "folder", "secret", "x")], branches=_NONE)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_was_changed_a_renewed_one_is_as_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
    settled: bool,
    done: list[tuple[str, str, str, str]],
    branches: tuple[str, str],
) -> None:
    monkeypatch.setattr(origin, "SETTLED", -1e9 if settled else 1e9)
    monkeypatch.setattr(origin, "_LOCAL", frozenset(_kinds()))
    with tempfile.TemporaryDirectory(prefix="corral-making-") as name:
        root = Path(name)
        here = start(root)
        old, new = root / "old", root / "new"
        old.mkdir()
        new.mkdir()
        making.make_all(str(here), old, hidden, {1: branches[0], 2: branches[0]})
        tick(root)
        for where, act, path, other in done:
            carry_out(here if where == "here" else old / "1" / WORK, act, path, other)
        tick(root)
        left, _ = making.make_all(str(here), old, hidden, {1: branches[1], 3: branches[1]})
        fresh, _ = making.make_all(str(here), new, hidden, {1: branches[1]})
        expected = seen(new / "1")
        assert sorted(left) == sorted(fresh)
        assert seen(old / "1") == expected, "renewed"
        assert seen(old / "3") == expected, "from another agent's"
        open_up(root)
        for each in (old, new):
            remove_tree(each)


def _kinds() -> set[str]:
    """Every kind of file system that there is here: tmpfs, too, as nothing is mapped by this."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.partition(" - ")[2].split(" ")[0] for line in lines}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "SETTLED", -1e9)
    monkeypatch.setattr(origin, "_LOCAL", frozenset(_kinds()))


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """With the time of their status, as a number is used again."""
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_ctime_ns)
        for file in folder.rglob("*")
        if file.is_file() and not file.is_symlink()
    }


def begin(case: Case, *agents: int, **options: str) -> None:
    names = {number: "" for number in agents or (1,)}
    with case.review.begin(options.get("where", str(case.here)), None, names):
        pass


@pytest.mark.usefixtures("settled")
def test_only_what_changed_is_copied_again(case: Case) -> None:
    build(case.here, {"a": b"1", "b": b"2", "d/c": b"3"})
    begin(case, 1, 2)
    before = {number: inodes(case.review.folder / str(number) / WORK) for number in (1, 2)}
    tick(case.here.parent)
    (case.here / "b").write_bytes(b"x")
    begin(case, 1, 2)
    for number in (1, 2):
        work = case.review.folder / str(number) / WORK
        now = inodes(work)
        assert {path for path in now if now[path] == before[number][path]} == {"a", "d/c"}
        assert (work / "b").read_bytes() == b"x"
    assert [
        entry.name for entry in case.review.folder.parent.iterdir() if "gone" in entry.name
    ] == []


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("why", ["booted", "replaced", "damaged", "network", "waste", "pack"])
def test_where_it_cannot_be_told_all_is_copied(
    case: Case, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    build(case.here, {"a": b"1" * 100, "b": b"2"})
    begin(case)
    before = set(inodes(case.work).values())
    kept = (case.work / "a").open()  # so that its inode is not used again
    other = (case.work / "b").open()
    folder = case.review.folder / "1"
    if why == "booted":
        monkeypatch.setattr(origin, "_boot", lambda: "another")
    elif why == "replaced":
        case.here.rename(case.here.with_name("away"))
        shutil.copytree(case.here.with_name("away"), case.here)
    elif why == "damaged":
        (folder / ORIGIN).write_bytes(b"?")
    elif why == "network":
        monkeypatch.setattr(origin, "_LOCAL", frozenset())
    elif why == "waste":
        monkeypatch.setattr(origin, "_SPARE", -1000)
    else:
        os.truncate(folder / PACK, 0)
        (case.work / "b").touch()
    with kept, other:
        if why == "pack":
            making.make_all(str(case.here), case.review.folder, None, {1: ""})
        else:
            begin(case)
        assert before.isdisjoint(inodes(case.work).values())
    assert case.changed() == []
    assert (case.work / "a").read_bytes() == b"1" * 100


@pytest.mark.usefixtures("settled")
def test_another_folder_is_copied(case: Case) -> None:
    build(case.here, {"a": b"1"})
    begin(case)
    other = build(case.here.with_name("other"), {"b": b"2"})
    begin(case, where=str(other))
    assert [file.name for file in case.work.iterdir()] == ["b"]


@pytest.mark.usefixtures("settled")
def test_what_was_applied_and_thrown_away_is_as_the_folder_is(case: Case) -> None:
    """What an agent wrote has its own times and modes; a next one has the user's."""
    case.begin({"a": b"1", "b": b"2", "c": b"3"})
    case.agent_makes({"a": b"agent", "b": b"2", "c": b"agent"})
    (case.work / "b").chmod(0o600)
    (case.work / "a").chmod(0o640)
    case.apply("a")
    case.review.discard(["c"])
    assert case.changed() == []
    begin(case)
    for name in "abc":
        one, other = (case.here / name).stat(), (case.work / name).stat()
        assert (one.st_mode, one.st_mtime_ns) == (other.st_mode, other.st_mtime_ns)
    with pytest.raises(Exception, match="nothing was applied"):
        case.review.undo()


def test_agents_share_what_they_were_made_of_and_none_cuts_it_for_another(case: Case) -> None:
    build(case.here, {f"f{n}": bytes([65 + n]) * 50 for n in range(8)})
    begin(case, 1, 2)
    packs = [case.review.folder / str(number) / PACK for number in (1, 2)]
    assert packs[0].samefile(packs[1])
    for number in (1, 2):
        replace(case.review.folder / str(number) / WORK, {"f0": b"A" * 50, "new": b"%d" % number})
    for number in (1, 2):
        paths = [f"f{n}" for n in range(number * 3 - 2, number * 3 + 1)]
        case.review.apply(paths, lambda _one: True, number)
        case.review.apply(["new"], lambda _one: False, number)
    case.review.undo(2)
    case.review.discard(["f7"], 1)
    assert (case.review.folder / "1" / WORK / "f7").read_bytes() == b"H" * 50
    with case.review.comparison(2) as (comparison, _here):
        for change in comparison.changes():
            if change.old is not None:
                content = comparison.old_content(change.path, change.old)
                assert content == bytes([65 + int(change.path[1:])]) * 50


@pytest.mark.parametrize("point", ["snapshot-retired", "snapshot-made", "snapshot-placed"])
@pytest.mark.parametrize("pending", [True, False])
def test_killed_while_one_is_renewed(case: Case, point: str, pending: bool) -> None:
    build(case.here, {"a": b"1", "b": b"2"})
    begin(case, 1, 2)
    if pending:
        replace(case.review.folder / "2" / WORK, {"a": b"mine", "b": b"2"})
    (case.here / "b").write_bytes(b"new")
    code = (
        "import sys; from corral.review.store import Review\n"
        "with Review('demo').begin(sys.argv[1], None, {1: '', 2: ''}): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(case.here)], env={**os.environ, VARIABLE: point}
    )
    assert done.returncode == -9
    assert case.review.exists() == pending
    if pending:
        assert [one.change.path for one in case.review.changes(agent=2)] == ["a"]
        assert case.review.meta().agents == (2,)
    begin(case, 1, 2)
    assert (case.work / "b").read_bytes() == b"new"
    assert [one.change.path for one in Review("demo").changes(agent=2)] == ["a"] * pending
    left = [entry.name for entry in case.review.folder.parent.iterdir()]
    assert not [name for name in left if name.startswith((".gone", ".demo.new"))]


MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/a rw
2 1 0:2 / /net rw shared:1 - nfs4 server:/x rw
3 2 8:2 / /net/in\\040side rw - xfs /dev/b rw
4 1 0:3 / /tmp rw - tmpfs tmpfs rw
5 1 0:4 / /twice rw - ext4 /dev/c rw
6 1 0:5 / /twice rw - fuse.sshfs x rw
"""


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/home/me", True),
        ("/net", False),
        ("/net/x", False),
        ("/network", True),
        ("/net/in side/x", True),
        ("/tmp/x", False),
        ("/twice", False),
    ],
)
def test_times_are_relied_on_where_this_kernel_makes_them(path: str, local: bool) -> None:
    assert is_local(path, MOUNTS) is local
