"""Several agents in one real machine: each at its own work, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from corral.review.store import Review
from corral.review.working import working_copy
from corral.sandbox import Sandbox, start
from corral.spec import load_spec
from tests.conftest import Corral
from tests.support.sandboxes import DEFAULTS, lines, planned, run, shell, succeeded

CLEAN = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}
TWELVE = range(1, 13)
# The first one may boot the machine that the others are restored from.
pytestmark = pytest.mark.timeout(300)
COMMIT = "git -c user.name=a -c user.email=a@example.org commit -qm inside"


def git(root: Path, *arguments: str) -> str:
    words = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(
        words, cwd=root, env=CLEAN, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the state is, the folder that agents work on, and one that all see."""
    root = tmp_path_factory.mktemp("herd")
    patch = pytest.MonkeyPatch()
    patch.setenv("CORRAL_STATE_DIR", str(root / "state"))
    (root / "project").mkdir()
    (root / "shared").mkdir()
    (root / "shared" / "note").write_text("for all\n")
    (root / "project" / "a").write_text("one\n")
    git(root / "project", "init", "-q", "-b", "main")
    git(root / "project", "add", ".")
    git(root / "project", "commit", "-qm", "one")
    yield root
    patch.undo()


@pytest.fixture(scope="module")
async def herd(home: Path) -> AsyncIterator[Sandbox]:
    """Twelve agents, each with a copy of its own."""
    overrides = {
        **DEFAULTS,
        **{"machine.memory": "1536MiB", "herd.agents": 12, "herd.shared": str(home / "shared")},
        **{"herd.memory": "256MiB", "herd.pids": 200, "herd.home": "8MiB", "name": "herd"},
        "herd.cpu": "90%",
    }
    spec = load_spec(home / "project", overrides, os.environ)
    with working_copy(spec) as (spec, _notices):
        plan, parts = planned(spec)
        async with start(plan, parts, lambda _event: None) as sandbox:
            yield sandbox


async def test_twelve_work_at_once_and_each_writes_its_own_file(herd: Sandbox, home: Path) -> None:
    script = (
        "pwd; hostname; git branch --show-current; echo $CORRAL_AGENT > mine; "
        "cat /shared/note; touch /shared/x 2>&1 | grep -o Read-only"
    )
    done = await asyncio.gather(*(shell(herd, script, agent=n, timeout=120) for n in TWELVE))
    for number, result in zip(TWELVE, done, strict=True):
        assert lines(result) == [
            "/workspace",
            f"herd-{number}",
            f"corral/herd/{number}",
            "for all",
            "Read-only",
        ]
    review = Review("herd")
    for number in TWELVE:
        file = review.agent(number) / "work" / "mine"
        assert file.read_text() == f"{number}\n"
        assert file.stat().st_uid == os.getuid(), "on the host it is the user's own"
        assert "mine" in [one.change.path for one in review.changes(agent=number)]
    assert git(home / "project", "status", "--porcelain") == ""


async def test_a_commit_of_one_is_on_its_branch_and_nowhere_else(herd: Sandbox, home: Path) -> None:
    work = f"touch new; git add new; {COMMIT} --allow-empty; git log -1 --format=%D"
    made = await shell(herd, work, agent=2)
    assert lines(made) == ["HEAD -> corral/herd/2"]
    other = await shell(herd, "git log --all --format=%s", agent=1)
    assert lines(other) == ["one"]
    assert git(home / "project", "log", "--all", "--format=%s") == "one\n"
    await shell(herd, "rm new", agent=2)


async def test_each_has_its_limits(herd: Sandbox) -> None:
    """As the guest's own root sees them: what an agent sees could be its own."""
    code = (
        "for n in (1, 12):\n"
        " for name in ('memory.max', 'pids.max', 'cpu.max'):\n"
        "  print(open(f'/sys/fs/cgroup/agent-{n}/{name}').read().strip())\n"
    )
    found = await run(herd, "/usr/bin/python3", "-I", "-S", "-c", code, agent=0)
    assert lines(found) == [str(256 << 20), "200", "90000 100000"] * 2


async def test_a_home_takes_no_more_than_was_said_and_the_others_go_on(herd: Sandbox) -> None:
    full = await shell(herd, "head -c 20000000 /dev/zero > ~/big; echo $?; stat -c %s ~/big",
                       agent=3)  # fmt: skip
    assert "No space left" in full.stderr
    assert int(lines(full)[1]) <= 8 << 20
    fine = await shell(herd, "head -c 4000000 /dev/zero > ~/big && rm ~/big && echo ok", agent=4)
    assert succeeded(fine) == "ok\n"


async def test_one_that_forks_without_end_stops_itself_only(herd: Sandbox) -> None:
    script = "i=0; while [ $i -lt 300 ]; do sleep 30 & i=$((i+1)); done; echo through"
    bomb = asyncio.create_task(shell(herd, script, agent=5, timeout=100))
    try:
        assert succeeded(await shell(herd, "echo fine", agent=6, timeout=60)) == "fine\n"
    finally:
        await herd.kill(5)
        await asyncio.wait((bomb,))
    result = bomb.result()
    assert "through" not in result.stdout or "fork" in result.stderr.lower(), result


async def test_none_sees_what_another_has(herd: Sandbox) -> None:
    leave = "for d in /tmp ~ /var/tmp; do echo x > $d/secret-7; done; sleep 9 & id -u"
    succeeded(await shell(herd, leave, agent=7))
    look = "ls -d /tmp/secret-7 ~/secret-7 /var/tmp/secret-7 /agents /agent /new 2>/dev/null; "
    other = await shell(herd, look + "pgrep sleep; true", agent=8)
    assert succeeded(other) == ""


async def test_an_agent_that_there_is_not_is_an_error(herd: Sandbox) -> None:
    from corral.errors import ExecError

    with pytest.raises(ExecError, match="no agent 13"):
        await run(herd, "true", agent=13)


def test_a_kept_herd_from_the_start_to_what_is_applied(
    project: Path, corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the command line: up, exec, cp, stop, start; diff, apply, a conflict, discard."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    (project / "a").write_text("one\n")
    small = ("--memory", "768m", "--cpus", "1", "--agents", "2")
    try:
        done = corral("up", "pair", "-d", *small)
        assert done.returncode == 0, done.stderr
        for number in ("1", "2"):
            done = corral("exec", "pair", "--agent", number, "--", "sh", "-c",
                          "echo $CORRAL_AGENT > a; id -un")  # fmt: skip
            assert done.returncode == 0, done.stderr
        assert corral("exec", "pair", "--agent", "3", "--", "true").returncode == 125
        assert corral("cp", "--agent", "2", "pair:a", str(tmp_path / "got")).returncode == 0
        assert (tmp_path / "got").read_text() == "2\n"
        assert corral("apply", "pair", "--agent", "1").returncode == 125, "it runs"
        done = corral("stop", "pair")
        assert "agent 2: held back: 1 changed." in done.stderr
        assert corral("start", "pair").returncode == 0
        done = corral("exec", "pair", "--agent", "2", "--", "cat", "a")
        assert done.stdout == "2\n", "it goes on from what it had changed"
        assert corral("stop", "pair").returncode == 0
        (found,) = json.loads(corral("diff", "pair", "--json").stdout)
        assert (found["path"], found["state"]) == ("a", "disagree")
        assert corral("apply", "pair", "--agent", "1").returncode == 0
        assert (project / "a").read_text() == "1\n"
        done = corral("apply", "pair", "--agent", "2")
        assert done.returncode == 1 and "conflict: a" in done.stderr
        assert (project / "a").read_text() == "1\n"
    finally:
        corral("rm", "-f", "pair")
    assert corral("discard", "pair", "-y").returncode == 0


def test_together_they_work_on_the_folder_itself(
    project: Path, corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    small = ("--memory", "768m", "--cpus", "1", "--agents", "2", "--agent-workspace", "together")
    try:
        done = corral("up", "both", "-d", *small)
        assert done.returncode == 0, done.stderr
        corral("exec", "both", "--agent", "1", "--", "sh", "-c", "echo one > a")
        done = corral("exec", "both", "--agent", "2", "--", "sh", "-c", "cat a; echo two > a")
        assert done.stdout == "one\n"
        done = corral("exec", "both", "--", "cat", "a")
        assert done.stdout == "two\n"
        assert (project / "a").stat().st_uid == os.getuid()
    finally:
        corral("rm", "-f", "both")
    assert corral("diff").stdout == "", "nothing is held back"


class _Name(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Say which name was asked for."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.headers['host']}\n".encode())

    def log_message(self, *_arguments: object) -> None:
        """Nothing: it is a test's own."""


@pytest.fixture
def served() -> Iterator[int]:
    """The port of a server on loopback that stands for two hosts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Name) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_each_reaches_what_its_own_table_allows(
    project: Path, corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: int
) -> None:
    """Two agents of one machine have two networks, and the log says whose a connection was."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(tmp_path))
    tables = [f"[[agent]]\nallow = ['{name}']\n" for name in ("one.test", "two.test")]
    (tmp_path / "config.toml").write_text("\n".join(tables))
    hosts = [
        word
        for name in ("one.test", "two.test")
        for word in ("--host", f"{name}:80=127.0.0.1:{served}")
    ]
    small = ("--memory", "768m", "--cpus", "1", "--agent-workspace", "together")
    found = {}
    try:
        done = corral("up", "nets", "-d", *small, *hosts)
        assert done.returncode == 0, done.stderr
        for number in (1, 2):
            for name in ("one.test", "two.test"):
                ask = ("curl", "-sSf", "-m", "20", f"http://{name}/")
                done = corral("exec", "nets", "--agent", str(number), "--", *ask)
                found[number, name] = done.stdout if done.returncode == 0 else None
        assert corral("stop", "nets").returncode == 0
        logged = [
            json.loads(line) for line in corral("net", "log", "nets", "--json").stdout.splitlines()
        ]
        table = corral("net", "log", "nets", "--agent", "2", "--denied").stdout
    finally:
        corral("rm", "-f", "nets")
    answers = {(1, "one.test"): "one.test\n", (2, "two.test"): "two.test\n"}
    assert found == dict.fromkeys(found) | answers
    assert {(each["agent"], each["name"], each["verdict"]) for each in logged} == {
        *((1, "one.test", "allowed"), (1, "two.test", "denied")),
        *((2, "two.test", "allowed"), (2, "one.test", "denied")),
    }
    (refused,) = table.splitlines()[1:]
    assert refused.split()[2:4] == ["2", "denied"] and "one.test" in refused
