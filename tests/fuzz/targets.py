"""What must hold of any bytes that a guest can send the egress engine or the gateway; for atheris
and for tests.

Each target raises AssertionError, or what the code under test should not raise.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import h11

from corral.policy import BadName, Network, decide, decide_address
from corral.policy.addresses import special
from corral.policy.names import parse, split_port
from corral.policy.rules import parse_address, parse_publish, parse_rules
from corral.policy.sniff import HttpRequest, Refused, TlsStart, looks_like
from tests.fuzz import gateway

NAME = "allowed.test"
HOST = parse(NAME)
POLICY = Network(
    mode="internet", allow=parse_rules(f"{NAME}:7"), deny=parse_rules("*.evil.test"), ports=(443,)
)


def names(data: bytes) -> None:
    """What is read as a host reads as itself, is nothing else to others, and is decided so."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        host = parse(text)
    except BadName as error:
        assert str(error).isascii() and str(error).isprintable()
        return
    assert parse(host.text) == host and host.text.isascii() and len(host.text) <= 253
    verdict = decide(POLICY, host, 443)
    assert decide(POLICY, parse(host.text), 443) == verdict
    if host.address is not None:
        allowed = decide_address(POLICY, host.address, 443).allowed
        assert allowed == (not special(host.address))
        return
    assert not set(host.text) & set(" \t\r\n\0%@/\\[]*?#:")
    try:
        socket.inet_aton(host.text)
    except OSError:
        return
    raise AssertionError(f"{host.text!r} is a name here and an address to others")


def rules(data: bytes) -> None:
    """Any text is a rule, an address or a port, or is refused with a reason."""
    text = data.decode("utf-8", "surrogateescape")
    readers: tuple[Callable[[str], object], ...] = (
        parse_rules,
        parse_address,
        parse_publish,
        split_port,
    )
    for read in readers:
        try:
            read(text)
        except BadName as error:
            assert str(error).isprintable()


def tls(data: bytes) -> None:
    """No bytes, however they are split, pass unless they name the host."""
    size, data = (data[0] or 1) if data else 1, data[1:]
    whole = b"".join(_fed(TlsStart(HOST), data, 1 << 20))
    parts = b"".join(_fed(TlsStart(HOST), data, size))
    assert whole == parts
    assert not whole or NAME.encode() in whole.lower()
    assert data.startswith(whole)


def http(data: bytes) -> None:
    """No bytes, however they are split, pass as anything but one request for the host."""
    size, data = (data[0] or 1) if data else 1, data[1:]
    for passed in (
        _fed(HttpRequest(HOST, 80), data, 1 << 20),
        _fed(HttpRequest(HOST, 80), data, size),
    ):
        _is_one_request(b"".join(passed))
    kind = looks_like(data)
    assert kind in (None, "tls", "http", "other")


def _fed(start: TlsStart | HttpRequest, data: bytes, size: int) -> list[bytes]:
    passed: list[bytes] = []
    try:
        for at in range(0, len(data), size):
            passed.append(start.feed(data[at : at + size]))
            if start.waiting:
                break
    except Refused:
        pass
    return passed


def _is_one_request(passed: bytes) -> None:
    if not passed:
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(passed)
    first = server.next_event()
    assert isinstance(first, h11.Request)
    hosts = [bytes(value) for name, value in first.headers if name == b"host"]
    assert len(hosts) == 1
    text, port = split_port(hosts[0].decode("ascii"))
    assert parse(text) == HOST and port in (None, 80)
    while not isinstance(event := server.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            return
        assert isinstance(event, h11.Data)
    assert not server.trailing_data[0]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "names": names,
    "rules": rules,
    "tls": tls,
    "http": http,
    "gateway_requests": gateway.requests,
    "gateway_answers": gateway.answers,
}
