"""`corral up` and what follows: a sandbox that stays, and every way in which it ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from corral.keeper.model import ALIVE
from corral.keeper.store import Record, names
from corral.paths import cache_dir, log_dir, run_root
from corral.sandbox import sweep
from tests.support import leftovers
from tests.support.corral import command, environment, kept, launch, left_behind
from tests.support.terminals import CTRL_D, terminal

Finished = subprocess.CompletedProcess[str]
PATIENCE = 60.0


def corral(*arguments: str, cwd: Path | None = None, **options: Any) -> Finished:
    """`corral ARGUMENTS`, to its end."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        command(*arguments),
        cwd=cwd or "/",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )


def done(*arguments: str, **options: Any) -> str:
    """Its output, when it must succeed."""
    finished = corral(*arguments, **options)
    assert finished.returncode == 0, (arguments, finished.stdout, finished.stderr)
    return finished.stdout


def inside(name: str, *argv: str, **options: Any) -> Finished:
    """`corral exec NAME -- ARGV`."""
    return corral("exec", name, "--", *argv, **options)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "My App"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def app(workspace: Path) -> Iterator[str]:
    """The sandbox of most tests here, named by its folder."""
    with kept("my-app", "-d", folder=workspace) as said:
        assert said == "my-app\n"
        yield "my-app"
    assert leftovers.wait_until_gone(15) == []
    assert left_behind() == []


@pytest.fixture
def running(app: str) -> str:
    """The same, running, whatever the test before did with it."""
    if Record(app).status().state != "running":
        done("start", app)
    return app


def keeper_of(name: str) -> int:
    return Record(name).written_status().keeper


def nothing_left() -> None:
    """No process and no run folder of any sandbox."""
    assert leftovers.wait_until_gone(15) == []
    left = {kind: found for kind, found in leftovers.everything().items() if found}
    assert not left, left


# Commands


def test_commands_come_and_go_in_one_machine(running: str, workspace: Path) -> None:
    """Standard streams, status, folders, variables; what one leaves the next one finds."""
    first = inside(
        running, "sh", "-c", "cat; pwd; echo err >&2; echo kept > ~/f; exit 3", input="in\n"
    )
    assert (first.returncode, first.stdout, first.stderr) == (3, f"in\n{workspace}\n", "err\n")
    second = subprocess.run(
        command(
            *("exec", running, "-w", "/tmp", "-e", "A=b c", "-e", "FROM_ME", "--"),
            *("sh", "-c", 'pwd; cat ~/f; echo "$A $FROM_ME $1"', "sh", "-w"),
        ),
        env=environment({"FROM_ME": "mine"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert second.stdout == "/tmp\nkept\nb c mine -w\n", second.stderr
    boot_id = "/proc/sys/kernel/random/boot_id"
    assert inside(running, "cat", boot_id).stdout == inside(running, "cat", boot_id).stdout


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["exit-by-signal"], 127, "not found in the sandbox"),
        (["/etc/passwd"], 126, "cannot be executed"),
        (["sh", "-c", "kill -9 $$"], 137, ""),
    ],
)
def test_how_a_command_ends_is_the_exit_status(
    running: str, argv: list[str], status: int, said: str
) -> None:
    finished = inside(running, *argv)
    assert finished.returncode == status
    assert said in finished.stderr


def test_its_user_is_decided_by_up(running: str) -> None:
    own = inside(running, "id", "-un").stdout.strip()
    assert corral("exec", running, "-u", own, "--", "true").returncode == 0
    refused = corral("exec", running, "-u", "daemon", "--", "true")
    assert refused.returncode == 125
    assert f"run as {own}, not as daemon" in refused.stderr
    assert f"corral up {running} -d --user daemon" in refused.stderr


def test_much_data_goes_through_whole(running: str) -> None:
    data = os.urandom(3 << 20)
    process = subprocess.run(
        command("exec", running, "cat"), input=data, capture_output=True, timeout=PATIENCE
    )
    assert process.stdout == data


def test_sixteen_at_once_keep_order_and_lose_nothing(running: str) -> None:
    script = "i=0; while [ $i -lt 200 ]; do echo $1 $i; i=$((i+1)); done"
    many = [
        launch(Path("/"), ["exec", running, "--", "sh", "-c", script, "sh", str(each)])
        for each in range(16)
    ]
    for each, process in enumerate(many):
        out, err = process.communicate(timeout=PATIENCE)
        assert out.decode() == "".join(f"{each} {line}\n" for line in range(200)), err


def test_a_terminal_of_its_own(running: str) -> None:
    with terminal(Path("/"), ["exec", running, "-t", "--", "sh"]) as person:
        person.expect(r"[$#] ")
        person.type("tty; stty size; exit 4\n")
        person.expect(r"/dev/pts/\d+\r\n40 132\r\n")
        assert person.wait() == 4


def test_a_shell(running: str) -> None:
    assert corral("shell", running, input="echo $((6*7)); exit 5").stdout == "42\n"
    with terminal(Path("/"), ["shell", running]) as person:
        person.expect(r"[$#] ")
        person.type("echo he''llo\n")
        person.expect("hello\r\n")
        person.expect(r"[$#] ")
        person.type(CTRL_D)
        assert person.wait() == 0


def test_signals_reach_the_command(running: str) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.1; done"
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", script]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE)[0] == b"caught\n"
    assert process.returncode == 9


def test_a_client_that_dies_hangs_up_on_its_command_and_nobody_elses(
    running: str, workspace: Path
) -> None:
    script = "trap 'echo hung up > hup; exit' HUP; echo up; while :; do sleep 0.1; done"
    other = launch(Path("/"), ["exec", running, "cat"])
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", script]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    until(lambda: (workspace / "hup").exists())
    assert other.communicate(b"still here", timeout=PATIENCE)[0] == b"still here"


def test_a_client_that_does_not_read_stalls_nobody_else(running: str) -> None:
    with launch(Path("/"), ["exec", running, "--", "cat", "/dev/zero"]) as slow:
        assert slow.stdout is not None
        slow.stdout.read(1)
        for _ in range(3):
            assert inside(running, "echo", "quick").stdout == "quick\n"
        slow.kill()


def test_json_has_the_same_events_as_run(running: str) -> None:
    finished = corral("exec", running, "--json", "--", "sh", "-c", "echo hi; exit 2")
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [event["event"] for event in events] == ["started", "output", "exited"]
    assert finished.returncode == events[-1]["status"] == 2


# What is told of it


def test_it_is_listed_described_and_measured(running: str, workspace: Path) -> None:
    (row,) = [row for row in json.loads(done("ps", "--json")) if row["name"] == running]
    assert (row["state"], row["workspace"]) == ("running", str(workspace))
    assert re.search(rf"^{running} +running ", done("ps"), re.MULTILINE)
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", "echo up; sleep 100"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = json.loads(done("inspect", running))
        (alive,) = found["live"]["commands"]
        assert alive["argv"] == ["sh", "-c", "echo up; sleep 100"]
        assert found["spec"]["workspace"]["path"] == str(workspace)
        (stats,) = json.loads(done("stats", "--json"))
        assert stats["commands"] == 1
        assert stats["usage"]["memory"] > 50 << 20
        process.terminate()


def test_its_logs_tell_what_happened(running: str) -> None:
    inside(running, "sh", "-c", "exit 6")
    assert "sh -c 'exit 6'" in done("logs", running)
    assert "ended with status 6" in done("logs", running)
    events = [json.loads(line) for line in done("events", running).splitlines()]
    assert {"state", "command-started", "command-ended"} <= {event["event"] for event in events}
    assert all(event["sandbox"] == running and event["time"] > 1e9 for event in events)
    with launch(Path("/"), ["events", "-f"]) as follower:
        assert follower.stdout is not None
        inside(running, "sh", "-c", "exit 42")
        for line in follower.stdout:
            if json.loads(line).get("status") == 42:
                break
        follower.terminate()


def test_its_console_is_kept(running: str) -> None:
    # As the guest's root there is no way from here: what the guest's kernel says is what there is.
    assert corral("logs", running, "--console").returncode == 0


# States


def test_paused_nothing_runs_and_afterwards_the_clock_is_right(running: str) -> None:
    clock = "import time; print(time.time())"
    script = "i=0; while :; do i=$((i+1)); echo $i > tick; sleep 0.05; done"
    workspace = Path(json.loads(done("inspect", running))["spec"]["workspace"]["path"])
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", script]) as ticking:
        until(lambda: (workspace / "tick").exists())
        done("pause", running)
        before = (workspace / "tick").read_text()
        time.sleep(2)
        assert (workspace / "tick").read_text() == before
        refused = inside(running, "true")
        assert refused.returncode == 125
        assert "is paused" in refused.stderr
        assert f"corral resume {running}" in refused.stderr
        done("resume", running)
        asked = time.time()
        said = float(inside(running, "python3", "-c", clock).stdout)
        assert asked - 0.1 < said < time.time() + 0.1
        until(lambda: (workspace / "tick").read_text() not in ("", before))
        ticking.terminate()


def test_a_paused_one_can_be_stopped(running: str) -> None:
    done("pause", running)
    done("stop", running)
    assert Record(running).status().state == "stopped"


def test_stop_start_restart(running: str, workspace: Path) -> None:
    """Stopped it refuses and says what to do; started, it is fresh but for its folders."""
    inside(running, "sh", "-c", "echo mine > kept; echo gone > ~/lost")
    first = keeper_of(running)
    assert done("stop", running) == f"{running}\n"
    nothing_left()
    refused = inside(running, "true")
    assert refused.returncode == 125
    assert f"the sandbox {running} is stopped" in refused.stderr
    assert f"corral start {running}" in refused.stderr
    assert "does not run" in corral("stop", running).stderr
    assert [row["state"] for row in json.loads(done("ps", "-a", "--json"))] == ["stopped"]
    assert done("ps").splitlines()[1:] == []
    assert corral("wait", running).returncode == 0
    done("start", running)
    assert "running already" in corral("start", running).stderr
    assert inside(running, "sh", "-c", "cat kept; ls ~").stdout == "mine\n"
    second = keeper_of(running)
    done("restart", running)
    assert len({first, second, keeper_of(running)}) == 3


def test_stop_gives_commands_time_after_term(running: str, workspace: Path) -> None:
    script = "trap 'sleep 1; echo bye > bye; exit' TERM; echo up; while :; do sleep 0.1; done"
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", script]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        done("stop", running, "--timeout", "20s")
        assert (workspace / "bye").read_text() == "bye\n"
        process.wait(PATIENCE)


def test_a_command_that_runs_when_it_is_stopped_says_so(running: str) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", script]) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        done("stop", running, "--timeout", "0")
        assert process.wait(PATIENCE) == 125
        assert f"the sandbox {running} was stopped" in process.stderr.read().decode()


# Names


def test_a_name_is_used_once(running: str, workspace: Path, project: Path) -> None:
    again = corral("up", "-d", cwd=workspace)
    assert again.returncode == 125
    assert f"the sandbox {running} is running already" in again.stderr
    done("stop", running)
    taken = corral("up", running, "-d", cwd=project)
    assert taken.returncode == 125
    assert f"the name {running} belongs to the sandbox on {workspace}" in taken.stderr
    assert "corral up NAME" in taken.stderr
    done("up", running, "-d", cwd=workspace)
    refused = corral("rm", running)
    assert refused.returncode == 125
    assert "--force" in refused.stderr
    assert names() == [running]


@pytest.mark.parametrize(
    "arguments",
    [
        *([verb, "nobody"] for verb in ("start", "stop", "restart", "rm", "pause", "resume")),
        *([verb, "nobody"] for verb in ("wait", "inspect", "logs", "events", "stats", "shell")),
        ["exec", "nobody", "true"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_of_one_that_does_not_exist_every_command_says_so(arguments: list[str]) -> None:
    finished = corral(*arguments)
    assert finished.returncode == 125
    assert "there is no sandbox nobody" in finished.stderr
    assert "corral ps -a" in finished.stderr


def test_two_starts_at_once_make_one_sandbox(running: str) -> None:
    """The second waits, is told so, and finds it running."""
    done("stop", running)
    both = [launch(Path("/"), ["start", running]) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[1].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("running already" in text for text in said) == 1, said
    assert inside(running, "true").returncode == 0


# In front


def test_in_front_it_shows_events_until_ctrl_c(project: Path) -> None:
    with terminal(project, ["up", "front"]) as person:
        person.expect("front is up")
        assert inside("front", "sh", "-c", "exit 8").returncode == 8
        person.expect("sh -c 'exit 8'")
        person.expect("ended with status 8")
        person.type("\x03")
        person.expect("stopped")
        assert person.wait() == 0
    assert Record("front").status().state == "stopped"
    done("rm", "front")


# Kills


def kill_keeper(name: str) -> None:
    os.kill(keeper_of(name), signal.SIGKILL)


def said_to_be_killed(name: str, text: str) -> None:
    assert re.search(rf"the keeper of {name} \(process \d+\) was killed while", text), text
    assert f"corral start {name}" in text
    assert "Traceback" not in text


def test_a_killed_keeper_takes_its_machine_along_and_every_command_says_so(running: str) -> None:
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", "echo up; sleep 1000"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        follower = launch(Path("/"), ["logs", running, "-f"])
        waiter = launch(Path("/"), ["wait", running])
        time.sleep(0.5)  # that they are connected shows nowhere
        kill_keeper(running)
        for each in (process, waiter):
            _out, err = each.communicate(timeout=PATIENCE)
            assert each.returncode == 125
            said_to_be_killed(running, err.decode())
        assert "was killed while" in follower.communicate(timeout=PATIENCE)[1].decode()
    nothing_left()
    for arguments in (
        ["exec", running, "true"],
        ["shell", running],
        ["pause", running],
        ["resume", running],
        ["stats", running],
    ):
        finished = corral(*arguments)
        assert finished.returncode == 125, arguments
        said_to_be_killed(running, finished.stderr)
    for arguments in (["stop", running], ["logs", running], ["ps", "-a"], ["inspect", running]):
        finished = corral(*arguments)
        assert finished.returncode == 0
        assert "was killed while" in finished.stderr + finished.stdout
    done("start", running)
    assert inside(running, "true").returncode == 0


@pytest.mark.parametrize("verb", ["start", "stop", "pause", "restart"])
def test_killed_in_the_middle_of_a_command(running: str, verb: str) -> None:
    """It ends, plainly, and the next start works."""
    if verb == "start":
        done("stop", running)
    with launch(Path("/"), [verb, running]) as process:
        if verb == "start":
            until(lambda: Record(running).written_status().state in ALIVE)  # the new one's words
        with contextlib.suppress(ProcessLookupError):
            kill_keeper(running)
        _out, err = process.communicate(timeout=PATIENCE)
        assert b"Traceback" not in err
        if verb == "pause":
            assert process.returncode == 125, err
        if verb == "start":  # it may have been up already, and have said so
            assert process.returncode in (0, 125), err
    if verb != "restart":
        if verb == "start":
            sweep()  # killed before there was a warden, a keeper leaves an empty folder
        nothing_left()
        done("start", running)
    assert inside(running, "true").returncode == 0


def test_a_start_that_is_interrupted_leaves_nothing(running: str) -> None:
    done("stop", running)
    with launch(Path("/"), ["start", running]) as process:
        until(lambda: bool(leftovers.running("qemu-system")))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
    Record(running).wait_until_left()
    nothing_left()
    assert Record(running).status().state == "stopped"


def test_stop_ends_a_start(running: str) -> None:
    done("stop", running)
    with launch(Path("/"), ["start", running]) as process:
        until(lambda: bool(leftovers.running("qemu-system")))
        leftovers.running("qemu-system")[0].suspend()  # or it may be up before it is stopped
        done("stop", running)
        _out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 125
        assert b"was stopped" in err
    nothing_left()


def test_term_is_a_clean_stop(running: str, workspace: Path) -> None:
    inside(running, "sh", "-c", "echo last > last")
    os.kill(keeper_of(running), signal.SIGTERM)
    assert corral("wait", running).returncode == 0
    assert Record(running).status().state == "stopped"
    assert (workspace / "last").read_text() == "last\n"
    nothing_left()


def test_a_machine_that_ends_is_said_to_have(running: str) -> None:
    with launch(Path("/"), ["exec", running, "--", "sh", "-c", "echo up; sleep 1000"]) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (qemu,) = leftovers.running("qemu-system")
        qemu.kill()
        _out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 125
        assert b"QEMU was ended by SIGKILL" in err
    assert corral("wait", running).returncode == 125
    nothing_left()
    assert "QEMU was ended by SIGKILL" in corral("exec", running, "true").stderr
    assert Record(running).status().state == "failed"


def test_it_holds_nothing_of_who_started_it(running: str) -> None:
    """No descriptor but its own, no terminal, no folder: it stays when they go."""
    process = psutil.Process(keeper_of(running))
    assert process.cwd() == "/"
    assert process.terminal() is None
    assert os.getsid(process.pid) == process.pid
    found = leftovers.descriptors(process.pid)
    assert found[0] == "/dev/null"
    assert found[1] == found[2] == str(Record(running).folder / "keeper.log")
    folders = (Record(running).folder, log_dir(running), run_root(), cache_dir() / "templates")
    own = "|".join(re.escape(f"{folder}/") for folder in folders)
    known = re.compile(rf"socket:|pipe:|anon_inode:|/memfd:corral|/dev/null|{own}")
    assert not [what for what in found.values() if not known.match(what)], found


def test_what_it_leaves_for_git_to_run_is_told_when_it_stops(running: str, workspace: Path) -> None:
    subprocess.run(["git", "init", "-q", str(workspace / "nested")], check=True)
    done("restart", running)
    inside(running, "sh", "-c", "echo x > nested/.git/hooks/post-commit")
    assert "post-commit appeared or changed" in corral("stop", running).stderr


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing tells."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_completion_knows_names(running: str) -> None:
    finished = subprocess.run(
        command(),
        env=environment(
            {"_CORRAL_COMPLETE": "bash_complete", "COMP_WORDS": "corral stop my", "COMP_CWORD": "2"}
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert finished.stdout == f"plain,{running}\n"
