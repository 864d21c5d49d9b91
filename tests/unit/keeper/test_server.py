"""Clients of a keeper: what they ask for is done, and none of them harms it or another one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.errors import (
    ChannelError,
    CommandNotFoundError,
    CorralError,
    ExecError,
    PortError,
    SandboxError,
    SandboxGoneError,
    SandboxStateError,
    StreamResetError,
)
from corral.events import Connection, Notice
from corral.keeper import client, door, peer, server
from corral.keeper.client import connect
from corral.keeper.model import Problem, State
from corral.keeper.store import Record
from corral.policy import Publish
from corral.sandbox import Execution
from corral.sandbox.gateway import gateway_folder
from corral_guest import wire

from .conftest import Kept, Program, read_all


async def cat(program: Program) -> int:
    program.stderr._data += b"begun"
    while data := await program.stdin.read():
        await program.stdout.write(data)
    return 7


async def idle(program: Program) -> int:
    number, _group = await program.signals.get()
    return 128 + number


async def flood(program: Program) -> int:
    with contextlib.suppress(StreamResetError):
        while True:
            await program.stdout.write(b"x" * 65536)
    return 141


async def true(_program: Program) -> int:
    return 0


# Commands


async def test_bytes_go_both_ways_and_the_status_comes_back(kept: Kept) -> None:
    kept.box.scripts["cat"] = cat
    async with connect(kept.name) as box:
        execution = await box.exec(["cat", "-"])
        await execution.stdin.write(b"hello")
        await execution.stdin.end()
        assert await read_all(execution.stdout) == b"hello"
        assert await read_all(execution.stderr) == b"begun"
        assert await execution.wait() == 7


async def test_every_argument_of_exec_arrives(kept: Kept) -> None:
    kept.box.scripts["b\udcff"] = true
    async with connect(kept.name) as box:
        execution = await box.exec(
            ["b\udcff", "ä"],
            environment={"RAW": "\udc80"},
            workdir="/w\udcfe",
            terminal=(24, 80),
            agent=3,
            builtin=True,
        )
        assert execution.stderr is None
        assert await execution.wait() == 0
    program = kept.box.programs[0]
    assert program.argv == ["b\udcff", "ä"]
    assert program.options == {
        "environment": {"RAW": "\udc80"},
        "workdir": "/w\udcfe",
        "terminal": (24, 80),
        "agent": 3,
        "builtin": True,
    }


async def test_what_is_not_said_is_the_sandboxs_default(kept: Kept) -> None:
    kept.box.scripts["true"] = true
    async with connect(kept.name) as box:
        await (await box.exec(["true"])).wait()
    assert kept.box.programs[0].options == {
        "environment": {},
        "workdir": None,
        "terminal": None,
        "agent": 1,
    }


async def test_an_error_arrives_as_itself(kept: Kept) -> None:
    async with connect(kept.name) as box:
        with pytest.raises(CommandNotFoundError) as caught:
            await box.exec(["nosuch"])
    assert (caught.value.message, caught.value.hint) == ("nosuch: not found.", "Look elsewhere.")


async def test_too_long_a_command_line_is_refused_and_the_next_one_is_not(kept: Kept) -> None:
    kept.box.scripts["true"] = true
    async with connect(kept.name) as box:
        with pytest.raises(ExecError, match="too long"):
            await box.exec(["true", "x" * (2 << 20)])
        assert await (await box.exec(["true"])).wait() == 0


async def test_signals_and_sizes_arrive(kept: Kept) -> None:
    kept.box.scripts["idle"] = idle
    async with connect(kept.name) as box:
        execution = await box.exec(["idle"], terminal=(24, 80))
        await execution.resize(50, 100)
        await execution.signal(signal.SIGUSR1)
        assert await execution.wait() == 128 + signal.SIGUSR1
        await execution.signal(signal.SIGTERM)  # it has ended: nothing
    assert kept.box.programs[0].sizes == [(50, 100)]


@pytest.mark.parametrize("number", [0, -1, 65, 1 << 40])
async def test_a_signal_that_is_none_is_refused(kept: Kept, number: int) -> None:
    kept.box.scripts["idle"] = idle
    async with connect(kept.name) as box:
        execution = await box.exec(["idle"])
        with pytest.raises(CorralError, match="no signal"):
            await execution.signal(number)
        await execution.signal(signal.SIGTERM)
        assert await execution.wait() == 143


async def test_many_at_once_of_many_clients_keep_order_and_lose_nothing(kept: Kept) -> None:
    kept.box.scripts["cat"] = cat
    sent = b"".join(b"%06d\n" % number for number in range(60_000))

    async def one() -> None:
        async with connect(kept.name) as box:

            async def run() -> None:
                execution = await box.exec(["cat"])

                async def feed() -> None:
                    await execution.stdin.write(sent)
                    await execution.stdin.end()

                _none, heard, status = await asyncio.gather(
                    feed(), read_all(execution.stdout), execution.wait()
                )
                assert (heard, status) == (sent, 7)

            await asyncio.gather(*(run() for _ in range(4)))

    await asyncio.gather(*(one() for _ in range(4)))
    assert not kept.keeper.running


async def test_a_client_that_does_not_read_stalls_only_its_own_command(kept: Kept) -> None:
    kept.box.scripts |= {"flood": flood, "cat": cat}
    async with connect(kept.name) as slow, connect(kept.name) as quick:
        execution = await slow.exec(["flood"])
        await until(lambda: kept.box.programs[0].stdout.waiting == wire.WINDOW)
        for _ in range(3):
            other = await quick.exec(["cat"])
            await other.stdin.write(b"y" * 100_000)
            await other.stdin.end()
            assert await read_all(other.stdout) == b"y" * 100_000
        # It goes on where it was, and the same client's next command is not stalled by this one.
        assert await execution.stdout.read(10) == b"x" * 10
        third = await slow.exec(["cat"])
        await third.stdin.end()
        assert await third.wait() == 7


async def test_who_reads_no_more_closes_the_commands_pipe(kept: Kept) -> None:
    kept.box.scripts["flood"] = flood
    async with connect(kept.name) as box:
        execution = await box.exec(["flood"])
        await execution.stdout.read()
        execution.stdout.reset("enough")
        assert await execution.wait() == 141


async def test_a_client_that_dies_hangs_up_on_its_commands_and_nobody_elses(kept: Kept) -> None:
    kept.box.scripts |= {"idle": idle, "cat": cat, "flood": flood}
    async with connect(kept.name) as other:
        stays = await other.exec(["cat"])
        with raw(kept.folder) as dying:
            loop = asyncio.get_running_loop()
            for number, name in enumerate(("idle", "flood", "cat")):
                numbers = {
                    each: 6 * number + at
                    for each, at in (("stdin", 2), ("stdout", 4), ("stderr", 6))
                }
                call = {**EXEC, "exec": number + 1, "argv": [name], "streams": numbers}
                await loop.sock_sendall(
                    dying, (b"" if number else HELLO) + asking("exec", call, number + 2)
                )
            await until(lambda: len(kept.keeper.running) == 4)
        await until(lambda: len(kept.keeper.running) == 1)
        assert [each.argv for each in kept.keeper.running.values()] == [("cat",)]
        await stays.stdin.end()
        assert await stays.wait() == 7
    _stays, idling, flooding, reading = kept.box.programs
    assert idling.signals.empty(), "it had its SIGHUP, and ended by it"
    assert flooding.stdout.reset_with is not None
    assert reading.stdin.reset_with is not None


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what other tasks do."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - any condition at all
            await asyncio.sleep(0.005)


# State


async def test_while_paused_commands_are_refused_and_resume_goes_on(kept: Kept) -> None:
    kept.box.scripts["true"] = true
    async with connect(kept.name) as box:
        await box.pause()
        await box.pause()  # it is already
        with pytest.raises(SandboxStateError, match="is paused"):
            await box.exec(["true"])
        async with connect(kept.name) as other:
            assert other.hello.state == "paused"
            await other.resume()
            await other.resume()
        assert await (await box.exec(["true"])).wait() == 0
    assert kept.box.calls == ["pause", "resume"]


@pytest.mark.parametrize("asked", [False, True], ids=["by stop", "by resume and by stop"])
async def test_a_guest_that_does_not_go_on_cannot_keep_it_from_ending(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setattr("corral.keeper.keeper._RESUME_TIME", 0.05)
    monkeypatch.setattr(kept.box, "resume", asyncio.Event().wait)
    async with connect(kept.name) as box, connect(kept.name) as other:
        await box.pause()
        if asked:
            resuming = asyncio.create_task(other.resume())
            await asyncio.sleep(0.05)
        await box.stop(0)
        async with asyncio.timeout(5):
            await kept.stopped()
        if asked:
            with pytest.raises(SandboxGoneError):
                await resuming


async def test_stop_tells_commands_first_then_everybody(kept: Kept) -> None:
    async def polite(program: Program) -> int:
        number, group = await program.signals.get()
        assert (number, group) == (signal.SIGTERM, True)
        await program.stdout.write(b"bye")
        return 0

    kept.box.scripts |= {"polite": polite}
    life = asyncio.ensure_future(kept.stopped())
    async with connect(kept.name) as box:
        execution = await box.exec(["polite"])
        await box.stop(5)
        assert await read_all(execution.stdout) == b"bye"
        assert await execution.wait() == 0
        assert (await box.reason()).message == "it was stopped."  # type: ignore[union-attr]
    await life


async def test_a_command_that_ignores_term_is_not_waited_for_for_ever(kept: Kept) -> None:
    async def stubborn(_program: Program) -> int:
        await asyncio.Event().wait()
        return 0

    kept.box.scripts["stubborn"] = stubborn
    life = asyncio.ensure_future(kept.stopped())
    with pytest.raises(SandboxGoneError, match="it was stopped"):
        async with connect(kept.name) as box:
            execution = await box.exec(["stubborn"])
            await box.stop(0.05)
            await execution.wait()
    await life


async def test_no_command_is_begun_while_it_stops(kept: Kept) -> None:
    kept.box.scripts |= {"idle": idle}
    kept.keeper.become("stopping")
    async with connect(kept.name) as box:
        with pytest.raises(SandboxStateError, match="is stopping"):
            await box.exec(["idle"])


async def test_a_sandbox_that_ends_by_itself_tells_why(kept: Kept) -> None:
    kept.box.scripts["idle"] = idle

    async def end() -> None:
        kept.box.gone.set()
        kept.box.programs[0].stdout.fail(SandboxGoneError("the machine is gone."))
        kept.box.programs[0].stderr.fail(SandboxGoneError("the machine is gone."))
        await asyncio.sleep(0.05)
        problem = Problem(
            kind="SandboxGoneError", message="the guest's kernel panicked.", detail="Oops"
        )
        await kept.server.dismiss(problem)

    with pytest.raises(SandboxGoneError, match="panicked") as caught:
        async with connect(kept.name) as box:
            execution = await box.exec(["idle"])
            task = asyncio.ensure_future(end())
            await read_all(execution.stdout)
    assert caught.value.detail == "Oops"
    await task


async def test_a_keeper_that_is_gone_without_a_word_is_said_to_be(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept.box.scripts["idle"] = idle
    with pytest.raises(SandboxGoneError, match=r"was killed while the sandbox was running"):
        async with connect(kept.name) as box:
            execution = await box.exec(["idle"])
            monkeypatch.setattr(Record, "is_kept", lambda _self: False)
            for each in list(kept.server._peers):
                await each._channel.aclose()
            await execution.wait()


async def test_a_client_that_is_cut_off_alone_is_told_so_and_can_end(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper lives on and holds its lock: nothing may wait for that, above all no thread."""
    monkeypatch.setattr(client, "_LEAVING", 0.05)
    kept.box.scripts["idle"] = idle
    before = threading.active_count()
    with pytest.raises(ChannelError, match=r"cut off .* the sandbox runs on"):
        async with asyncio.timeout(3), connect(kept.name) as box:
            execution = await box.exec(["idle"])
            for each in list(kept.server._peers):
                await each._channel.aclose()
            await execution.wait()
    assert threading.active_count() == before
    await still_well(kept)


async def test_another_version_of_corral_is_told_so(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "VERSION", 99)
    with pytest.raises(SandboxStateError, match="another version"):
        async with connect(kept.name):
            pass


# Logs


async def test_a_log_is_followed_from_its_beginning_to_the_end(kept: Kept) -> None:
    kept.keeper.journals["console"].write(b"early\n")
    async with connect(kept.name) as box:
        stream = await box.follow("console")
        assert await stream.read() == b"early\n"
        kept.keeper.journals["console"].write(b"late\n")
        assert await stream.read() == b"late\n"
        kept.keeper.journals["console"].close()
        assert await stream.read() == b""


async def test_what_runs_and_what_it_uses_is_told(kept: Kept) -> None:
    kept.box.scripts["idle"] = idle
    async with connect(kept.name) as box:
        await box.exec(["idle", "\x1b[31m", "x" * 500])
        (command,) = (await box.inspect())["commands"]
        assert command["argv"] == ["idle", "\\x1b[31m", "x" * 200]
        stats = await box.stats()
        assert stats["state"] == "running"
        assert stats["usage"]["memory"] > 1 << 20


async def test_agents_come_with_what_they_do_and_what_they_spent(kept: Kept) -> None:
    folder = gateway_folder(kept.keeper.name)
    spent = {"requests": 2, "input": 10, "output": 5, "usd": 0.25}
    account = {"gateways": {"anthropic": {"1": spent}, "openai": {"1": spent}}}
    (folder / "spent.json").write_text(json.dumps(account))
    kept.keeper.task_of = {2: "analyze"}.get
    async with connect(kept.name) as box:
        first, second = await box.agent_rows()
        assert (first.status.state, first.status.pids, first.task) == ("working", 4, None)
        assert (first.spent.requests, first.spent.output, first.spent.usd) == (4, 10, 0.5)
        assert (second.status.reason, second.task) == ("it had no memory left", "analyze")
        assert second.spent.requests == 0
        assert [each.number for each in await box.agents()] == [1, 2]
    (folder / "spent.json").write_text("[")
    async with connect(kept.name) as box:
        assert (await box.agent_rows())[0].spent.requests == 0


async def test_a_command_can_be_ended_also_when_it_has_ended_itself(kept: Kept) -> None:
    kept.box.scripts = {"true": true, "idle": idle}
    async with connect(kept.name) as box:
        for name in ("true", "idle"):
            execution = await box.exec([name])
            if name == "true":
                assert await execution.wait() == 0
            await execution.end()
            assert kept.box.programs[-1].ended
        with pytest.raises(CorralError):
            await box._call("end", {"exec": "1"})
        await box._call("end", {"exec": 99})  # of no command of this client's: nothing happens


@pytest.mark.parametrize("state", ["running", "paused"])
async def test_a_start_that_is_cancelled_is_ended_once_it_has_begun(
    kept: Kept, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the sandbox was paused in between: its guest begins what it was asked for."""
    kept.box.scripts["idle"] = idle
    asked, answer = asyncio.Event(), asyncio.Event()
    begin = kept.box.exec

    async def late(argv: Sequence[str], **options: object) -> Execution:
        asked.set()
        await answer.wait()
        return await begin(argv, **options)

    monkeypatch.setattr(kept.box, "exec", late)
    async with connect(kept.name) as box:
        starting = asyncio.ensure_future(box.exec(["idle"]))
        await asked.wait()
        kept.keeper.state = state
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        (served,) = kept.server._peers
        await until(lambda: bool(served._doomed))
        answer.set()
        await until(lambda: bool(kept.box.programs) and not kept.keeper.running)
        assert kept.box.programs[0].ended
        assert not (served._taken or served._doomed)


async def test_numbers_of_starts_that_failed_are_free_again(kept: Kept) -> None:
    async with connect(kept.name) as box:
        with pytest.raises(CommandNotFoundError):
            await box.exec(["nosuch"])
        (served,) = kept.server._peers
        assert not served._taken


async def test_ports_come_and_go_while_it_runs(kept: Kept) -> None:
    async with connect(kept.name) as box:
        wanted = Publish(address="127.0.0.1", port=0, guest_port=80)
        port = await box.publish(wanted)
        assert port.port > 0
        assert await box.published() == (port,)
        assert (await box.inspect())["ports"] == [msgspec.to_builtins(port)]
        with pytest.raises(PortError, match="in use"):
            await box.publish(msgspec.structs.replace(wanted, port=port.port))
        assert await box.unpublish(port.port) == port
        assert await box.published() == ()
        with pytest.raises(PortError, match="not published"):
            await box.unpublish(port.port)


# Who may connect, and what they may send


async def test_the_socket_is_this_users_alone(kept: Kept) -> None:
    path = kept.folder / door.SOCKET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.record.folder.stat().st_mode) == 0o700
    for file in kept.record.folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


async def test_another_users_process_is_not_served(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "peer_uid", lambda _sock: os.getuid() + 1)
    sock = raw(kept.folder)
    with sock:
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""


async def test_a_socket_of_another_users_is_not_talked_to(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "peer_uid", lambda _sock: os.getuid() + 1)
    with pytest.raises(SandboxStateError, match="another user"):
        async with connect(kept.name):
            pass


def raw(folder: Path) -> socket.socket:
    """A client that speaks whatever it likes."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(folder / door.SOCKET))
    sock.setblocking(False)
    return sock


def control(body: object) -> bytes:
    """A control frame with this JSON."""
    data = json.dumps(body).encode()
    return bytes([wire.CONTROL, 0, 0, 0]) + bytes(4) + len(data).to_bytes(4, "big") + data


def asking(method: str, params: object, number: int = 1) -> bytes:
    """A request's frame."""
    return control({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


HELLO = asking("hello", {"version": 1})
EXEC = {"exec": 1, "argv": ["cat"], "environment": {}, "streams": {}}


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 64,
        control([1, 2, 3]),
        control({"jsonrpc": "2.0", "id": 1, "result": {}}),
        control({"jsonrpc": "2.0", "method": "exited", "params": {}}),
        asking("exec", EXEC),  # before it said who it is
        HELLO + asking("exec", EXEC),
        HELLO + asking("exec", {**EXEC, "streams": {"stdin": 1, "stdout": 3, "stderr": 5}}),
        HELLO + asking("exec", {**EXEC, "streams": {"stdin": 2, "stdout": 2, "stderr": 2}}),
        HELLO + asking("exec", {**EXEC, "streams": {"stdin": -2, "stdout": 4, "stderr": 6}}),
        HELLO + asking("exec", {**EXEC, "argv": []}),
        HELLO + asking("exec", {**EXEC, "argv": [1]}),
        HELLO + asking("exec", {**EXEC, "exec": True}),
        HELLO + asking("exec", {**EXEC, "unknown": 1}),
        HELLO
        + asking(
            "exec", {**EXEC, "argv": ["\u20ac"], "streams": {"stdin": 2, "stdout": 4, "stderr": 6}}
        ),
        HELLO + asking("signal", {"exec": "one", "signal": 15}),
        HELLO + asking("resize", {"exec": 1, "rows": -1, "columns": 1 << 40}),
        HELLO + asking("stop", {"timeout": "soon"}),
        HELLO + asking("follow", {"what": "/etc/shadow", "stream": 2}),
        HELLO
        + asking("follow", {"what": "events", "stream": 2})
        + asking("follow", {"what": "events", "stream": 2}),
        HELLO
        + asking("exec", {**EXEC, "streams": {"stdin": 2, "stdout": 4, "stderr": 6}})
        + asking("exec", {**EXEC, "streams": {"stdin": 8, "stdout": 10, "stderr": 12}}),
        asking("hello", {"version": "new"}),
        asking("hello", {}),
    ],
)
async def test_nonsense_harms_only_who_says_it(kept: Kept, said: bytes) -> None:
    kept.box.scripts["cat"] = cat
    loop = asyncio.get_running_loop()
    with raw(kept.folder) as sock:
        await loop.sock_sendall(sock, said)
        heard = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.2):
                while data := await loop.sock_recv(sock, 65536):
                    heard += data
        assert b"internal" not in heard
    assert kept.keeper.state == "running"
    assert not kept.keeper.stopping.is_set()
    await still_well(kept)


async def still_well(kept: Kept) -> None:
    kept.box.scripts["true"] = true
    async with connect(kept.name) as box:
        assert await (await box.exec(["true"])).wait() == 0


METHODS = st.sampled_from(
    ["hello", "exec", "signal", "resize", "kill", "sync", "inspect", "stats", "follow", "x"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 33) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
PARAMS = st.dictionaries(
    st.sampled_from(["exec", "argv", "streams", "signal", "rows", "what", "stream", "version"]),
    VALUES,
    max_size=4,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(METHODS, PARAMS), max_size=6), st.binary(max_size=64))
async def test_no_sequence_of_requests_ends_the_keeper(
    kept: Kept, requests: list[tuple[str, dict[str, object]]], tail: bytes
) -> None:
    loop = asyncio.get_running_loop()
    said = HELLO + b"".join(asking(*each, number) for number, each in enumerate(requests, 2)) + tail
    with raw(kept.folder) as sock:
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(sock, said)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                while await loop.sock_recv(sock, 65536):
                    pass
    await still_well(kept)


async def test_a_flood_of_requests_is_cut_off(kept: Kept) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    kept.box.sync = never  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    with raw(kept.folder) as sock:
        said = HELLO + b"".join(asking("sync", {}, number) for number in range(2, 5000))
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(5):
                await loop.sock_sendall(sock, said)
                while await loop.sock_recv(sock, 65536):
                    pass
        assert len(kept.server._tasks) < peer.MAX_PENDING + 20
    await still_well(kept)


async def test_a_fault_of_the_keepers_own_is_told_and_ends_nothing(kept: Kept) -> None:
    def fault(*_arguments: object, **_more: object) -> None:
        raise KeyError("a fault")

    kept.box.sync = fault  # type: ignore[assignment]
    async with connect(kept.name) as box:
        with pytest.raises(SandboxError, match="KeyError") as caught:
            await box.sync()
    assert "keeper.log" in (caught.value.hint or "")
    kept.box.exec = fault  # type: ignore[assignment, method-assign]
    async with connect(kept.name) as box:
        with pytest.raises(SandboxError, match="KeyError"):
            await box.exec(["x"])


async def test_so_many_clients_and_no_more(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CLIENTS", 2)
    loop = asyncio.get_running_loop()
    async with connect(kept.name), connect(kept.name):
        with raw(kept.folder) as third:
            with pytest.raises(SandboxStateError, match="2 clients are connected"):
                async with asyncio.timeout(1), connect(kept.name):
                    pass
            heard = b""
            while data := await loop.sock_recv(third, 65536):
                heard += data
        assert b"2 clients are connected" in heard
    await asyncio.sleep(0.01)
    await still_well(kept)


async def test_a_number_that_is_taken_cuts_off_and_hangs_up(kept: Kept) -> None:
    """Also when both come at once: the first of them must not be forgotten."""
    ended = asyncio.Event()

    async def until_hung_up(program: Program) -> int:
        number, _group = await program.signals.get()
        assert number == signal.SIGHUP
        ended.set()
        return 129

    kept.box.scripts["cat"] = until_hung_up
    streams = ({"stdin": n, "stdout": n + 2, "stderr": n + 4} for n in (2, 8))
    said = HELLO + b"".join(asking("exec", {**EXEC, "streams": each}, 2) for each in streams)
    with raw(kept.folder) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, said)
        async with asyncio.timeout(10):
            await ended.wait()
    await still_well(kept)


async def test_connections_drive_nothing_out_of_the_log(kept: Kept) -> None:
    """A guest can make any number; they have a log of their own."""
    kept.keeper.report(Notice(level="warning", message="kept"))
    for number in range(1000):
        kept.keeper.report(
            Connection(time=1.0, agent=1, name=f"n{number}.test", port=443, verdict="denied")
        )
    log = (kept.record.folder / "events.jsonl").read_text()
    assert "kept" in log and "n0.test" not in log
