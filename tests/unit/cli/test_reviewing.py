"""`corral diff`, `apply` and `discard`, as a person and as a script meet them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.cli.diff import _for_a_person
from corral.cli.entry import NOBODY_READS
from corral.cli.reviewing import inside, safe
from corral.errors import UsageError
from corral.review.store import Review
from tests.conftest import Corral
from tests.support.corral import command
from tests.support.terminals import terminal


@pytest.fixture
def work(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The snapshot of a folder with some files, changed."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    (project / "src").mkdir()
    (project / "src" / "a").write_text("one\ntwo\n")
    (project / "b").write_text("b\n")
    with Review("app").begin(str(project), None) as begun:
        folder = Path(begun.works[1])
    (folder / "src" / "a").write_text("one\n\x1b[2Jthree\n")
    (folder / ".envrc").write_text("evil\n")
    yield folder


def test_paths_begin_where_one_stands(
    work: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = Review("app")
    monkeypatch.chdir("/")
    assert inside(review, ["src/a", ".", "./src/../b"]) == ["src/a", "", "b"]
    monkeypatch.chdir(project / "src")
    assert inside(review, ["a", "..", f"{project}/b"]) == ["src/a", "", "b"]
    for path in ("../..", "/etc", f"{project}-other"):
        with pytest.raises(UsageError):
            inside(review, [path])


def test_what_cannot_be_printed_is_shown_as_text() -> None:
    assert safe(b"a\tb\x1b[0m\x7f\r") == "a\tb^[[0m^?^M"
    assert safe("é\u202e\u200b\x9b".encode() + b"\xff") == "é<U+202E><U+200B><U+009B><FF>"


def test_at_a_terminal_the_diff_is_coloured_and_harmless(work: Path, project: Path) -> None:
    with terminal(project, ["diff", "app"]) as person:
        person.expect(r"! dangerous: entering the folder")
        person.expect(r"\x1b\[31m-two")
        person.expect(r"\x1b\[32m\+\^\[\[2Jthree")
        assert person.wait() == 0


def test_a_line_of_a_file_is_not_coloured_as_what_heads_a_file() -> None:
    heads = (b"diff --git a/x b/x\n", b"--- a/x\n", b"+++ b/x\n", b"@@ -1 +1 @@\n")
    lines = list(_for_a_person([], iter((*heads, b"+++ b/safe\n"))))
    assert lines[2] == "\x1b[1m+++ b/x\x1b[0m\n"
    assert lines[4] == "\x1b[32m+++ b/safe\x1b[0m\n"


def test_at_a_terminal_each_dangerous_change_is_asked_for(work: Path, project: Path) -> None:
    with terminal(project, ["apply", "app"]) as person:
        person.expect(r"\.envrc: entering the folder.*Apply it\? \[y/N\]")
        person.type("n\n")
        person.expect("1 change applied")
        assert person.wait() == 1
    assert not (project / ".envrc").exists()
    with terminal(project, ["apply", "app"]) as person:
        person.expect("Apply it")
        person.type("y\n")
        assert person.wait() == 0
    assert (project / ".envrc").read_text() == "evil\n"


def test_throwing_away_needs_a_yes(work: Path, project: Path) -> None:
    with terminal(project, ["discard", "app", "src"]) as person:
        person.expect(r"Throw away 1 change of app\?")
        person.type("n\n")
        assert person.wait() == 130
    assert len(Review("app").changes()) == 2
    with terminal(project, ["discard", "app"]) as person:
        person.expect(r"Throw away 2 changes of app\?")
        person.type("y\n")
        assert person.wait() == 0
    assert not Review("app").exists()


def test_for_a_script(work: Path, corral: Corral) -> None:
    found = json.loads(corral("diff", "app", "--json").stdout)
    assert [(one["path"], one["status"], one["state"]) for one in found] == [
        (".envrc", "A", "clean"),
        ("src/a", "M", "clean"),
    ]
    assert found[0]["dangers"][0]["rule"] == "shells"
    done = corral("diff", "app")
    assert "+\x1b[2Jthree\n" in done.stdout, "a patch has contents as they are"
    assert done.stderr.startswith("corral: .envrc: dangerous")
    done = corral("diff", "app", "--stat")
    assert done.stdout.splitlines() == [
        " .envrc |     1 + !",
        " src/a  |     2 +-",
        " 2 files changed, 2 insertions(+), 1 deletions(-)",
    ]
    assert corral("apply", "app", "--undo", "src").returncode == 2
    assert corral("apply", "app", "--undo").returncode == 125
    assert corral("diff", "nothing").returncode == 125
    assert corral("diff", "app", "--agent", "2").returncode == 125


def test_the_sandboxes_with_changes(work: Path, corral: Corral) -> None:
    assert corral("diff").stdout == "app\n"
    assert json.loads(corral("diff", "--json").stdout) == [{"name": "app"}]
    assert corral("diff", "--stat").returncode == corral("diff", "--agent", "1").returncode == 2
    corral("discard", "app", "--yes")
    assert corral("diff").stdout == ""
    assert json.loads(corral("diff", "--json").stdout) == []


def test_a_reader_who_has_seen_enough_of_a_patch_is_no_error(work: Path) -> None:
    (work / "long").write_text("a line\n" * 200_000)
    argv = command("diff", "app")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as diff:
        assert diff.stdout is not None and diff.stderr is not None
        assert diff.stdout.readline().startswith(b"diff --git")
        diff.stdout.close()
        assert diff.stderr.read() == b""
        assert diff.wait(30) == NOBODY_READS


def test_a_patch_that_cannot_be_written_is_told_as_that(work: Path) -> None:
    (work / "long").write_text("a line\n" * 200_000)
    for paths in ([], ["b", ".envrc"]):
        with Path("/dev/full").open("wb") as full:
            argv = command("diff", "app", *paths)
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
        assert done.returncode == 125
        error = done.stderr.splitlines()[0]
        assert error == "corral: error: the patch cannot be written: No space left on device."


def test_while_a_sandbox_works_on_it_nothing_is_applied(
    work: Path, project: Path, corral: Corral
) -> None:
    with Review("app").begin(str(project), None):
        done = corral("apply", "app")
        assert done.returncode == 125 and "may change what you have looked at" in done.stderr
        assert corral("discard", "app", "-y").returncode == 125
        assert corral("diff", "app").returncode == 0
        done = corral("run", "--review", "--name", "app", "--", "true")
        assert done.returncode == 125 and "works on its snapshot" in done.stderr


def test_of_a_folder_that_is_gone_changes_can_be_thrown_away(
    work: Path, project: Path, corral: Corral
) -> None:
    subprocess.run(["rm", "-rf", str(project)], check=True)
    home = Path(os.sep)
    done = corral("diff", "app", cwd=home)
    assert done.returncode == 125 and "Traceback" not in done.stderr
    assert corral("discard", "app", "-y", cwd=home).returncode == 0


@pytest.fixture
def herd(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What two agents have made of a folder: both of `b`, one of a name that drives terminals."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    (project / "b").write_text("b\n")
    with Review("herd").begin(str(project), None, {1: "", 2: ""}) as begun:
        works = {number: Path(work) for number, work in begun.works.items()}
    (works[1] / "b").write_text("one\n")
    (works[2] / "b").write_text("two\n")
    (works[2] / "x\x1b[2J").write_text("x")
    return project


def test_of_several_the_diff_shows_who_changed_what(herd: Path, corral: Corral) -> None:
    done = corral("diff", "herd")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == ["agent 1: 1 change", "agent 2: 2 changes"]
    assert "  b  1:M 2:M  disagree" in lines
    assert '  "x\\033[2J"  2:A' in lines and "\x1b" not in done.stdout
    assert "they disagree on 1 path" in done.stdout
    found = json.loads(corral("diff", "herd", "b", "--json").stdout)
    assert [(one["path"], one["state"]) for one in found] == [("b", "disagree")]
    assert "+two" in corral("diff", "herd", "--agent", "2", "b").stdout
    assert corral("diff", "herd", "--agent", "3").returncode == 125


def test_of_several_what_one_made_is_applied_and_the_others_told(
    herd: Path, corral: Corral
) -> None:
    done = corral("apply", "herd")
    assert done.returncode == 2 and "--agent N" in done.stderr
    assert (herd / "b").read_text() == "b\n"
    done = corral("apply", "herd", "--agent", "1")
    assert done.returncode == 0 and (herd / "b").read_text() == "one\n"
    assert "disagreement: b: agent 2 left something else" in done.stderr
    done = corral("apply", "herd", "--agent", "2", "b")
    assert done.returncode == 1 and "conflict: b: it was changed here, too" in done.stderr
    assert (herd / "b").read_text() == "one\n"


def test_of_several_what_one_made_is_thrown_away(herd: Path, corral: Corral) -> None:
    assert corral("discard", "herd", "b", "-y").returncode == 2, "whose?"
    assert corral("discard", "herd", "--agent", "2", "b", "-y").stdout == "b\n"
    assert corral("discard", "herd", "--agent", "1", "-y").returncode == 0
    assert Review("herd").meta().agents == (2,)
    assert corral("discard", "herd", "-y").returncode == 0
    assert corral("diff").stdout == ""
