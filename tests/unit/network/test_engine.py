"""The engine with real sockets on loopback; the guest's end is played by the test."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from corral.events import Notice
from corral.journal import Journal
from corral.network import client, dial, resolver
from corral.network.outcome import Failed
from corral.policy import Key, Limits, Secret
from corral.policy.names import IPAddress
from tests.support.egress import Seen, ask, connections, policy, running, server
from tests.unit.policy.hellos import plain, server_hello

GET = b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_bytes_go_both_ways_until_both_have_ended() -> None:
    seen: Seen = []
    async with server(b"answer") as echo:
        network = policy("echo.test:7000", to={"echo.test": echo.port})
        async with running(network, seen) as engine:
            guest = ask(engine, "Echo.Test.", 7000)
            await guest.say(b"\x01question")
            await guest.finish()
            assert await guest.hear_all() == b"answer"
            await guest.settled()
    assert echo.got == [b"\x01question"]
    told = connections(seen)
    assert [(each.verdict, each.name, each.sent, each.received) for each in told] == [
        ("allowed", "echo.test", 0, 0),
        ("allowed", "echo.test", 9, 6),
    ]
    assert told[0].address == "127.0.0.1" and told[0].rule == "echo.test:7000"
    assert told[0].seconds is None and told[1].seconds is not None
    assert guest.reset_reason is None


async def test_a_server_may_speak_first() -> None:
    async with (
        server(first=b"SSH-2.0-x\r\n") as ssh,
        running(policy("git.test:22", to={"git.test": ssh.port})) as engine,
    ):
        guest = ask(engine, "git.test", 22)
        assert await guest.hear(11) == b"SSH-2.0-x\r\n"
        await guest.say(b"SSH-2.0-y\r\n")
        await guest.finish()
        await guest.hear_all()
    assert ssh.got == [b"SSH-2.0-y\r\n"]


async def test_a_protocol_of_lines_passes_on_its_port() -> None:
    async with (
        server(b"250 ok\r\n", first=b"220 hello\r\n", wait=b"\n") as mail,
        running(policy("mail.test:587", to={"mail.test": mail.port})) as engine,
    ):
        guest = ask(engine, "mail.test", 587)
        assert await guest.hear(11) == b"220 hello\r\n"
        await guest.say(b"EHLO me\r\n")
        assert await guest.hear_all() == b"250 ok\r\n"
    assert mail.got == [b"EHLO me\r\n"]


async def test_plain_http_is_one_request_and_the_server_is_to_close() -> None:
    async with (
        server(OK, wait=b"\r\n\r\n") as web,
        running(policy("web.test", to={"web.test": web.port})) as engine,
    ):
        guest = ask(engine, "web.test", 80)
        await guest.say(GET + GET)
        assert await guest.hear_all() == OK
    assert web.got == [b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n"]


async def test_a_web_socket_goes_on_both_ways() -> None:
    asked = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    agreed = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(agreed)
        writer.write(await reader.readexactly(4))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, running(policy("web.test", to={"web.test": port})) as engine:
        guest = ask(engine, "web.test", 80)
        await guest.say(asked + b"ping")
        assert await guest.hear_all() == agreed + b"ping"


async def test_tls_is_passed_on_as_it_is() -> None:
    answer = server_hello() + b"encrypted"
    async with (
        server(first=answer) as web,
        running(policy("web.test", to={"web.test": web.port})) as engine,
    ):
        guest = ask(engine, "web.test", 443)
        await guest.say(plain("web.test") + b"\x17\3\3\0\1x")
        await guest.finish()
        assert await guest.hear_all() == answer
    assert web.got == [plain("web.test") + b"\x17\3\3\0\1x"]


async def test_what_is_held_goes_before_the_clients_end() -> None:
    first, rest = plain("web.test"), b"\x17\3\3\0\1x"
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readexactly(len(first)))
        await asyncio.wait((ended,))
        writer.write(server_hello())
        heard.extend(await reader.read())
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, running(policy("web.test", to={"web.test": port})) as engine:
        guest = ask(engine, "web.test", 443)
        await guest.say(first + rest)
        ended = asyncio.ensure_future(guest.finish())
        assert await guest.hear_all() == server_hello()
    assert bytes(heard) == first + rest


async def test_an_answer_before_the_request_has_ended_arrives() -> None:
    """A server that refuses an upload answers and closes, with bytes unread: that is a reset."""
    early = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n\r\n"
    async with (
        server(early, wait=b"\r\n\r\n") as web,
        running(policy("web.test", to={"web.test": web.port})) as engine,
    ):
        guest = ask(engine, "web.test", 80)
        await guest.say(b"PUT / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 99999999\r\n\r\n")
        upload = asyncio.ensure_future(guest.say(bytes(50_000_000)))
        assert await guest.hear(len(early)) == early
        await guest.hear_all()
        await guest.finish()
        upload.cancel()


async def test_refused_plain_http_is_answered_with_the_reason_and_the_option() -> None:
    seen: Seen = []
    async with running(policy("a.test"), seen) as engine:
        guest = ask(engine, "web.test", 80)
        await guest.say(GET)
        answer = await guest.hear_all()
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"may not connect to web.test, port 80: not on the list" in answer
    assert b"--allow web.test:80" in answer
    assert [(each.verdict, each.reason) for each in connections(seen)] == [
        ("denied", "not on the list")
    ]


async def test_what_is_refused_otherwise_is_reset_with_the_reason() -> None:
    async with running(policy("a.test", deny=["bad.test"])) as engine:
        assert await ask(engine, "web.test", 443).refused() == "not on the list"
        assert await ask(engine, "a.test", 22).refused() == "port not on the list"
        assert await ask(engine, "bad.test", 443).refused() == "denied by a rule"
        assert await ask(engine, "a.test\0", 443).refused() == "not a host name"


@pytest.mark.parametrize("kind", ["refused", "no such name", "no address"])
async def test_what_was_allowed_and_fails_is_told_apart(kind: str) -> None:
    async def resolve(name: str) -> tuple[IPAddress, ...]:
        if kind == "no such name":
            raise Failed("no such name")
        return ()

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        to = {"a.test": unused.getsockname()[1]} if kind == "refused" else {}
        seen: Seen = []
        async with running(policy("a.test:7", to=to), seen, resolve=resolve) as engine:
            reason = await ask(engine, "a.test", 7).refused()
    assert reason == ("connection refused" if kind == "refused" else "no such name")
    assert [each.verdict for each in connections(seen)] == ["failed"]


async def test_the_guest_cannot_make_us_hold_more_than_a_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that sends without end, to a guest that does not read, is made to wait."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16
        except OSError:
            pass

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, running(policy("big.test:7", to={"big.test": port})) as engine:
        guest = ask(engine, "big.test", 7, window=1 << 16)
        assert await guest.hear(1 << 20) == bytes(1 << 20)
        last = -1
        while sent != last:  # until the socket's buffers are full
            last = sent
            await asyncio.sleep(0.05)
        assert guest.most_held <= 1 << 16
        assert sent < 32 << 20
        await guest.give_up()


async def test_nothing_is_sent_for_a_while_and_the_connection_ends() -> None:
    seen: Seen = []
    limits = Limits(idle=0.2)
    async with server() as quiet:
        network = policy("a.test:7", to={"a.test": quiet.port}, limits=limits)
        async with running(network, seen) as engine:
            guest = ask(engine, "a.test", 7)
            assert await guest.refused() == "no byte for too long"
    assert connections(seen)[-1].reason == "no byte for too long"


async def test_a_limit_of_bytes_holds_for_all_connections_of_an_agent() -> None:
    limits = Limits(total=1000)
    async with server(b"y" * 300) as web:
        network = policy("a.test:7", to={"a.test": web.port}, limits=limits)
        async with running(network) as engine:
            for _ in range(2):
                guest = ask(engine, "a.test", 7)
                await guest.say(b"\1" * 100)
                await guest.finish()
                assert len(await guest.hear_all()) == 300
            guest = ask(engine, "a.test", 7)
            await guest.say(b"\1" * 201)
            assert await guest.refused() == "the limit of bytes is reached"
            other = ask(engine, "a.test", 7, agent=2)
            await other.finish()
            assert len(await other.hear_all()) == 300


async def test_connections_beyond_the_limit_are_refused_and_others_go_on() -> None:
    limits = Limits(connections=3)
    async with server() as web:
        network = policy("a.test:7", to={"a.test": web.port}, limits=limits)
        async with running(network) as engine:
            guests = [ask(engine, "a.test", 7) for _ in range(3)]
            assert await ask(engine, "a.test", 7).refused() == "too many connections at once"
            another = ask(engine, "a.test", 7, agent=2)
            for guest in (*guests, another):
                await guest.finish()
                await guest.hear_all()
                await guest.settled()
            assert engine.open_connections == 0
            again = ask(engine, "a.test", 7)
            await again.finish()
            assert await again.hear_all() == b""
            assert again.reset_reason is None


async def test_connections_above_the_rate_wait_for_their_turn() -> None:
    limits = Limits(rate=20)
    async with server() as web:
        network = policy("a.test:7", to={"a.test": web.port}, limits=limits)
        async with running(network) as engine:
            began = time.monotonic()
            guests = [ask(engine, "a.test", 7) for _ in range(26)]
            for guest in guests:
                await guest.finish()
                await guest.hear_all()
            assert 0.25 <= time.monotonic() - began < 5
    assert web.connections == 26


async def test_a_client_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.1)
    async with (
        server() as web,
        running(policy("a.test", to={"a.test": web.port})) as engine,
    ):
        for port in (80, 443):
            guest = ask(engine, "a.test", port)
            await guest.say(b"G" if port == 80 else b"\x16\3\1")
            assert await guest.refused() == "the sandbox sent no request in time"
    assert web.connections == 0


async def test_a_stream_that_the_guest_gives_up_ends_the_servers_connection() -> None:
    seen: Seen = []
    async with (
        server() as web,
        running(policy("a.test:7", to={"a.test": web.port}), seen) as engine,
    ):
        guest = ask(engine, "a.test", 7)
        await guest.say(b"\1")
        await guest.taken()
        await guest.give_up()
        await web.ended.wait()
    assert connections(seen)[-1].reason == "given up by the sandbox"


async def test_the_end_of_the_engine_ends_everything() -> None:
    seen: Seen = []
    async with server() as web:
        async with running(policy("a.test:7", to={"a.test": web.port}), seen) as engine:
            guests = [ask(engine, "a.test", 7) for _ in range(5)]
            waiting = ask(engine, "a.test", 443)
            for guest in guests:
                await guest.say(b"\1")
                await guest.taken()
        assert {await guest.refused() for guest in (*guests, waiting)} <= {
            "the sandbox ends",
            "port not on the list",
        }
        late = ask(engine, "a.test", 7)
        assert await late.refused() == "the sandbox ends"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"agent": 3, "name": "a.test", "port": 443},
        {"agent": True, "name": "a.test", "port": 443},
        {"agent": 1, "name": "", "port": 443},
        {"agent": 1, "name": "a" * 1025, "port": 443},
        {"agent": 1, "name": 5, "port": 443},
        {"agent": 1, "name": "a.test", "port": 0},
        {"agent": 1, "name": "a.test", "port": 65536},
        {"agent": 1, "name": "a.test", "port": "443"},
        {"agent": 1, "name": "a.test", "port": True},
        {"agent": 1, "name": "a.test", "port": 1.5},
    ],
)
async def test_what_makes_no_sense_breaks_the_protocol(params: dict[str, object]) -> None:
    from tests.support.guests import Guest

    async with running(policy("a.test")) as engine:
        with pytest.raises(ValueError, match="a connection"):
            engine.connect(params, Guest())
        assert engine.open_connections == 0


# Doors


async def test_the_gateway_is_reached_by_its_name_as_the_agent_that_asked(tmp_path: Path) -> None:
    seen: Seen = []
    async with (
        server(OK, wait=b"\r\n\r\n", unix=tmp_path / "2") as gateway,
        running(
            policy(mode="none"), seen, gateways=["claude"], gateway=lambda n: tmp_path / str(n)
        ) as engine,
    ):
        guest = ask(engine, "claude.corral.internal", 80, agent=2)
        await guest.say(GET)
        assert await guest.hear_all() == OK
        for name, port in (
            ("other.corral.internal", 80),
            ("corral.internal", 80),
            ("x.claude.corral.internal", 80),
            ("claude.corral.internal", 443),
        ):
            guest = ask(engine, name, port, agent=2)
            await guest.finish()
            assert "gateway" in await guest.refused()
    assert gateway.got == [GET], "as it is: the gateway reads it itself"
    assert connections(seen)[0].rule == "gateway"


async def test_a_gateway_that_is_gone_ends_no_more_than_connections_to_it(tmp_path: Path) -> None:
    seen: Seen = []
    async with running(
        policy(mode="none"), seen, gateways=["a"], gateway=lambda n: tmp_path / str(n)
    ) as engine:
        for _ in range(3):
            assert await ask(engine, "a.corral.internal", 80).refused() == "the gateway has ended"
    assert not [each for each in seen if isinstance(each, Notice)]  # who started it tells


async def test_hosts_of_a_secret_go_to_the_interceptor_with_the_addresses(tmp_path: Path) -> None:
    async def resolve(name: str) -> tuple[IPAddress, ...]:
        return (ip_address("8.8.8.8"), ip_address("2606:4700:4700::1111"))

    secret = Secret(
        name="TOKEN",
        hosts=("api.test", "*.deep.test:8443"),
        header="authorization",
        key=Key(kind="env", value=("TOKEN",)),
    )
    path = tmp_path / "intercept"
    async with (
        server(server_hello(), wait=plain("api.test"), unix=path) as door,
        running(policy(mode="none"), resolve=resolve, secrets=[secret], intercept=path) as engine,
    ):
        guest = ask(engine, "api.test", 443, agent=2)
        await guest.say(plain("api.test"))
        assert await guest.hear_all() == server_hello()
        wrong = ask(engine, "api.test", 443)
        await wrong.say(plain("b.test"))
        assert "another one" in await wrong.refused()
        assert await ask(engine, "deep.test", 8443).refused() == "no network"
        plain_text = ask(engine, "x.deep.test", 8443)
        await plain_text.say(b"\1\2\3\4" * 8)
        assert await plain_text.refused() == "not TLS"
    line, _, rest = door.got[0].partition(b"\n")
    assert json.loads(line) == {
        "agent": 2,
        "name": "api.test",
        "port": 443,
        "addresses": ["8.8.8.8", "2606:4700:4700::1111"],
    }
    assert rest == plain("api.test")


# The resolver


async def test_the_host_resolver_knows_localhost_and_no_invalid_name() -> None:
    look_up = resolver.Resolver()
    assert set(map(str, await look_up("localhost"))) <= {"127.0.0.1", "::1"}


async def test_lookups_of_one_name_are_one_and_threads_are_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    go = threading.Event()

    def look_up(name: str) -> tuple[IPAddress, ...]:
        asked.append(name)
        go.wait(10)
        return (ip_address("192.0.2.1"),)

    monkeypatch.setattr(resolver, "look_up", look_up)
    monkeypatch.setattr(resolver, "PATIENCE", 0.2)
    before = threading.active_count()
    find = resolver.Resolver(threads=2)
    lookups = [asyncio.ensure_future(find(name)) for name in ("a", "a", "a", "b", "c", "d")]
    results = await asyncio.gather(*lookups, return_exceptions=True)
    assert all(isinstance(result, Failed) for result in results), "each gave up in time"
    assert sorted(asked) == ["a", "b"] and threading.active_count() <= before + 2
    go.set()
    monkeypatch.setattr(resolver, "PATIENCE", 10)
    assert await find("e") == (ip_address("192.0.2.1"),)
    assert sorted(asked) == ["a", "b", "e"], "what nobody waits for any more is not looked up"


async def test_a_lookup_of_which_one_has_given_up_is_there_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()

    def look_up(name: str) -> tuple[IPAddress, ...]:
        go.wait(10)
        return (ip_address("192.0.2.1"),)

    monkeypatch.setattr(resolver, "look_up", look_up)
    find = resolver.Resolver(threads=1)
    first, one, other = (asyncio.ensure_future(find(name)) for name in ("a", "b", "b"))
    await asyncio.sleep(0.05)
    for each in (first, one):
        each.cancel()
    await asyncio.wait([first, one])
    go.set()
    assert await other == (ip_address("192.0.2.1"),) == await find("a")


def test_agents_have_resolvers_of_their_own_with_few_threads() -> None:
    threads = {count: [each._threads for each in resolver.resolvers(count)] for count in (1, 2, 32)}
    assert threads == {1: [16], 2: [8, 8], 32: [4] * 32}


def test_a_hosts_file_is_heard_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# web.test\n192.0.2.1 other.test Web.Test # x\nbad web.test\n::1 web.test\n")
    monkeypatch.setattr(resolver, "HOSTS_FILE", file)
    assert resolver.look_up("web.test") == (ip_address("192.0.2.1"), ip_address("::1"))


# Dialling


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with server() as web:
        found = [(ip_address("127.0.0.2"), 1), (ip_address("127.0.0.1"), web.port)]
        sock, address = await dial.dial(found)
        sock.close()
    assert str(address) == "127.0.0.1"


async def test_names_with_many_dead_addresses_do_not_take_all_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guest that may reach anything has a name of its own lead where nobody answers."""
    now = most = 0

    async def silent(_socket: socket.socket, _address: object) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            await asyncio.Event().wait()
        finally:
            now -= 1

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", silent)
    monkeypatch.setattr(dial, "HEAD_START", 0.01)
    monkeypatch.setattr(dial, "PATIENCE", 1.0)
    monkeypatch.setattr(dial, "MOST_ATTEMPTS", 10)
    found = [(ip_address("192.0.2.1"), port) for port in range(1, 33)]
    dials = [dial.dial(found) for _ in range(20)]
    for result in await asyncio.gather(*dials, return_exceptions=True):
        assert isinstance(result, Failed) and str(result) == "no answer in time"
    assert now == 0 and 20 <= most < 20 + 10  # one each, but while some of them come and go


def test_kinds_of_addresses_take_turns() -> None:
    texts = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"]
    mixed = dial.interleave([ip_address(text) for text in texts])
    assert list(map(str, mixed)) == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"]


def test_loopback_is_the_hosts_own() -> None:
    assert dial.is_own(ip_address("127.0.0.1")) and dial.is_own(ip_address("127.9.9.9"))


# What is kept


async def test_each_decision_is_a_line_of_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "network.jsonl")
    async with running(policy("a.test"), journal=journal) as engine:
        await ask(engine, "evil.test", 443).refused()
    journal.close()
    (line,) = (tmp_path / "network.jsonl").read_bytes().splitlines()
    told = json.loads(line)
    assert told["event"] == "connection" and told["name"] == "evil.test"
    assert (told["verdict"], told["reason"]) == ("denied", "not on the list")


async def test_too_many_open_files_is_an_answer_not_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_arguments: object, **_options: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with (
        server() as web,
        running(policy("a.test:7", to={"a.test": web.port})) as engine,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", full)
            reason = await ask(engine, "a.test", 7).refused()
        assert reason == "too many open files on the host"
        again = ask(engine, "a.test", 7)
        await again.finish()
        assert await again.hear_all() == b"" and again.reset_reason is None


async def test_an_agent_may_have_a_policy_and_gateways_of_its_own() -> None:
    seen: Seen = []
    async with server(b"answer") as echo:
        network = policy("echo.test:7000", to={"echo.test": echo.port})
        own = msgspec.structs.replace(network, allow=())
        async with running(
            network,
            seen,
            networks={2: own},
            gateways=("anthropic",),
            gateway=lambda agent: Path(f"/nowhere/{agent}"),
            allowed={2: ()},
        ) as engine:
            one, two = ask(engine, "echo.test", 7000), ask(engine, "echo.test", 7000, agent=2)
            await one.say(b"question")
            await one.finish()
            assert await one.hear_all() == b"answer"
            await two.settled()
            three = ask(engine, "anthropic.corral.internal", 80, agent=2)
            await three.settled()
    told = [(each.agent, each.verdict, each.reason) for each in connections(seen)]
    assert (2, "denied", "this agent may not use that gateway") in told
    assert [verdict for agent, verdict, _ in told if agent == 2] == ["denied", "denied"]
    assert (1, "allowed") in [each[:2] for each in told]
