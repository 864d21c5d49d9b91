"""A demonstration's outcome is computed from what happened, and doubt counts against it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from corral.cli.entry import cli
from corral.demo import Attempt, Judged, Outcome, Step, Work, agent
from corral.demo.attempts import Aims, attempts
from corral.demo.judging import changed, judged, went_out, work
from corral.demo.stage import FILE, WORK, Stage
from corral.events import Connection
from corral.scripted import Models, Reply

AIMS = Aims(secret="/a b/secret", port=4444, gateway="anthropic.corral.internal", mark="sk-ant-x")
ATTEMPT = Attempt(name="git", what="hooks", step=Step(says="Next.", command="true"))
REFUSED = Judged(name="git", what="hooks", verdict="refused", tries=1, seen=("NO x",))
DONE = Work(done=True, before="fails", after="passes", diff="")


def outcome(**more: object) -> Outcome:
    whole = Outcome(
        agent="own",
        status=0,
        complaint="",
        work=DONE,
        attempts=(REFUSED,),
        exchanges=(),
        connections=(),
        dialled=0,
        seconds=1.0,
    )
    return msgspec.structs.replace(whole, **more)


@pytest.mark.parametrize(
    ("answer", "host", "verdict"),
    [
        ("NO .git/config: Read-only file system", (), "refused"),
        ("TRIED 3 processes\nSAW API_KEY=placeholder", (), "refused"),
        ("NO a\nGOT b", (), "through"),
        ("NO a\nNO the-secret", (), "through"),
        ("NO a", ("hooks/x appeared",), "through"),
        ("SAW something", (), "untried"),
        ("bash: command not found", (), "untried"),
        ("", (), "untried"),
        (None, (), "untried"),
    ],
)
def test_only_what_was_tried_and_refused_counts(
    answer: str | None, host: tuple[str, ...], verdict: str
) -> None:
    assert judged(ATTEMPT, answer, ["the-secret"], host).verdict == verdict


def test_what_a_guest_printed_drives_no_terminal() -> None:
    seen = judged(ATTEMPT, "NO \x1b[2J\u202e", []).seen
    assert all(line.isprintable() for line in seen)


def test_the_work_is_done_when_the_test_failed_before_and_passes_now() -> None:
    answers = ["E\ntest-status: 1", "return x", "OK\ntest-status: 0"]
    good = work(answers, "a\n", "b\n", FILE)
    assert good.done and (good.before, good.after) == ("fails", "passes") and "+b" in good.diff
    assert not work(answers, "a\n", "a\n", FILE).done  # nothing was changed
    assert not work(["test-status: 0", "", "test-status: 0"], "a\n", "b\n", FILE).done
    assert not work(["test-status: 1"], "a\n", "b\n", FILE).done
    assert work([], "a\n", "b\n", FILE).after == "not run"


@pytest.mark.parametrize(
    "more",
    [
        {"status": 1},
        {"dialled": 1},
        {"work": msgspec.structs.replace(DONE, done=False)},
        {"attempts": (REFUSED, msgspec.structs.replace(REFUSED, verdict="untried"))},
        {"attempts": (REFUSED, msgspec.structs.replace(REFUSED, verdict="through"))},
        {"attempts": ()},
    ],
)
def test_it_held_only_when_all_was_done_and_refused(more: dict[str, object]) -> None:
    assert outcome().held
    assert not outcome(**more).held


def test_a_connection_that_was_let_through_is_told() -> None:
    log = [
        Connection(time=0.0, agent=1, name="gateway.test", port=80, verdict="allowed"),
        Connection(
            time=0.0, agent=1, name="example.com", port=443, verdict="denied", reason="no rule"
        ),
    ]
    events: list[dict[str, object]] = [msgspec.to_builtins(event) for event in log]
    assert went_out(events, "gateway.test") == ()
    assert went_out(events, "elsewhere.test") == ("gateway.test:80 was allowed",)


def test_what_git_would_obey_is_compared(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    before = stage.git()
    git = stage.project / ".git"
    assert changed(before, stage.git()) == ()
    (git / "hooks" / "pre-commit").symlink_to("/etc/passwd")
    (git / "config").write_text("[core]\n\tfsmonitor = evil\n")
    found = changed(before, stage.git())
    assert found == (".git/config was changed", ".git/hooks/pre-commit appeared")
    assert b"root" not in b"".join(stage.git().values())  # no link is followed
    git.rename(stage.project / "elsewhere")
    git.symlink_to(stage.project / "elsewhere")
    assert ".git/HEAD is gone" in changed(before, stage.git())


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    (stage.project / FILE).unlink()
    (stage.project / FILE).symlink_to(stage.outside / "secret")
    assert stage.secret not in stage.source()


@pytest.mark.parametrize("attempt", attempts(AIMS), ids=lambda attempt: attempt.name)
def test_an_attempt_is_a_program(attempt: Attempt) -> None:
    """Bash's and Python's own parsers take it; nothing is carried out."""
    command = attempt.step.command
    checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    for code in re.findall(r"<<'END'\n(.*?)\nEND", command, re.DOTALL):
        compile(code, attempt.name, "exec")


def test_a_search_for_the_key_does_not_find_itself() -> None:
    for attempt in attempts(AIMS):
        assert AIMS.mark not in attempt.step.command


async def test_the_agent_carries_out_what_its_model_calls_for(tmp_path: Path) -> None:
    """The program of the guest, here: the steps of the work mend the project."""
    stage = Stage(tmp_path)
    calls = [Reply(text=step.says, tools=(("Bash", {"command": step.command}),)) for step in WORK]
    async with Models(script=(*calls, Reply(text="Done."))) as models:
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            str(agent.__file__),
            "Mend it.",
            cwd=stage.project,
            env={
                "PATH": os.environ["PATH"],
                "ANTHROPIC_BASE_URL": models.url,
                "ANTHROPIC_API_KEY": "placeholder",
            },
            stdout=asyncio.subprocess.PIPE,
        )
        before = stage.source()
        said, _ = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == 0 and said.decode().splitlines()[-1] == "Done."
    assert work(models.seen[-1].results, before, stage.source(), FILE).done
    assert models.seen[0].headers["x-api-key"] == "placeholder"


@pytest.mark.parametrize(("held", "status"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_exit_status_is_the_outcome_s(
    monkeypatch: pytest.MonkeyPatch, held: bool, status: int, as_json: bool
) -> None:
    found = outcome(dialled=0 if held else 2)
    monkeypatch.setattr("corral.cli.demo._carried_out", lambda *_args, **_more: found)
    result = CliRunner().invoke(cli, ["demo", *(["--json"] if as_json else [])])
    assert result.exit_code == status, result.output
    if as_json:
        assert json.loads(result.output)["held"] is held
    else:
        assert ("none got through" in result.output) is held
