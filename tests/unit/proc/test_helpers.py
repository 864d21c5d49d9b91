"""Helper processes: what they get, how they end, and that they always do. Real ones, no machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from corral.errors import HostError, ProcessError
from corral.proc import Bounds, Helpers, process
from corral.proc.groups import Group
from corral.proc.process import ended_how
from tests.support.leftovers import descriptors, family, wait_until_gone
from tests.unit.proc.conftest import marked

AS_ROOT = os.getuid() == 0


def python(code: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code, *arguments)


async def said(helper: process.Process, word: str) -> None:
    """Wait until a helper's log has a word in it."""
    async with asyncio.timeout(10):
        while word not in helper.log.tail():  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def inheritable_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that every careless child would get, as one that corral's caller left open."""
    read, write = os.pipe()
    try:
        os.set_inheritable(read, True)
        os.set_inheritable(write, True)
        yield read, write
    finally:
        os.close(read)
        os.close(write)


# What a helper gets


async def test_a_helper_runs_and_its_status_and_last_words_are_there(helpers: Helpers) -> None:
    helper = await helpers.spawn("it", ("/bin/sh", "-c", "echo out; echo err >&2; exit 3"))
    assert await helper.exited == 3
    assert helper.log.tail().splitlines() == ["out", "err"]
    assert helper.explain() == "it ended with status 3"


async def test_its_environment_is_built_from_nothing(
    helpers: Helpers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    helper = await helpers.spawn("it", python(code))
    assert await helper.exited == 0
    expected = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    assert json.loads(helper.log.tail()) in (expected, {**expected, "LC_CTYPE": "C.UTF-8"})
    other = await helpers.spawn("it", ("/usr/bin/env",), environment={"A": "b"})
    assert await other.exited == 0
    assert other.log.tail() == "A=b"


async def test_it_gets_the_descriptors_it_is_given_and_no_other(bwrap: tuple[str, ...]) -> None:
    code = (
        "import os, sys\n"
        "seen = sorted(int(n) for n in os.listdir('/proc/self/fd'))\n"
        "print([fd for fd in seen if os.path.exists(f'/proc/self/fd/{fd}')])\n"
        "os.write(17, b'to 17'); print(os.read(0, 1) == b'', os.read(9, 100))\n"
    )
    with inheritable_pipe() as (read, write):
        os.write(write, b"from 9")
        async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None) as helpers:
            mine_read, mine_write = os.pipe()
            helper = await helpers.spawn("it", python(code), fds={17: mine_write, 9: read})
            os.close(mine_write)
            assert await helper.exited == 0, helper.log.tail()
            assert os.read(mine_read, 100) == b"to 17"
            os.close(mine_read)
    assert helper.log.tail().splitlines() == ["[0, 1, 2, 9, 17]", "True b'from 9'"]


async def test_descriptor_numbers_may_cross(helpers: Helpers) -> None:
    """Our 10 as its 11 and our 11 as its 10: none is overwritten before it is copied."""
    first, second = os.memfd_create("first"), os.memfd_create("second")
    os.write(first, b"first")
    os.write(second, b"second")
    code = f"import os; print(os.pread({first}, 9, 0), os.pread({second}, 9, 0))"
    helper = await helpers.spawn("it", python(code), fds={second: first, first: second})
    os.close(first)
    os.close(second)
    assert await helper.exited == 0
    assert helper.log.tail() == "b'second' b'first'"


async def test_the_warden_and_bubblewrap_hold_nothing_that_corral_inherited(
    bwrap: tuple[str, ...],
) -> None:
    with inheritable_pipe() as (read, _write):
        pipe = descriptors(os.getpid())[read]
        async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None):
            living = family()
            assert len(living) >= 2
            for each in living:
                held = descriptors(each.pid)
                assert pipe not in held.values(), each.cmdline()
                assert held[0] == os.devnull
                environment = each.environ()
                assert set(environment) <= {"PATH", "LANG", "LC_CTYPE", "PWD"}, environment


async def test_a_very_long_command_line_is_no_problem(helpers: Helpers) -> None:
    """A tree with thousands of hidden files; a packet to the warden holds far less."""
    words = [f"{n:0100}" for n in range(12_000)]
    helper = await helpers.spawn("it", python("import sys; print(len(sys.argv))", *words))
    assert await helper.exited == 0
    assert helper.log.tail() == "12001"


async def test_one_that_cannot_be_executed_is_an_error_that_names_it(helpers: Helpers) -> None:
    with pytest.raises(ProcessError, match=r"it was not started: /no/program: No such file"):
        await helpers.spawn("it", ("/no/program",))
    helper = await helpers.spawn("another", ("/bin/true",))
    assert await helper.exited == 0, "the warden goes on"


# How it ends


async def test_it_ends_by_term(helpers: Helpers) -> None:
    helper = await helpers.spawn("it", ("/bin/sleep", "1000"))
    assert await helper.end() == -signal.SIGTERM
    assert helper.explain() == "it was ended by SIGTERM"
    helper.signal(signal.SIGTERM)  # and nothing happens


async def test_one_that_does_not_mind_term_is_killed_after_a_grace(
    helpers: Helpers, sleeper: tuple[str, ...]
) -> None:
    helper = await helpers.spawn("it", sleeper)
    await said(helper, "up")
    assert await helper.end(grace=0.3) == -signal.SIGKILL
    assert helper.log.tail().splitlines() == ["up", "no"], "it was asked first"
    assert helper.killed


async def test_on_leaving_all_are_gone_also_those_that_hid(
    bwrap: tuple[str, ...], sleeper: tuple[str, ...], mark: str
) -> None:
    code = (
        "import os, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0: os.execv(sys.argv[1], sys.argv[1:])\n"
        "    os._exit(0)\n"
    )
    async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None) as helpers:
        first = await helpers.spawn("first", sleeper)
        await said(first, "up")
        second = await helpers.spawn("second", python(code, *sleeper))
        assert await second.exited == 0
        await said(second, "up")
        hidden = [p for p in marked(mark) if p.cmdline()[3:] == list(sleeper[3:])]
        assert len(hidden) == 2
    assert not marked(mark), "not even for a moment"
    assert await first.exited == -signal.SIGKILL
    assert not wait_until_gone(10)


class Recorded(Group):
    """A control group that is only written down."""

    def __init__(self, refuses: bool = False) -> None:
        super().__init__("/nowhere", "demo", (), ())
        self.did: list[object] = []
        self._refuses = refuses

    def make(self) -> None:
        self.did.append("make")

    def add(self, pid: int) -> None:
        if self._refuses:
            raise PermissionError(1, "Operation not permitted", "/nowhere/cgroup.procs")
        self.did.append(psutil.Process(pid).cmdline())

    def remove(self) -> None:
        self.did.append("remove")


async def test_the_warden_is_in_its_group_before_it_starts_anything(
    bwrap: tuple[str, ...],
) -> None:
    group = Recorded()
    bounds = Bounds(group=group)
    async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None, bounds=bounds):
        made, above, warden = group.did
        assert made == "make"
        assert isinstance(above, list) and above[0] == bwrap[0]
        assert isinstance(warden, list) and warden[-1].endswith("warden.py")
    assert group.did[3:] == ["remove"]


async def test_a_group_that_does_not_take_it_is_an_error_and_nothing_is_left(
    bwrap: tuple[str, ...],
) -> None:
    group = Recorded(refuses=True)
    with pytest.raises(HostError, match=r"limits cannot be enforced: /nowhere/cgroup\.procs"):
        async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None, bounds=Bounds(group=group)):
            pytest.fail("it started")
    assert group.did == ["make", "remove"]
    assert not wait_until_gone(10)


async def test_a_command_line_before_bubblewrap_keeps_what_the_warden_needs(
    bwrap: tuple[str, ...],
) -> None:
    bounds = Bounds(prefix=("/usr/bin/env", "MARK=1"), environment={"XDG_RUNTIME_DIR": "/run/x"})
    async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None, bounds=bounds) as helpers:
        process = await helpers.spawn("env", ("/usr/bin/env",))
        assert await process.exited == 0
        await asyncio.wait_for(process.log.ended.wait(), 5)
        assert "XDG_RUNTIME_DIR" not in process.log.tail(), "the warden's alone"


async def test_when_the_warden_is_killed_all_end_and_the_error_says_so(
    bwrap: tuple[str, ...], sleeper: tuple[str, ...], mark: str
) -> None:
    async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None) as helpers:
        helper = await helpers.spawn("it", sleeper)
        await said(helper, "up")
        (own,) = marked(mark)
        warden = own.parent()
        assert warden is not None and "warden.py" in " ".join(warden.cmdline())
        warden.kill()
        async with asyncio.timeout(5):
            assert await helper.exited == -signal.SIGKILL
        assert "the warden" in helper.explain()
        with pytest.raises(ProcessError, match="warden"):
            await helpers.spawn("another", ("/bin/true",))
    assert not wait_until_gone(10)


async def test_when_bubblewrap_is_killed_leaving_still_waits_for_all(
    bwrap: tuple[str, ...], sleeper: tuple[str, ...], mark: str
) -> None:
    before = psutil.Process().children()  # this process adopts orphans of earlier tests
    async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None) as helpers:
        helper = await helpers.spawn("it", sleeper)
        await said(helper, "up")
        (outer,) = set(psutil.Process().children()) - set(before)
        outer.kill()
        outer.wait(5)
        again = await helpers.spawn("another", ("/bin/true",))
        assert await again.exited == 0, "the helpers do not need it"
    assert not marked(mark)


async def test_a_stopped_warden_is_killed_after_a_while(
    bwrap: tuple[str, ...],
    sleeper: tuple[str, ...],
    mark: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_END_TIMEOUT", 0.3)
    async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None) as helpers:
        helper = await helpers.spawn("it", sleeper)
        await said(helper, "up")
        (own,) = marked(mark)
        warden = own.parent()
        assert warden is not None
        warden.send_signal(signal.SIGSTOP)
    assert not marked(mark)


async def test_a_cancelled_start_of_a_helper_harms_nobody(
    bwrap: tuple[str, ...], sleeper: tuple[str, ...], mark: str, recwarn: pytest.WarningsRecorder
) -> None:
    async with Helpers.start(bwrap, root=AS_ROOT, run_folder=None) as helpers:
        for argv in (sleeper, ("/no/program",)):
            task = asyncio.ensure_future(helpers.spawn("it", argv))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        helper = await helpers.spawn("another", ("/bin/true",))
        assert await helper.exited == 0
    assert not marked(mark)
    assert not recwarn.list


# When corral itself ends

CLIENT = """
import asyncio, os, signal, sys
from pathlib import Path
from corral.proc import Helpers

async def main():
    bwrap, folder, *sleeper = sys.argv[1:]
    async with Helpers.start((bwrap,), root=os.getuid() == 0, run_folder=Path(folder)) as helpers:
        helper = await helpers.spawn("it", sleeper)
        while "up" not in helper.log.tail():
            await asyncio.sleep(0.01)
        print("up", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "signals", [(signal.SIGKILL,), (signal.SIGSTOP, signal.SIGKILL)], ids=["killed", "stopped"]
)
@pytest.mark.parametrize("orphan", [False, True], ids=["bwrap", "bwrap killed, too"])
def test_whatever_ends_corral_its_helpers_and_run_folder_go(
    bwrap: tuple[str, ...],
    sleeper: tuple[str, ...],
    mark: str,
    tmp_path: Path,
    signals: tuple[signal.Signals, ...],
    orphan: bool,
) -> None:
    folder = tmp_path / "run"
    (folder / "sockets").mkdir(parents=True)
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, bwrap[0], str(folder), *sleeper],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None and client.stdout.readline() == "up\n"
    if orphan:
        psutil.Process(client.pid).children()[0].kill()
    for number in signals:
        client.send_signal(number)
    client.wait()
    client.stdout.close()
    assert not wait_until_gone(10)
    assert not folder.exists()


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15])
def test_killed_while_the_warden_comes_up_nothing_is_left(
    bwrap: tuple[str, ...],
    sleeper: tuple[str, ...],
    mark: str,
    tmp_path: Path,
    moment: float,
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    client = subprocess.Popen([sys.executable, "-c", CLIENT, bwrap[0], str(folder), *sleeper])
    child = psutil.Process(client.pid)
    while not child.children() and client.poll() is None:
        time.sleep(0.001)
    time.sleep(moment)
    client.kill()
    client.wait()
    assert not wait_until_gone(10)
    assert not folder.exists()


# When there can be no warden


async def test_without_bubblewrap_there_is_an_error_with_the_next_step() -> None:
    with pytest.raises(HostError, match="cannot start bubblewrap") as caught:
        async with Helpers.start(("/no/bwrap",), root=AS_ROOT, run_folder=None):
            pass
    assert caught.value.hint


async def test_what_bubblewrap_says_when_it_fails_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(HostError, match="namespaces") as caught:
        async with Helpers.start((str(broken),), root=AS_ROOT, run_folder=None):
            pass
    assert caught.value.detail == "No permissions to create new namespace"
    assert caught.value.hint and "doctor" in caught.value.hint


async def test_a_warden_that_never_comes_up_is_given_up(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_START_TIMEOUT", 0.3)
    monkeypatch.setattr(process, "_END_TIMEOUT", 0.3)
    stuck = tmp_path / "bwrap"
    stuck.write_text(f"#!/bin/sh\nexec sleep 1000 # {mark}\n")
    stuck.chmod(0o755)
    with pytest.raises(HostError, match="not up after"):
        async with Helpers.start((str(stuck),), root=AS_ROOT, run_folder=None):
            pass
    assert not marked(mark)


async def test_half_a_bubblewrap_is_found_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child waits for ever when the parent is killed at the wrong moment."""
    monkeypatch.setattr(process, "_START_TIMEOUT", 0.5)
    before = len(descriptors(os.getpid()))
    halved = tmp_path / "bwrap"
    halved.write_text("#!/bin/sh\nsleep 1000 &\nkill -KILL $$\n")
    halved.chmod(0o755)
    with pytest.raises(HostError, match="not up after"):
        async with Helpers.start((str(halved),), root=AS_ROOT, run_folder=None):
            pass
    assert not family(), "not even for a moment"
    assert len(descriptors(os.getpid())) == before, "no descriptor is lost over it"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with status 0"),
        (1, "ended with status 1"),
        (-9, "was ended by SIGKILL"),
        (137, "was ended by SIGKILL"),
        (255, "ended with status 255"),
        (-36, "ended with status -36"),
    ],
)
def test_a_status_in_words(status: int, words: str) -> None:
    assert ended_how(status) == words
