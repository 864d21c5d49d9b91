"""What corral prints is a diff that a person's own git takes: tried on trees of every kind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.review.compare import Comparison
from corral.review.lines import Budget, differing
from corral.review.making import make
from corral.review.model import Change, Side
from corral.review.patch import Contents, Pair, lines_of, patch, quoted
from corral.review.showing import chosen, patches
from corral.review.snapshot import snapshot
from corral.review.tree import opened
from tests.unit.review.trees import Tree, build, read, replace

CLEAN = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}


def diff_of(folder: Path, old: Tree, new: Tree) -> bytes:
    """The diff of a snapshot of `old` that has become `new`."""
    build(folder / "here", old)
    make(str(folder / "here"), folder / "1", None)
    replace(folder / "1" / "work", new)
    with snapshot(folder / "1") as (base, pack), opened(folder / "1" / "work") as work:
        comparison = Comparison(base, pack, work)
        changes = chosen(comparison.changes(), [])
        return b"".join(
            line for _pair, lines in patches(comparison, changes, binary=True) for line in lines
        )


def applied(folder: Path, old: Tree, text: bytes, *options: str) -> dict[str, object]:
    """What git makes of `old` by the patch."""
    target = folder / "git"
    build(target, old)
    if text:
        subprocess.run(
            ["git", "apply", "--whitespace=nowarn", *options, "-"],
            cwd=target,
            env=CLEAN,
            input=text,
            check=True,
            capture_output=True,
        )
    return dict(read(target))


LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n", b"\n", b"x y\r\n", b"\x1b[31m\n"]))
TEXT = st.builds(
    lambda lines, end: b"".join(lines) + end, LINES, st.sampled_from([b"", b"no newline"])
)
CONTENT = st.one_of(TEXT, st.binary(max_size=300), st.just(b"\0\xff" * 100))
# None is a name of NAME: over a link that leads to itself git cannot apply its own diff.
LINKS = ["t", "../out", "/etc/x", "d é"]
WHAT = st.one_of(CONTENT, st.tuples(CONTENT), st.sampled_from(LINKS))
NAME = st.sampled_from(
    ["a", "b", "c d", "e\tf", 'g"h', "\\i", "é", "new\nline", "-x", "z" * 60, "\x1b[2J", "x "]
)
PATH = st.lists(NAME, min_size=1, max_size=3).map("/".join)


def consistent(tree: dict[str, object]) -> bool:
    return not any(
        path != other and other.startswith(path + "/") for path in tree for other in tree
    )


TREE = st.dictionaries(PATH, WHAT, max_size=6).filter(consistent)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=TREE, new=TREE, kept=st.booleans())
def test_git_makes_the_new_tree_of_the_old_one(
    tmp_path_factory: object, old: dict[str, object], new: dict[str, object], kept: bool
) -> None:
    folder = tmp_path_factory.mktemp("trees")  # type: ignore[attr-defined]
    if kept:  # much as it was, a little changed
        merged = {**old, **dict(list(new.items())[:2])}
        new = merged if consistent(merged) else new
    text = diff_of(folder, old, new)  # type: ignore[arg-type]
    assert applied(folder, old, text) == new  # type: ignore[arg-type]
    shutil.rmtree(folder)


@settings(max_examples=300)
@given(old=TEXT, new=TEXT)
def test_the_blocks_that_differ_make_one_text_of_the_other(old: bytes, new: bytes) -> None:
    a, b = lines_of(old), lines_of(new)
    assert b"".join(a) == old
    blocks = differing(a, b, Budget())
    made, place = [], 0
    for i1, i2, j1, j2 in blocks:
        made += a[place:i1] + b[j1:j2]
        place = i2
    assert made + a[place:] == b


def test_a_small_change_in_a_long_file_is_a_small_diff() -> None:
    old = [b"%d\n" % n for n in range(20_000)]
    new = [*old[:5000], b"new\n", *old[5000:9000], *old[9001:]]
    assert differing(old, new, Budget()) == [(5000, 5000, 5000, 5001), (9000, 9001, 9001, 9001)]
    same = [b"x\n"] * 5000
    assert differing(same, [*same, b"y\n"], Budget()) == [(5000, 5000, 5000, 5001)]
    assert differing([b"a\n", b"b\n"] * 50, [b"b\n", b"a\n"] * 50, Budget()) == [
        (0, 1, 0, 0), (100, 100, 99, 100)
    ]  # fmt: skip


def test_texts_made_to_take_long_take_no_longer_than_the_budget() -> None:
    """Without bounds each of these takes minutes."""
    import random

    draw = random.Random(1)
    old, new = ([b"%d\n" % draw.randrange(3) for _ in range(20_000)] for _ in range(2))
    budget = Budget(200_000)
    blocks = differing(old, new, budget)
    assert blocks and budget.left > -200_000
    shuffled = [b"%d\n" % n for n in range(50_000)]
    draw.shuffle(shuffled)
    assert differing(sorted(shuffled), shuffled, Budget(200_000))


def test_names_cannot_drive_a_terminal_nor_forge_a_line() -> None:
    assert quoted("a\x1b]0;x\nb\u202e", "a/") == b'"a/a\\033]0;x\\nb\\342\\200\\256"'
    assert quoted("plain name") == b"plain name"
    assert quoted("\udcff") == b'"\\377"'


def test_what_is_too_large_to_show_is_said_to_differ() -> None:
    change = Change(path="big", old=None, new=Side(kind="file", size=1 << 40))
    lines = b"".join(patch(Pair(change), Contents(b"", None), Budget(), binary=True))
    assert lines.endswith(b"Binary files /dev/null and b/big differ\n")


def test_a_file_with_another_name_is_a_rename(tmp_path: Path) -> None:
    old: Tree = {"a": b"one\n", "b": b"two\n", "empty": b""}
    new: Tree = {"d/a2": b"one\n", "b": b"two\n", "empty2": b""}
    text = diff_of(tmp_path, old, new)
    assert b"similarity index 100%\nrename from a\nrename to d/a2\n" in text
    assert applied(tmp_path, old, text) == new


def test_a_file_and_a_folder_that_change_places_are_no_renames(tmp_path: Path) -> None:
    old: Tree = {"a": b"one\n", "b": b"two\n"}
    new: Tree = {"a/x": b"two\n", "b/x": b"one\n"}
    assert applied(tmp_path, old, diff_of(tmp_path, old, new)) == new


def test_a_users_configuration_of_git_does_not_matter(tmp_path: Path) -> None:
    old: Tree = {"a\t": b"one\n\n\n"}
    new: Tree = {"a\t": (b"two \n\n\n",), "é": b"\0"}
    text = diff_of(tmp_path, old, new)
    for number, option in enumerate(("--3way", "--index")):
        root = tmp_path / f"repository-{number}"
        build(root, old)
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
            identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
            subprocess.run(["git", *identity, *command], cwd=root, env=CLEAN, check=True)
        subprocess.run(["git", "apply", option], cwd=root, env=CLEAN, input=text, check=True)
        assert read(root) == new
