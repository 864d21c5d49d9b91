"""The guest's side of the channel, run on the host in a thread, with a jail that is a socket.

The jail is what an agent has taken over: whatever it says, the supervisor goes on serving.
"""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from corral.channel import Channel, Stream, serial_pair
from corral.errors import GuestError, StreamResetError
from corral_guest import freezer, groups, wire
from corral_guest.agent import MAX_REPLY, MAX_REQUEST, Agent
from corral_guest.groups import Groups
from corral_guest.loop import Loop
from corral_guest.supervisor import Supervisor


class Guest:
    """A supervisor with agent 1, whose jail is in the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.port, theirs = serial_pair()
        theirs.setblocking(False)
        self._theirs = theirs
        self.loop = Loop()
        self.supervisor = Supervisor(theirs.fileno(), self.loop)
        self.agent = Agent({"number": 1, "uid": os.getuid()}, self.loop)
        self.agent.cgroup = str(folder)
        self.agent.groups = Groups(self.loop, str(folder))
        self.agent.socket, self.jail = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.agent.socket.setblocking(False)
        self.jail.settimeout(20)
        self.supervisor.jails.adopt(self.agent)
        self.agent.vitals.told = "starting"
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.loop.run(self.supervisor.flush)
        except BaseException as fault:
            self.fault = fault
            self._theirs.close()

    def stop(self) -> None:
        """The host hangs up, which ends the loop."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._theirs.close()
        self.jail.close()
        assert self.fault is None

    async def asked(self) -> tuple[dict[str, Any], list[int]]:
        """What the jail is asked for next, with the descriptors of streams that come along."""
        fds = array.array("i")
        data, ancillary, _flags, _address = await asyncio.to_thread(
            self.jail.recvmsg, 1 << 20, socket.CMSG_SPACE(32)
        )
        for _level, _kind, payload in ancillary:
            fds.frombytes(payload)
        message = json.loads(data)
        if message.get("op") == "exec":
            os.close(fds.pop(0))  # its control group
        return message, list(fds)

    def say(self, message: object, fds: list[int] | None = None) -> None:
        """The jail speaks."""
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.jail.sendmsg([raw], rights)


class Host:
    """The host's end: a channel, and what the guest told it of commands that ended."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.exits: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        channel.handle("exited", self.exits.put_nowait)
        self.states: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        channel.handle("agent", self.states.put_nowait)

    async def call(self, method: str, **params: object) -> object:
        return await self.channel.call(method, params, timeout=20)

    async def exec(
        self, number: int, *, terminal: list[int] | None = None, agent: int = 1, **changes: object
    ) -> tuple[asyncio.Task[object], dict[str, Stream]]:
        """Ask for a command; the answer comes when the jail has started it."""
        names = ("stdin", "stdout") if terminal else ("stdin", "stdout", "stderr")
        streams = {name: self.channel.open_stream() for name in names}
        params: dict[str, object] = {
            **{"exec": number, "agent": agent, "argv": ["tool"], "env": {"A": "b"}, "cwd": "/"},
            **{"terminal": terminal, "streams": {n: s.id for n, s in streams.items()}},
            **changes,
        }
        task = asyncio.create_task(self.channel.call("exec", params, timeout=20))
        await asyncio.sleep(0)
        return task, streams


@pytest.fixture
async def both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Guest, Host]]:
    # Folders in place of control groups: empty at once, and gone when they are removed.
    def make(path: str) -> None:
        Path(path).mkdir()
        for name in ("cgroup.procs", "cgroup.kill"):
            Path(path, name).touch()

    def removed(path: str) -> bool:
        if Path(path, "cgroup.kill").read_text() and Path(path).exists():
            Path(path).rename(f"{path}.killed")
        else:
            shutil.rmtree(path)
        return True

    monkeypatch.setattr(groups, "_make", make)
    monkeypatch.setattr(groups, "_removed", removed)
    own = tmp_path / "cgroup"
    make(str(own))
    guest = Guest(own)
    async with await Channel.start(guest.port) as channel:
        yield guest, Host(channel)
    await asyncio.to_thread(guest.stop)


Both = tuple[Guest, Host]


async def test_a_commands_streams_and_status_pass(both: Both) -> None:
    guest, host = both
    task, streams = await host.exec(7, argv=["tool", "caf\u00c3\u00a9"])
    request, (stdin, stdout, stderr) = await guest.asked()
    assert request["argv"] == ["tool", "café"]  # bytes travel one character a byte
    assert (request["env"], request["cwd"], request["terminal"]) == ({"A": "b"}, "/", None)
    guest.say({"op": "started", "id": request["id"]})
    assert await task == {}
    await streams["stdin"].write(b"in")
    await streams["stdin"].end()
    assert await asyncio.to_thread(os.read, stdin, 10) == b"in"
    assert await asyncio.to_thread(os.read, stdin, 10) == b""
    os.write(stdout, b"out")
    os.write(stderr, b"err")
    for fd in (stdin, stdout, stderr):
        os.close(fd)
    guest.say({"op": "exited", "id": request["id"], "status": 3})
    assert await streams["stdout"].read() == b"out"
    assert await streams["stderr"].read() == b"err"
    assert await streams["stdout"].read() == b""
    assert await host.exits.get() == {"exec": 7, "status": 3}


async def test_a_terminal_has_one_stream_out_and_can_be_resized(both: Both) -> None:
    guest, host = both
    task, streams = await host.exec(1, terminal=[24, 80])
    request, fds = await guest.asked()
    assert (request["terminal"], fds) == ([24, 80], [])
    master, slave = os.openpty()
    guest.say({"op": "started", "id": 1}, [master])
    os.close(master)
    await task
    os.write(slave, b"hello")
    assert await streams["stdout"].read() == b"hello"
    await host.call("resize", exec=1, rows=50, columns=132)
    assert os.get_terminal_size(slave) == (132, 50)
    os.close(slave)
    guest.say({"op": "exited", "id": 1, "status": 0})
    assert await host.exits.get() == {"exec": 1, "status": 0}


async def test_signals_are_handed_on_to_the_jail(both: Both) -> None:
    guest, host = both
    task, _streams = await host.exec(1)
    _request, fds = await guest.asked()
    guest.say({"op": "started", "id": 1})
    await task
    await host.call("signal", exec=1, signal=15, group=True)
    assert (await guest.asked())[0] == {"op": "signal", "id": 1, "signal": 15, "group": True}
    await host.call("signal", exec=99, signal=9, group=False)  # long gone: no error
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("what", ["program", "interpreter", "workdir"])
async def test_why_a_command_did_not_start_is_told(both: Both, what: str) -> None:
    guest, host = both
    task, streams = await host.exec(1)
    _request, fds = await guest.asked()
    guest.say({"op": "failed", "id": 1, "errno": 2, "what": what, "interpreter": "/bin/x"})
    with pytest.raises(GuestError) as caught:
        await task
    assert caught.value.data == {"errno": 2, "what": what, "interpreter": "/bin/x"}
    with pytest.raises(StreamResetError):
        await streams["stdout"].read()
    for fd in fds:
        os.close(fd)


async def test_a_method_that_is_none_and_wrong_parameters_are_answered_with_errors(
    both: Both,
) -> None:
    _guest, host = both
    calls: list[tuple[str, dict[str, object]]] = [
        ("no-such", {}),
        ("exec", {}),
        ("exec", {"agent": 9, "exec": 1, "terminal": None, "streams": {}}),
        ("signal", {}),
        ("resize", {"exec": 1}),
    ]
    for method, params in calls:
        with pytest.raises(GuestError):
            await host.call(method, **params)
    assert await host.call("sync") == {}


# What an agent could have its jail's first process say

HOSTILE: list[object] = [
    {"op": "up"},
    {"op": "started", "id": 1},
    {"op": "exited", "id": 1, "status": 0},
    {"op": "exited", "id": 99, "status": 0},
    {"op": "exited"},
    {"op": None, "id": 1},
    {"op": ["exited"], "id": 1},
    {"id": 1},
    {"op": "exited", "id": True},
    {"op": "exited", "id": "1"},
    {"op": "failed", "id": 1, "errno": 2},
    {},
]


@pytest.mark.parametrize("message", HOSTILE, ids=json.dumps)
async def test_messages_out_of_place_change_nothing(both: Both, message: object) -> None:
    """Said of no command that runs: nothing is told to the host."""
    guest, host = both
    guest.say(message)
    assert await host.call("sync") == {}
    assert host.exits.empty()


@pytest.mark.parametrize("status", [-1, 256, 1 << 70, "0", None, True, [0], 0.5])
async def test_a_status_that_is_none_is_255(both: Both, status: object) -> None:
    guest, host = both
    task, _streams = await host.exec(1)
    _request, fds = await guest.asked()
    guest.say({"op": "started", "id": 1})
    await task
    guest.say({"op": "exited", "id": 1, "status": status})
    assert await host.exits.get() == {"exec": 1, "status": 255}
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    "reason",
    [
        {"errno": -5, "what": "x" * 1000, "interpreter": "y" * 3000},
        {"errno": "2", "what": ["program"], "interpreter": {}},
        {"errno": 1 << 40, "what": None, "interpreter": 3},
        {"errno": True},
        {},
    ],
    ids=json.dumps,
)
async def test_a_reason_that_makes_no_sense_is_left_out(
    both: Both, reason: dict[str, object]
) -> None:
    guest, host = both
    task, _streams = await host.exec(1)
    _request, fds = await guest.asked()
    guest.say({"op": "failed", "id": 1, **reason})
    with pytest.raises(GuestError) as caught:
        await task
    assert caught.value.data == {"errno": 0, "what": ""}
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    "noise",
    [
        b"not json",
        b"[]",
        b"1",
        b"\xff\xfe",
        b"[" * (MAX_REPLY - 1),
        b'{"op": "' + b"x" * (2 * MAX_REPLY) + b'"}',
    ],
    ids=["text", "array", "number", "bytes", "deep", "long"],
)
async def test_noise_ends_the_jail_and_its_commands_but_not_the_machine(
    both: Both, noise: bytes
) -> None:
    guest, host = both
    task, _streams = await host.exec(1)
    _request, fds = await guest.asked()
    guest.say({"op": "started", "id": 1})
    await task
    guest.say(noise)
    assert await host.exits.get() == {"exec": 1, "status": 137}
    with pytest.raises(GuestError, match="the jail has ended"):
        await (await host.exec(2))[0]
    assert await host.call("kill", agent=1) == {}
    for fd in fds:
        os.close(fd)


async def test_a_jail_that_ends_while_a_command_starts_is_an_error_of_that_command(
    both: Both,
) -> None:
    guest, host = both
    task, _streams = await host.exec(1)
    _request, fds = await guest.asked()
    guest.jail.close()
    with pytest.raises(GuestError, match="the jail has ended"):
        await task
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("terminal", [None, [24, 80]])
async def test_descriptors_that_nobody_asked_for_are_refused_and_closed(
    both: Both, terminal: list[int] | None
) -> None:
    """Neither a pipe's end for a command without a terminal, nor a file in place of a terminal."""
    guest, host = both
    task, _streams = await host.exec(1, terminal=terminal)
    _request, fds = await guest.asked()
    read, write = os.pipe()
    guest.say({"op": "started", "id": 1}, [read])
    os.close(read)
    with pytest.raises(GuestError):
        await task
    with pytest.raises(BrokenPipeError):  # the supervisor holds no other end of it
        os.write(write, b"x")
    os.close(write)
    for fd in fds:
        os.close(fd)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_descriptors_sent_without_end_are_closed(both: Both) -> None:
    guest, host = both
    before = open_descriptors()
    null = os.open("/dev/null", os.O_RDONLY)
    for _ in range(200):
        guest.say({"op": "up"}, [null] * 8)
        await host.call("sync")
    os.close(null)
    assert open_descriptors() <= before + 2


async def test_a_command_that_runs_cannot_be_started_again(both: Both) -> None:
    guest, host = both
    task, _streams = await host.exec(1)
    _request, fds = await guest.asked()
    for _ in range(2):
        guest.say({"op": "started", "id": 1})
    await task
    guest.say({"op": "failed", "id": 1, "errno": 2})
    assert await host.call("sync") == {}
    guest.say({"op": "exited", "id": 1, "status": 0})
    for fd in fds:
        os.close(fd)
    assert await host.exits.get() == {"exec": 1, "status": 0}


async def test_a_long_command_line_travels_in_a_memory_file(both: Both) -> None:
    guest, host = both
    task, _streams = await host.exec(1, argv=["tool", "x" * (2 * MAX_REQUEST)])
    request, (memory, _group, *fds) = await guest.asked()
    assert request == {}
    sent = json.loads(os.pread(memory, 4 * MAX_REQUEST, 0))
    assert sent["argv"][1] == "x" * (2 * MAX_REQUEST)
    os.close(memory)
    guest.say({"op": "failed", "id": 1, "errno": 7, "what": "program"})
    with pytest.raises(GuestError, match="Argument list too long"):
        await task
    for fd in fds:
        os.close(fd)


async def test_the_guest_knows_the_protocols_version(both: Both) -> None:
    guest, host = both
    told: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    host.channel.handle("ready", told.put_nowait)
    guest.supervisor.tell("ready", {"version": wire.VERSION})
    await host.call("sync")
    assert await told.get() == {"version": wire.VERSION}


# Being saved


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to control groups and to the clock, which are the host's here."""
    done: list[str] = []
    monkeypatch.setattr(freezer, "freeze", lambda groups: done.append(f"freeze {groups}"))
    monkeypatch.setattr(freezer, "thaw", lambda groups: done.append(f"thaw {groups}"))
    monkeypatch.setattr("time.clock_settime_ns", lambda _clock, now: done.append(f"time {now}"))
    monkeypatch.setattr("os.sync", lambda: done.append("sync"))
    return done


async def test_a_frozen_guest_is_silent_until_it_thaws(both: Both, frozen: list[str]) -> None:
    guest, host = both
    task, streams = await host.exec(1)
    _request, (stdin, stdout, stderr) = await guest.asked()
    guest.say({"op": "started", "id": 1})
    await task
    await host.channel.suspend("freeze", 20)
    assert frozen == [f"freeze ['{guest.agent.cgroup}']", "sync"]
    os.write(stdout, b"said while frozen")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.create_task(streams["stdout"].read())), 0.2)
    host.channel.resume()
    await host.call("thaw", clock=123)
    assert frozen[2:] == ["time 123", f"thaw ['{guest.agent.cgroup}']"]
    for fd in (stdin, stdout, stderr):
        os.close(fd)
    guest.say({"op": "exited", "id": 1, "status": 0})
    assert await host.exits.get() == {"exec": 1, "status": 0}


async def test_the_host_of_a_copy_begins_anew_and_commands_notice_nothing(
    both: Both, frozen: list[str]
) -> None:
    guest, host = both
    task, _streams = await host.exec(41)
    _request, (stdin, stdout, stderr) = await guest.asked()
    guest.say({"op": "started", "id": 41})
    await task
    await host.channel.suspend("freeze", 20)
    asyncio.get_running_loop().remove_reader(guest.port)  # this host is heard no more
    async with await Channel.start(guest.port.dup()) as channel:
        other = Host(channel)
        assert await other.call("attach") == {"next": 42}
        await other.call("thaw", clock=1)
        # More than any window or pipe holds: nobody reads it, and still it can be written.
        await asyncio.to_thread(write_much, stdout, 4 * wire.WINDOW)
        task, streams = await other.exec(42)
        _request, theirs = await guest.asked()
        guest.say({"op": "started", "id": 42})
        await task
        os.write(theirs[1], b"heard")
        assert await streams["stdout"].read() == b"heard"
        guest.say({"op": "exited", "id": 41, "status": 0})
        guest.say({"op": "exited", "id": 42, "status": 7})
        for fd in (stdin, stdout, stderr, *theirs):
            os.close(fd)
        assert await other.exits.get() == {"exec": 42, "status": 7}, "and not of the other host's"
        guest.loop.stop()


def write_much(fd: int, size: int) -> None:
    while size > 0:
        size -= os.write(fd, bytes(min(size, 1 << 16)))


# Ending a command with all that it has started


async def _begun(guest: Guest, host: Host, number: int) -> dict[str, Stream]:
    """A command that runs, its descriptors closed."""
    task, streams = await host.exec(number)
    _request, fds = await guest.asked()
    guest.say({"op": "started", "id": number})
    await task
    for fd in fds:
        os.close(fd)
    return streams


def _was_killed(folder: Path, number: int) -> bool:
    return (folder / f"cgroup/exec-{number}.killed").exists()


def _groups(folder: Path) -> list[str]:
    return sorted(each.name for each in (folder / "cgroup").iterdir() if each.is_dir())


async def test_a_commands_control_group_is_removed_with_it(both: Both, tmp_path: Path) -> None:
    guest, host = both
    await _begun(guest, host, 5)
    assert _groups(tmp_path) == ["exec-5"]
    guest.say({"op": "exited", "id": 5, "status": 0})
    await host.exits.get()
    assert _groups(tmp_path) == []


async def test_the_end_of_a_command_kills_its_control_group(both: Both, tmp_path: Path) -> None:
    guest, host = both
    await _begun(guest, host, 5)
    assert await host.call("end", exec=5) == {}
    assert _was_killed(tmp_path, 5)
    assert await host.call("end", exec=5) == {}  # again: nothing is left
    assert await host.call("end", exec=99) == {}
    guest.say({"op": "exited", "id": 5, "status": 137})
    assert await host.exits.get() == {"exec": 5, "status": 137}


async def test_a_command_that_is_still_starting_is_ended_when_it_has(
    both: Both, tmp_path: Path
) -> None:
    """Before that, the process that starts it may be in the group itself."""
    guest, host = both
    task, _streams = await host.exec(5)
    _request, fds = await guest.asked()
    end = asyncio.create_task(host.call("end", exec=5))
    await host.call("signal", exec=99, signal=9, group=False)  # the guest has heard of `end`
    assert not _was_killed(tmp_path, 5)
    guest.say({"op": "started", "id": 5})
    await task
    assert await end == {}
    assert _was_killed(tmp_path, 5)
    for fd in fds:
        os.close(fd)


async def test_a_command_that_did_not_start_leaves_no_control_group(
    both: Both, tmp_path: Path
) -> None:
    guest, host = both
    task, _streams = await host.exec(5)
    _request, fds = await guest.asked()
    end = asyncio.create_task(host.call("end", exec=5))
    await host.call("signal", exec=99, signal=9, group=False)
    guest.say({"op": "failed", "id": 5, "errno": 2, "what": "program"})
    with pytest.raises(GuestError):
        await task
    assert await end == {}
    assert _groups(tmp_path) == []
    for fd in fds:
        os.close(fd)


async def test_too_many_commands_that_left_something_behind_are_refused(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, host = both
    monkeypatch.setattr(groups, "MAX_GROUPS", 1)
    await _begun(guest, host, 5)
    task, _streams = await host.exec(6)
    with pytest.raises(GuestError) as caught:
        await task
    assert caught.value.data["errno"] == errno.EAGAIN


# States


async def test_the_host_is_told_of_states_and_hears_all_when_it_asks(both: Both) -> None:
    guest, host = both
    guest.agent.vitals.up = True
    await _begun(guest, host, 5)
    assert await host.states.get() == {"number": 1, "state": "working", "reason": ""}
    answer = await host.call("agents")
    assert isinstance(answer, dict)
    (row,) = answer["agents"]
    assert (row["number"], row["state"], row["commands"]) == (1, "working", 1)
    guest.say({"op": "exited", "id": 5, "status": 0})
    assert await host.states.get() == {"number": 1, "state": "idle", "reason": ""}
    guest.jail.close()
    assert await host.states.get() == {
        "number": 1,
        "state": "dead",
        "reason": "its jail has ended",
    }
    answer = await host.call("agents")
    assert isinstance(answer, dict)
    assert [row["state"] for row in answer["agents"]] == ["dead"]


async def test_what_a_jail_says_of_itself_makes_no_state(both: Both) -> None:
    """However much it says: only the host's commands, silence and an end change its state."""
    guest, host = both
    guest.agent.vitals.up = True
    guest.agent.vitals.told = "idle"
    noise: list[object] = [
        {"op": "pong"},
        {"op": "agent", "state": "dead"},
        {"op": "exited", "id": 5, "status": 0},
        {"op": "started", "id": 5},
    ]
    for message in noise * 20:
        await asyncio.to_thread(guest.say, message)
    await _begun(guest, host, 5)
    assert (await host.states.get())["state"] == "working"
    assert host.states.empty()


@pytest.mark.parametrize("number", [0, -1, 1 << 31, 1 << 70, True, "2", None])
async def test_a_jail_that_is_lost_for_no_reason_that_there_is_ends_alone(
    both: Both, number: object
) -> None:
    guest, host = both
    guest.say({"op": "lost", "errno": number})
    guest.jail.close()
    assert (await host.states.get())["reason"] == "its jail has ended"
    assert await host.call("sync") == {}
