"""The default seccomp profile in a guest's jail: each refused call is tried, each tool is run."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.sandbox import Sandbox
from tests.security.attacks import from_jail, refused
from tests.security.calls import ALLOWED, REFUSED, TRIES
from tests.support.sandboxes import guest_root, python, sandbox_on, shell, succeeded

THERE = {tool for tool, (program, _script) in ALLOWED.items() if Path(program).exists()}
USERS = ["own", "root"] if os.getuid() else ["root"]


@pytest.fixture(scope="module", params=USERS)
async def sandbox(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sandbox]:
    overrides = {"run.user": "root"} if request.param == "root" else {}
    folder = tmp_path_factory.mktemp("seccomp")
    (folder / "file").write_text("content")
    async with sandbox_on(folder, overrides) as running:
        yield running


async def test_the_default_profile_refuses_each_call_that_it_says(sandbox: Sandbox) -> None:
    found = json.loads(succeeded(await python(sandbox, TRIES)))
    assert {name: found[name] for name in REFUSED} == REFUSED
    assert len(REFUSED) >= 40


async def test_the_same_calls_are_not_refused_outside_the_jail(sandbox: Sandbox) -> None:
    """The guest's root is asked, whom no filter stops: so the kernel has these calls."""
    found = json.loads(succeeded(await guest_root(sandbox, TRIES)))
    same = {name for name in REFUSED if found[name] == REFUSED[name]}
    assert len(same) <= 14, same


async def test_every_process_has_the_floor_and_the_profile(sandbox: Sandbox) -> None:
    script = "for p in /proc/[0-9]*; do grep -h '^Seccomp_filters' $p/status; done"
    counts = [line.split()[1] for line in succeeded(await shell(sandbox, script)).splitlines()]
    # The first process has the filter of one that only waits, under which nothing can be done.
    assert counts[0] == "1" and set(counts[1:]) == {"2"}
    tried = await from_jail(
        sandbox,
        """
attempt("first", lambda: check(libc.ptrace(16, 1, None, None)))
pid = os.fork()
if pid == 0:
    libc.ptrace(0, 0, None, None)
    outcome = {}
    attempt("mount in a traced process", mount, "none", "/tmp", "tmpfs")
    os._exit(0 if outcome["mount in a traced process"] == "EPERM" else 1)
attempt("traced", lambda: check(os.waitpid(pid, 0)[1]))
""",
    )
    assert tried == {"first": "EPERM", "traced": "done"}


@pytest.mark.parametrize("tool", ALLOWED)
async def test_a_tool_runs_under_the_default_profile(sandbox: Sandbox, tool: str) -> None:
    program, script = ALLOWED[tool]
    if tool not in THERE:
        pytest.skip(f"{program} is not installed")
    inside = f"mkdir -p /tmp/{tool}; cp file /tmp/{tool}; cd /tmp/{tool}; set -e; {script}"
    done = await shell(sandbox, inside, timeout=100)
    assert "works" in succeeded(done)


async def test_no_profile_takes_the_floor_away(tmp_path: Path) -> None:
    profile = tmp_path / "all.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    folder = tmp_path / "project"
    folder.mkdir()
    async with sandbox_on(folder, {"run.seccomp": str(profile)}) as running:
        outcome = await from_jail(
            running,
            """
import fcntl, pty
attempt("vsock", socket.socket, 40, socket.SOCK_STREAM)
master, slave = pty.openpty()
attempt("typing", fcntl.ioctl, slave, 0x5412, b"x")
""",
        )
        refused(outcome, "EAFNOSUPPORT", "EPERM")
        assert len(outcome) == 2
        # It is what the profile says, and no other one's: this the default refuses.
        assert succeeded(await shell(running, "unshare -U true && echo made")) == "made\n"
