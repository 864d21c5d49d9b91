"""Attacks on the egress engine by whoever speaks for the guest, its root included.

The engine is on the host, so no machine is needed: the test says what a guest could say. Servers
are on loopback, or in network namespaces where stand-ins of public and private hosts are real.
"""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import threading
import tracemalloc
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from corral.journal import Journal
from corral.network import Engine, client, resolver
from corral.policy import Limits
from corral.policy.names import IPAddress
from tests.support import worlds
from tests.support.egress import Seen, ask, connections, policy, running, server
from tests.support.guests import Guest
from tests.unit.policy.hellos import (
    ECH,
    extension,
    hello,
    openssl,
    plain,
    records,
    server_hello,
    server_name,
)

NAME = "allowed.test"
GET = b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def said(engine: Engine, data: bytes, *, port: int) -> Guest:
    """A connection to the allowed name whose client says this, and no more."""
    guest = ask(engine, NAME, port)
    await guest.say(data)
    await guest.finish()
    return guest


# Where a name leads


def world(scenario: str) -> tuple[dict[str, str], list[str]]:
    """What each name got, and who was connected to."""
    got, connected = msgspec.convert(
        worlds.run(f"tests.security.egress_world:{scenario}"),
        tuple[dict[str, str], list[str]],
    )
    return got, connected


def test_a_name_that_leads_to_an_address_that_is_not_public_reaches_nobody() -> None:
    got, connected = world("rebinding")
    reached = {worlds.PUBLIC, worlds.PUBLIC6}
    for address, answer in got.items():
        if address in reached:
            assert answer == address, "the control: a public one is dialled"
        else:
            assert answer.startswith("refused: ") and answer.endswith(" address"), address
    assert {line.split()[0] for line in connected} == reached


def test_no_notation_of_an_address_reaches_what_is_not_public() -> None:
    got, connected = world("literals")
    reached = {worlds.PUBLIC, worlds.PUBLIC6}
    for text, answer in got.items():
        assert answer == text if text in reached else answer.startswith("refused: "), text
    assert got["1.1.1.1"] == "refused: denied by a rule"
    assert {line.split()[0] for line in connected} == reached


def test_a_private_address_is_dialled_when_the_policy_names_it() -> None:
    """The control of the two before; a metadata address has to be named by itself."""
    got = worlds.run("tests.security.egress_world:named")
    assert got == [
        worlds.PRIVATE,
        worlds.PRIVATE,
        worlds.LINK_LOCAL,
        "refused: metadata address",
        worlds.METADATA,
    ]


async def test_a_name_that_is_not_allowed_is_never_looked_up() -> None:
    asked: list[str] = []

    async def resolve(name: str) -> tuple[IPAddress, ...]:
        asked.append(name)
        return (ip_address("192.0.2.1"),)

    async with running(policy(NAME, "*.wild.test:443"), resolve=resolve) as engine:
        for name, port in (
            ("c2VjcmV0.evil.test", 443),
            ("c2VjcmV0.allowed.test", 443),
            ("c2VjcmV0.wild.test", 22),
            ("allowed.test.evil.test", 443),
            ("allowed.test\0.evil.test", 443),
            ("wild.test", 443),
        ):
            assert await ask(engine, name, port).refused()
        assert asked == []
        guest = await said(engine, plain(NAME), port=443)
        assert await guest.refused() == "documentation address"
    assert asked == [NAME], "the control: one that is allowed is"


# Whom the client names


@pytest.mark.parametrize(
    "data",
    [
        plain("evil.test"),
        plain("evil.allowed.test"),
        openssl("evil.test"),
        openssl(None),
        records(hello(server_name(b"allowed.test", b"evil.test"))),
        records(hello(server_name(b"allowed.test\0evil.test"))),
        records(hello(server_name(b"allowed.test"), extension(ECH, b"\0" * 100))),
        records(hello(server_name(b"allowed.test"), server_name(b"evil.test"))),
        records(hello(server_name(b"evil.test")), [1, 2, 3, 4, 5]),
        GET,
        b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n",
    ],
    ids=range(11),
)
async def test_tls_that_names_another_host_or_hides_it_reaches_nobody(data: bytes) -> None:
    async with server() as web, running(policy(NAME, to={NAME: web.port})) as engine:
        guest = await said(engine, data, port=443)
        answer = await guest.hear_all()
        assert guest.reset_reason or answer.startswith(b"HTTP/1.1 403 ")
        assert web.connections == 0
        control = await said(engine, plain(NAME), port=443)
        await control.hear_all()
    assert web.got == [plain(NAME)]


async def test_a_second_hello_cannot_name_another_host() -> None:
    """A client can make a server ask for a second ClientHello, and name another host in it."""
    retry = server_hello(retry=True)
    async with server(first=retry) as web, running(policy(NAME, to={NAME: web.port})) as engine:
        for ahead in (True, False):
            guest = ask(engine, NAME, 443)
            await guest.say(plain(NAME) + (plain("evil.test") if ahead else b""))
            assert await guest.hear(len(retry)) == retry
            await guest.say(b"" if ahead else plain("evil.test"))
            assert await guest.refused() == "the TLS name is another one: evil.test"
        await web.ended.wait()
    assert [b"evil" in got for got in web.got] == [False, False]


REFUSED_HTTP = [
    GET.replace(b"allowed", b"evil"),
    GET.replace(b"Host: allowed.test", b"Host: allowed.test:8080"),
    GET.replace(b"Host: allowed.test", b"Host: allowed.test\r\nHost: evil.test"),
    GET.replace(b"Host: allowed.test", b"Host: allowed.test@evil.test"),
    GET.replace(b"Host: allowed.test", b"X: y"),
    GET.replace(b"GET /", b"GET http://evil.test/"),
    b"CONNECT evil.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
    GET.replace(
        b"\r\n\r\n", b"\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    plain(NAME),
    b"\0" * 40,
]


@pytest.mark.parametrize("data", REFUSED_HTTP, ids=range(len(REFUSED_HTTP)))
async def test_plain_http_for_another_host_or_a_proxy_reaches_nobody(data: bytes) -> None:
    async with server(OK) as web, running(policy(NAME, to={NAME: web.port})) as engine:
        guest = await said(engine, data, port=80)
        answer = await guest.hear_all()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 403 ")
        assert web.connections == 0
        control = await said(engine, GET, port=80)
        assert await control.hear_all() == OK
    assert len(web.got) == 1


@pytest.mark.parametrize("agrees", [False, True])
async def test_one_connection_carries_one_request(agrees: bool) -> None:
    """A second one, for another host, is dropped: sent at once, later, or behind an upgrade."""
    evil = GET.replace(b"allowed", b"evil")
    upgrade = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\n\r\n" if not agrees else b"HTTP/1.1 101 X\r\n\r\n"
    firsts = [GET, upgrade % b"h2c", GET[:-2] + b"Content-Length: 2\r\n\r\nab"]
    if not agrees:
        firsts.append(upgrade % b"websocket")
    for first in firsts:
        async with server(wait=b"never", first=answer) as web:
            async with running(policy(NAME, to={NAME: web.port})) as engine:
                guest = ask(engine, NAME, 80)
                await guest.say(first + evil)
                assert await guest.hear(len(answer)) == answer
                await guest.say(evil)
                await guest.finish()
                await guest.hear_all()
            await web.ended.wait()
        assert web.got[0].count(b"HTTP/1.1") == 1 and b"evil" not in web.got[0]


async def test_other_ports_are_held_to_the_name_too_where_it_can_be_read() -> None:
    async with server() as web, running(policy(f"{NAME}:8080", to={NAME: web.port})) as engine:
        for data in (plain("evil.test"), GET.replace(b"allowed.test", b"evil.test:8080")):
            guest = await said(engine, data, port=8080)
            await guest.hear_all()
            assert "another one" in await guest.refused()
    assert web.got == [b""] * web.connections, "nothing of it arrived"


# Exhaustion


async def test_a_flood_of_refusals_fills_neither_disk_nor_memory(tmp_path: Path) -> None:
    seen: Seen = []
    journal = Journal(tmp_path / "network.jsonl")
    async with running(policy(NAME), seen, journal=journal) as engine:
        await _flood(engine, 200)
        tracemalloc.start()
        await _flood(engine, 4_000)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 1 << 20
        assert len(seen) < 1000
    journal.close()
    lines = (tmp_path / "network.jsonl").read_bytes().splitlines()
    assert len(lines) < 1000
    assert "more not listed" in json.loads(lines[-1])["reason"], "what was left out is counted"


async def _flood(engine: Engine, count: int) -> None:
    for number in range(0, count, 100):
        guests = [ask(engine, f"x{number + each}.evil.test", 443) for each in range(100)]
        for guest in guests:
            await guest.refused()


async def test_names_that_nobody_answers_for_keep_no_other_agent_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent can have a name server that says nothing, and ask for many names below its own."""
    go = threading.Event()
    asked = []

    def look_up(name: str) -> tuple[IPAddress, ...]:
        asked.append(name)
        if name != NAME:
            go.wait(30)
        return (ip_address("192.0.2.1"),)

    monkeypatch.setattr(resolver, "look_up", look_up)
    network = policy(f"{NAME}:7000", "*.evil.test:7000", limits=Limits(rate=1000))
    try:
        async with running(network, resolve=None) as engine:
            waiting = [ask(engine, f"x{n}.evil.test", 7000) for n in range(200)]
            waiting.append(ask(engine, NAME, 7000))  # nor does it help to ask for the other's first
            async with asyncio.timeout(10):
                said = await ask(engine, NAME, 7000, agent=2).refused()
                assert said == "documentation address", "it was looked up"
            assert len(asked) > 1 and all(each.reset_reason is None for each in waiting)
    finally:
        go.set()


async def test_clients_that_dawdle_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.3)
    limits = Limits(connections=20, rate=1000)
    async with server(OK, wait=b"\r\n\r\n") as web:
        network = policy(NAME, to={NAME: web.port}, limits=limits)
        async with running(network) as engine:
            slow = [ask(engine, NAME, 80) for _ in range(20)]
            for guest in slow:
                await guest.say(b"GET / HTTP/1.1\r\nHos")
            assert await ask(engine, NAME, 80).refused() == "too many connections at once"
            other = ask(engine, NAME, 80, agent=2)
            await other.say(GET)
            assert await other.hear_all() == OK, "another agent has connections of its own"
            for guest in slow:
                await guest.refused()
                await guest.settled()
            again = ask(engine, NAME, 80)
            await again.say(GET)
            assert await again.hear_all() == OK
    assert web.connections == 2


async def test_a_head_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DRAIN_TIME", 0.1)
    async with server() as web, running(policy(NAME, to={NAME: web.port})) as engine:
        for port, start in ((80, b"GET / HTTP/1.1\r\nX: "), (443, b"\x16\3\1\x40\0\1\0\xff\xff")):
            guest = ask(engine, NAME, port)
            await guest.say(start + b"x" * (1 << 19))
            await guest.hear_all()
            assert await guest.refused() in ("not HTTP", "not TLS", "a ClientHello without end")
    assert web.connections == 0


async def test_a_guest_that_takes_all_file_descriptors_gets_an_answer() -> None:
    """Descriptors run out for real; the engine goes on, and what was open still works."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:  # it accepts nobody
        to = {"silent.test": silent.getsockname()[1]}
        async with server(OK, wait=b"\r\n\r\n") as web:
            to[NAME] = web.port
            async with running(policy(f"{NAME}:7", NAME, "silent.test:7", to=to)) as engine:
                kept = ask(engine, NAME, 7)
                await kept.say(b"\1")
                await kept.taken()
                with socket.socket() as probe:
                    used = probe.fileno()
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + 8, hard))
                try:
                    guests = [ask(engine, "silent.test", 7) for _ in range(30)]
                    refused = await asyncio.gather(*map(_is_refused, guests))
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                failed = [guest for guest, is_so in zip(guests, refused, strict=True) if is_so]
                assert failed
                reasons = {guest.reset_reason for guest in failed}
                assert reasons == {"too many open files on the host"}
                await kept.say(b"\r\n\r\n")
                assert await kept.hear_all() == OK
                again = ask(engine, NAME, 80)
                await again.say(GET)
                assert await again.hear_all() == OK


async def _is_refused(guest: Guest) -> bool:
    try:
        async with asyncio.timeout(0.3):
            await guest.refused()
    except TimeoutError:
        return False
    return True


async def test_what_a_guest_says_drives_no_terminal_and_forges_no_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "network.jsonl")
    seen: Seen = []
    async with running(policy(NAME), seen, journal=journal) as engine:
        for name in (
            "\x1b]0;x\x07.test",
            'a"\n{"verdict":"allowed"}',
            "\u202eabc.test",
            "a" * 1000,
        ):
            await ask(engine, name, 443).refused()
    journal.close()
    lines = (tmp_path / "network.jsonl").read_bytes().splitlines()
    assert len(lines) == 4
    for line, event in zip(lines, connections(seen), strict=True):
        assert json.loads(line)["verdict"] == "denied"
        assert event.name.isprintable() and event.name.isascii() and len(event.name) <= 1000
