"""Tasks for agents of a kept sandbox: code, commands, actions, prompts; their ends and results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral import AsyncSandbox, Sandbox
from corral.scripted import Models, Reply
from tests.support import leftovers
from tests.support.corral import command, environment
from tests.support.gateways import configure
from tests.support.tasks import corral, done, kept, lines, result

PROJECT = """
[actions.test]
run = ["sh", "-c", "echo tested $0 in $PWD"]
"""
RECIPE = """
summary = "A script that answers"
program = "sh"
interactive = ["sh"]
headless = ["sh", "-c", "echo \\"you said $0 to $WHO\\"; echo answer > answer.txt", "{prompt}"]
[env]
WHO = "me"
"""


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One sandbox with two agents, each with a copy of the project."""
    folder = tmp_path_factory.mktemp("tasks") / "project"
    folder.mkdir()
    (folder / "corral.toml").write_text(PROJECT)
    (folder / "old.txt").write_text("old\n")
    recipes = Path(os.environ["CORRAL_CONFIG_DIR"]) / "agents"
    recipes.mkdir(parents=True, exist_ok=True)
    (recipes / "parrot.toml").write_text(RECIPE)
    with kept(folder, "herd", "--agents", "2") as name:
        yield name
    assert leftovers.wait_until_gone(15) == []


@pytest.mark.parametrize(
    ("language", "code", "said"),
    [
        ("python", "import os; print(6 * 7, os.getcwd())", "42 /workspace\n"),
        ("bash", "a=(1 2 3); echo ${a[2]}", "3\n"),
        ("node", "console.log([6, 7].reduce((a, b) => a * b))", "42\n"),
    ],
)
def test_code_runs_in_its_language(herd: str, language: str, code: str, said: str) -> None:
    found = result(herd, {"action": "execute_code", "language": language, "code": code})
    assert (found["status"], found["stdout"], found["stderr"]) == ("done", said, "")
    assert found["changes"] == {
        "added": [],
        "modified": [],
        "deleted": [],
        "repository": 0,
        "truncated": False,
    }


def test_a_command_has_its_input_variables_folder_and_status(herd: str) -> None:
    script = (
        "cat; echo $A; pwd; echo err >&2; mkdir d; echo x > d/new; rm /workspace/old.txt; exit 7"
    )
    found = result(
        herd,
        {
            "action": "run",
            "argv": ["sh", "-c", script],
            "stdin": "in\n",
            "env": {"A": "b c"},
            "cwd": "/tmp",
        },
    )
    assert (found["status"], found["exit_status"]) == ("failed", 7)
    assert (found["stdout"], found["stderr"]) == ("in\nb c\n/tmp\n", "err\n")
    assert found["changes"]["deleted"] == ["old.txt"] and found["changes"]["added"] == []
    shorthand = corral(
        "task", herd, "--agent", "2", "--run", "--", "sh", "-c", "cat old.txt; exit 3"
    )
    assert (shorthand.returncode, shorthand.stdout) == (3, "old\n")
    assert "failed, status 3" in shorthand.stderr


def test_a_named_action_is_the_projects(herd: str) -> None:
    found = corral("task", herd, "test", "fast")
    assert (found.returncode, found.stdout) == (0, "tested fast in /workspace\n")
    missing = corral("task", herd, "tset")
    assert missing.returncode == 125
    assert "there is no action “tset”" in missing.stderr and "Did you mean test?" in missing.stderr


def test_a_prompt_goes_to_a_recipe_of_the_users(herd: str) -> None:
    task = {"action": "prompt", "agent": "parrot", "prompt": "it's; $(id)"}
    found = result(herd, task)
    assert (found["status"], found["stdout"]) == ("done", "you said it's; $(id) to me\n")
    assert found["changes"]["added"] == ["answer.txt"]
    unknown = corral("task", herd, "--prompt", "hello", "--recipe", "parot")
    assert unknown.returncode == 125 and "Did you mean parrot?" in unknown.stderr


def test_out_of_time_takes_what_hid_with_it(herd: str) -> None:
    hidden = "setsid sh -c 'trap \"\" TERM; while :; do date +%s%N > /tmp/beat; sleep 0.1; done' &"
    code = f"({hidden} exit 0) & trap '' TERM; sleep 1; echo begun; while :; do sleep 9; done"
    task = {"action": "execute_code", "language": "bash", "code": code, "timeout_ms": 3000}
    found = result(herd, task)
    assert (found["status"], found["exit_status"], found["stdout"]) == ("timeout", 137, "begun\n")
    look = "import time; b = open('/tmp/beat').read(); time.sleep(1.5);"
    look += "print(b == open('/tmp/beat').read())"
    after = result(herd, {"action": "execute_code", "language": "python", "code": look})
    assert after["stdout"] == "True\n"


def test_a_task_is_cancelled_and_the_next_one_runs(herd: str) -> None:
    first = done("task", herd, "-d", "--run", "--", "sleep", "600").strip()
    second = done("task", herd, "-d", "--id", "never", "--run", "--", "touch", "never").strip()
    assert second == "never"
    done("task", "cancel", herd, second)
    done("task", "cancel", herd, first)
    assert corral("task", "result", herd, first).returncode == 130
    assert "before it began" in corral("task", "result", herd, "never").stderr
    assert corral("task", herd, "--run", "--", "test", "!", "-e", "never").returncode == 0


def test_two_agents_work_at_once_each_in_its_own_folder(herd: str) -> None:
    code = "touch mine-$0; for n in 1 2 3 4 5 6 7 8; do sleep 0.5; done; ls mine-*"
    found = lines(
        herd,
        *(
            {
                "type": "task",
                "id": f"both-{agent}",
                "agent": agent,
                "task": {"action": "run", "argv": ["sh", "-c", code, str(agent)]},
            }
            for agent in (1, 2)
        ),
    )
    by_id = {each["id"]: each for each in found}
    one, other = by_id["both-1"], by_id["both-2"]
    assert (one["stdout"], other["stdout"]) == ("mine-1\n", "mine-2\n")
    assert one["changes"]["added"] == ["mine-1"] and other["changes"]["added"] == ["mine-2"]
    assert other["began"] < one["ended"] and one["began"] < other["ended"]


def test_lines_that_are_no_tasks_are_refused_and_the_others_are_done(herd: str) -> None:
    finished = corral(
        "task",
        herd,
        "-",
        "--events",
        input='{"action": "test"}\nnonsense\n\n'
        '{"type": "task", "id": "x", "task": {"action": "run"}}\n',
    )
    found = [json.loads(line) for line in finished.stdout.splitlines()]
    results = {each["id"]: each["status"] for each in found if each["type"] == "result"}
    assert finished.returncode == 1
    assert sorted(results.values()) == ["done", "refused", "refused"]
    assert results["x"] == results[None] == "refused"
    assert {"heartbeat", "transcript", "result"} == {each["type"] for each in found}


def test_a_client_that_is_killed_leaves_its_task_and_the_result_comes_later(herd: str) -> None:
    client = subprocess.Popen(
        command(
            "task",
            herd,
            "--id",
            "long",
            "--events",
            "--run",
            "--",
            "sh",
            "-c",
            "sleep 3; echo late",
        ),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    assert json.loads(client.stdout.readline())["id"] == "long"
    client.send_signal(signal.SIGKILL)
    client.wait(10)
    client.stdout.close()
    agents = json.loads(done("agents", herd, "--json"))
    assert [each["task"] for each in agents] == ["sh -c sleep 3; echo late", None]
    later = corral("task", "result", herd, "long")
    assert (later.returncode, later.stdout) == (0, "late\n")
    again = corral("task", herd, "--id", "long", "--run", "--", "true")
    assert again.returncode == 125 and "there is a task long already" in again.stderr


def test_what_runs_when_the_sandbox_stops_is_lost_and_what_ended_is_kept(herd: str) -> None:
    """The last one here: it stops the sandbox and starts it again."""
    done("task", herd, "--id", "before", "--run", "--", "echo", "kept")
    done(
        "task", herd, "-d", "--id", "running", "--run", "--", "sh", "-c", "trap '' TERM; sleep 600"
    )
    deadline = time.monotonic() + 20
    while "running  1      running" not in done("task", "list", herd):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done("stop", herd, "--timeout", "0")
    stopped = done("task", "list", herd)
    assert "before   1      done" in stopped and "running  1      lost" in stopped
    assert corral("task", "result", herd, "before").stdout == "kept\n"
    done("start", herd)
    lost = corral("task", "result", herd, "running")
    assert lost.returncode == 125 and "the sandbox ended before it did" in lost.stderr


def test_a_program_gives_tasks_to_a_sandbox_of_its_own(tmp_path: Path) -> None:
    with Sandbox(workspace=tmp_path, memory="768MiB", cpus=1) as box:
        found = box.task(
            {"action": "execute_code", "language": "sh", "code": "echo $0 > made; exit 2"}
        )
        assert (found.status, found.exit_status, found.ok) == ("failed", 2, False)
        assert found.changes is not None and found.changes.added == ("made",)
        tasks = [{"action": "run", "argv": ["echo", str(n)]} for n in range(3)]
        assert [each.stdout for each in box.tasks(tasks)] == ["0\n", "1\n", "2\n"]


ASKS = """
import json, os, sys, urllib.request
body = {"model": "claude-opus-5", "max_tokens": 64}
body["messages"] = [{"role": "user", "content": sys.argv[1]}]
url = os.environ["MODEL_URL"] + "/v1/messages"
headers = {"content-type": "application/json", "anthropic-version": "2023-06-01"}
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
answer = json.load(urllib.request.urlopen(request))["content"][0]["text"]
open("answer.txt", "w").write(answer)
said = {"type": "text", "text": "I ask"}
print(json.dumps({"type": "assistant", "message": {"content": [said]}}))
print(json.dumps({"type": "result", "subtype": "success", "is_error": False, "result": answer}))
"""
ASKING = f"""
summary = "A script that asks a model"
program = "python3"
interactive = ["python3"]
headless = ["python3", "-c", {json.dumps(ASKS)}, "{{prompt}}"]
output = "claude-stream-json"
gateways = ["anthropic"]
[gateway.anthropic]
env = {{MODEL_URL = "{{base_url}}"}}
"""


async def test_a_prompt_costs_what_its_agent_asked_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(tmp_path / "config"))
    (tmp_path / "config" / "agents").mkdir(parents=True)
    (tmp_path / "config" / "agents" / "asking.toml").write_text(ASKING)
    (tmp_path / "work").mkdir()
    async with Models() as models:
        configure(models, tmp_path)
        models.replies += [Reply(text="forty two"), Reply(text="again")]
        async with AsyncSandbox(
            workspace=tmp_path / "work", memory="768MiB", cpus=1, gateways=["anthropic"]
        ) as box:
            prompt = {"action": "prompt", "agent": "asking", "prompt": "what is six by seven?"}
            found = await box.task(prompt)
            second = await box.task(prompt)
            free = await box.task({"action": "run", "argv": ["true"]})
    assert (found.status, found.answer) == ("done", "forty two"), found
    assert [event.__struct_config__.tag for event in found.events] == [
        "said",
        "used",
        "returned",
    ]
    assert found.changes is not None and found.changes.added == ("answer.txt",)
    assert second.changes is not None and second.changes.modified == ("answer.txt",)
    for each in (found, second):
        assert each.usage is not None and each.usage.usd is not None
        assert (each.usage.requests, each.usage.input_tokens) == (1, 10)
        assert 0 < each.usage.usd < 0.1 and each.usage.cpu_seconds
    assert free.usage is not None and (free.usage.requests, free.usage.usd) == (0, 0.0)
