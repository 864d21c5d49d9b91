"""`corral task`: words become tasks, results become output and an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from corral.agents.output import Returned
from corral.cli import tasking
from corral.cli.task import command
from corral.cli.tasking import Asked, show, task_of
from corral.errors import CorralError, TaskError, UsageError
from corral.tasks.model import Changes, ExecuteCode, Named, Prompt, Result, Run, Usage

from .conftest import Typed


def asked(*words: str, **options: Any) -> Asked:
    given: dict[str, Any] = {
        "words": words,
        "environ": {"MINE": "x"},
        "agent": None,
        "number": None,
        "run": False,
        "language": None,
        "prompt": None,
        "recipe": None,
        "workdir": None,
        "env": (),
        "timeout": None,
        "detach": False,
        "events": False,
        "as_json": False,
    }
    return Asked(**{**given, **options})


def test_words_become_tasks(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("print('é')\n")
    assert task_of(asked("make", "-j2", run=True, timeout="1m30s")) == Run(
        argv=("make", "-j2"), timeout_ms=90_000
    )
    assert task_of(asked("ls", run=True, workdir="src", env=("A=b", "MINE"))) == Run(
        argv=("ls",), cwd="src", env={"A": "b", "MINE": "x"}
    )
    assert task_of(asked(str(code), language="python")) == ExecuteCode(
        language="python", code="print('é')\n"
    )
    assert task_of(asked(prompt="do it", recipe="claude")) == Prompt(prompt="do it", agent="claude")
    assert task_of(asked("test", "-k", "x")) == Named(action="test", args=("-k", "x"))
    assert task_of(asked(' {"action": "run", "argv": ["ls"]}')) == Run(argv=("ls",))


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        ((), {}, "there is no task"),
        (("x",), {"run": True, "prompt": "y"}, "exclude each other"),
        (("x",), {"prompt": "y"}, "no further words"),
        (("a", "b"), {"language": "sh"}, "one file"),
        (("/none",), {"language": "sh"}, "/none cannot be read"),
        (("/proc/self/exe",), {"language": "sh"}, "not UTF-8"),
        (("test",), {"recipe": "claude"}, "--recipe belongs to --prompt"),
        (("test",), {"workdir": "x"}, "--workdir and --env belong to"),
        (('{"action": "test"}', "x"), {}, "no further words"),
        (('{"type": "cancel", "id": "1"}',), {}, "a message, not a task"),
        (("{nonsense",), {}, "not JSON"),
        (("test",), {"timeout": "soon"}, "soon"),
        ((), {"run": True}, "argv"),
    ],
)
def test_words_that_are_no_task_are_told(
    words: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(CorralError) as caught:
        task_of(asked(*words, **options))
    assert said in caught.value.message
    assert isinstance(caught.value, UsageError | TaskError) or "soon" in said


@pytest.mark.parametrize(
    ("status", "exit_status", "expected"),
    [
        ("done", 0, 0),
        ("failed", 3, 3),
        ("failed", 137, 137),
        ("timeout", 143, 124),
        ("timeout", None, 124),
        ("cancelled", None, 130),
        ("error", None, 125),
        ("lost", None, 125),
        ("refused", None, 125),
    ],
)
def test_the_exit_status_tells_how_it_ended(
    status: Any, exit_status: int | None, expected: int
) -> None:
    found = Result(id="1", agent=1, action="run", status=status, exit_status=exit_status)
    assert show(found, as_json=True) == expected


def test_an_agent_that_says_itself_that_it_failed_is_no_success() -> None:
    found = Result(
        id="1",
        agent=1,
        action="prompt",
        status="failed",
        exit_status=0,
        events=(Returned(ok=False),),
    )
    assert show(found, as_json=True) == 1


def test_a_result_is_shown_with_what_became_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = Result(
        id="7",
        agent=1,
        action="run",
        status="failed",
        exit_status=2,
        stdout="out",
        stdout_bytes=100_000,
        stdout_truncated=True,
        stderr="err\n",
        usage=Usage(seconds=1.25, requests=2, usd=0.5),
        changes=Changes(added=("a", "b"), deleted=("c",), truncated=True),
    )
    assert show(found, as_json=False) == 2
    said = capsys.readouterr()
    assert said.out == "out\n"
    assert said.err.splitlines() == [
        "err",
        "corral: task 7: failed, status 2, 1.2 s, 2 requests to models, 0.5000 USD, "
        "files: 2 new, 1 removed or more",
        "corral: stdout had 100000 bytes, not all are shown",
    ]


def test_a_name_is_a_sandbox_and_a_verb_is_a_verb(typed: Typed) -> None:
    assert "there is no sandbox app" in typed("task", "app", "--run", "--", "ls").stderr
    assert "there is no sandbox app" in typed("task", "--agent", "2", "app", "test").stderr
    assert "there is no sandbox app" in typed("task", "list", "app").stderr
    assert "there is no sandbox app" in typed("task", "result", "app", "1").stderr
    assert typed("task", "schema").stdout.startswith("{")
    refused = typed("task", "app", "-", "--run")
    assert refused.returncode == 2 and "with - the lines say it" in refused.stderr
    assert set(command.commands) == {"send", "list", "result", "cancel", "schema"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("app test -k parser", {"words": ("test", "-k", "parser")}),
        ("app test -- -k parser", {"words": ("test", "-k", "parser")}),
        ("app test -k -- parser", {"words": ("test", "-k", "--", "parser")}),
        ("app --run make -- -x", {"words": ("make", "--", "-x"), "run": True}),
        ("app -- test -k parser", {"words": ("test", "-k", "parser")}),
        ("app test --json -d - --help", {"words": ("test", "--json", "-d", "-", "--help")}),
        ("--agent 2 app --json test --agent 3", {"words": ("test", "--agent", "3"), "agent": 2}),
        ("app -d --id=x -eA=b --run make -j2", {"words": ("make", "-j2"), "run": True}),
        ("app --timeout 5m --run -- make -j2", {"words": ("make", "-j2"), "timeout": "5m"}),
        ("app --code sh x.sh --timeout 5m", {"words": ("x.sh",), "timeout": "5m"}),
        ("app --code=sh - --timeout 5m", {"words": ("-",), "timeout": "5m"}),
        ("app --prompt x --agent 2", {"words": (), "prompt": "x", "agent": 2}),
        ('app {"action":"x"} --json', {"words": ('{"action":"x"}',), "as_json": True}),
        ("app - --events", {"words": ("-",), "events": True}),
    ],
)
def test_what_follows_an_actions_name_or_a_command_is_its_own(
    line: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """corral's own options stand before it. After a file, JSON or - nothing else can stand."""
    found: list[tuple[str, Asked]] = []

    def given(name: str, what: Asked) -> int:
        found.append((name, what))
        return 0

    monkeypatch.setattr(tasking, "one", given)
    monkeypatch.setattr(tasking, "lines", given)
    said = CliRunner().invoke(command, line.split())
    assert said.exit_code == 0, said.output
    [(name, what)] = found
    assert name == "app"
    assert {key: getattr(what, key) for key in expected} == expected


def test_before_the_action_an_option_that_is_not_known_is_refused() -> None:
    said = CliRunner().invoke(command, ["app", "-k", "test"])
    assert said.exit_code == 2 and "No such option" in said.output
    assert "Usage" in CliRunner().invoke(command, ["app", "--help"]).output
