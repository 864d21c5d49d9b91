"""One request of plain HTTP is passed on, written anew, when it is for the right host."""

from __future__ import annotations

import time

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.policy.names import parse
from corral.policy.sniff import HttpRequest, Refused, looks_like, refusal_text

NAME = "a.example.org"
GET = b"GET /x?y=1 HTTP/1.1\r\nHost: a.example.org\r\nAccept: */*\r\n\r\n"


def fed(
    data: bytes, *, name: str = NAME, port: int = 80, pieces: int = 1 << 20
) -> tuple[HttpRequest, bytes]:
    request = HttpRequest(parse(name), port)
    passed = b""
    for at in range(0, len(data), pieces):
        passed += request.feed(data[at : at + pieces])
    return request, passed


def requests_in(data: bytes) -> list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]]:
    """What a server reads: method, target, fields and body of each request."""
    found = []
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    body, head = b"", None
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            found.append((head.method, head.target, list(head.headers), body))
        else:
            rest = server.trailing_data[0]
            assert not rest, "something after the request"
            return found


@pytest.mark.parametrize("pieces", [1 << 20, 3, 1])
def test_a_request_is_passed_on_and_the_server_is_to_close(pieces: int) -> None:
    ((method, target, fields, body),) = requests_in(fed(GET, pieces=pieces)[1])
    assert (method, target, body) == (b"GET", b"/x?y=1", b"")
    assert fields == [(b"host", NAME.encode()), (b"accept", b"*/*"), (b"connection", b"close")]


@pytest.mark.parametrize(
    "host", ["A.Example.ORG", "a.example.org.", "a.example.org:80", "a.example.org.:80"]
)
def test_the_host_may_be_written_in_every_notation(host: str) -> None:
    assert requests_in(fed(GET.replace(NAME.encode(), host.encode()))[1])


@pytest.mark.parametrize(
    ("name", "port", "host"),
    [
        ("127.0.0.1", 8080, "127.0.0.1:8080"),
        ("::1", 80, "[::1]"),
        ("::1", 81, "[0:0::1]:81"),
        ("192.0.2.1", 80, "0xc0000201"),
    ],
)
def test_addresses_and_ports_are_hosts_too(name: str, port: int, host: str) -> None:
    data = GET.replace(NAME.encode(), host.encode())
    assert requests_in(fed(data, name=name, port=port)[1])


def request(*fields: str, line: str = "GET / HTTP/1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1") + body


RIGHT = f"Host: {NAME}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (request("Host: b.example.org"), "the HTTP host is another one: b.example.org"),
        (request("Host: evil.test"), "the HTTP host is another one: evil.test"),
        (request(f"Host: {NAME}:81"), "the HTTP host is another one: port 81"),
        (request(f"Host: {NAME}:443"), "another one: port 443"),
        (request(f"Host: {NAME}.evil.test"), "another one"),
        (request(f"Host: x.{NAME}"), "another one"),
        (request("Host: 192.0.2.1"), "another one"),
        (request("Host:"), "not a name"),
        (request(f"Host: user@{NAME}"), "not a name"),
        (request(f"Host: {NAME}@evil.test"), "not a name"),
        (request(f"Host: {NAME}, evil.test"), "not a name"),
        (request(f"Host: {NAME} evil.test"), "not a name"),
        (request(f"Host: {NAME}/"), "not a name"),
        (request(f"Host: {NAME}\\"), "not a name"),
        (request(f"Host: {NAME}%00"), "not a name"),
        (request(f"Host: http://{NAME}"), "not a name"),
        (request("Host: ä.example.org"), "not a name"),
        (request(), "not HTTP"),
        (request(line="GET / HTTP/1.0"), "HTTP without a host"),
        (request(RIGHT, RIGHT), "not HTTP"),
        (request(RIGHT, "Host: evil.test"), "not HTTP"),
        (request(RIGHT, "host: evil.test", line="GET / HTTP/1.0"), "not HTTP"),
        (request(RIGHT, line="CONNECT evil.test:443 HTTP/1.1"), "HTTP CONNECT"),
        (request(RIGHT, line=f"CONNECT {NAME}:443 HTTP/1.1"), "HTTP CONNECT"),
        (request(RIGHT, line="connect evil.test:443 HTTP/1.1"), "whole URL"),
        (request(RIGHT, line="GET http://evil.test/ HTTP/1.1"), "whole URL"),
        (request(RIGHT, line=f"GET http://{NAME}/ HTTP/1.1"), "whole URL"),
        (request(RIGHT, line="GET evil.test HTTP/1.1"), "whole URL"),
        (request(RIGHT, line="GET * HTTP/1.1"), "whole URL"),
        (request(RIGHT, line="GET / HTTP/2.0"), "not HTTP"),
        (request(RIGHT, line="GET / HTTP/0.9"), "not HTTP"),
        (request(RIGHT, line="GET /"), "not HTTP"),
        (request(RIGHT, line="PRI * HTTP/2.0"), ""),
        (request(f"{RIGHT}\0"), "not HTTP"),
        (request(f"Host : {NAME}"), "not HTTP"),
        (request(RIGHT, " folded: evil.test"), "not a name"),
        (request(RIGHT, "Transfer-Encoding: chunked", "Content-Length: 5"), "two lengths"),
        (request(RIGHT, "Content-Length: 5", "Content-Length: 6"), "not HTTP"),
        (request(RIGHT, "Transfer-Encoding: chunked", line="POST / HTTP/1.0"), "not HTTP"),
        (request(RIGHT, "Content-Length: 5, 6"), "not HTTP"),
        (request(RIGHT, "Content-Length: +5"), "not HTTP"),
        (request(RIGHT, "Content-Length: -1"), "not HTTP"),
        (request(RIGHT, "Transfer-Encoding: gzip, chunked"), "not HTTP"),
        (request(RIGHT, "Transfer-Encoding: xchunked"), "not HTTP"),
        (request(RIGHT, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "not HTTP"),
        (request(RIGHT, "X: " + "y" * (1 << 17)), "not HTTP"),
        (request(RIGHT, "Transfer-Encoding: chunked", body=b"z\r\n"), "not HTTP"),
    ],
    ids=lambda each: ascii(each)[:70],
)
def test_a_request_that_is_for_another_host_or_could_be_read_as_two_is_refused(
    data: bytes, reason: str
) -> None:
    with pytest.raises(Refused) as error:
        fed(data, pieces=1 << 16)
    assert reason in str(error.value)


@pytest.mark.parametrize("pieces", [1 << 20, 1])
@pytest.mark.parametrize(
    "second",
    [
        b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b"garbage",
        b"\0" * 5000,
    ],
)
@pytest.mark.parametrize(
    "first",
    [
        GET,
        request(RIGHT, "Content-Length: 5", line="POST / HTTP/1.1", body=b"hello"),
        request(
            RIGHT,
            "Transfer-Encoding: chunked",
            line="POST / HTTP/1.1",
            body=b"5;ext=1\r\nhello\r\n0\r\n\r\n",
        ),
        request(RIGHT, "Content-Length: 0", line="POST / HTTP/1.1"),
        request(RIGHT, "Connection: keep-alive"),
        request(RIGHT, "Connection: keep-alive", line="GET / HTTP/1.0"),
    ],
)
def test_what_follows_the_first_request_is_dropped(
    first: bytes, second: bytes, pieces: int
) -> None:
    alone = fed(first)[1]
    assert fed(first + second, pieces=pieces)[1] in (alone, *_split_chunks(alone))
    assert b"evil" not in fed(first + second, pieces=pieces)[1]
    ((_method, _target, fields, _body),) = requests_in(fed(first + second, pieces=pieces)[1])
    assert (b"connection", b"close") in fields


def _split_chunks(alone: bytes) -> list[bytes]:
    """The chunks of a body are as they arrived: in single bytes here."""
    return [alone.replace(b"5\r\nhello\r\n", b"".join(b"1\r\n%c\r\n" % each for each in b"hello"))]


def test_fields_of_one_connection_are_not_passed_on() -> None:
    said = request(
        RIGHT,
        "Connection: keep-alive, X-Once, Host, Content-Length",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "X-Once: 1",
        "X-Kept: 2",
        "Content-Length: 2",
        line="POST / HTTP/1.1",
        body=b"ab",
    )
    ((_, _, fields, body),) = requests_in(fed(said)[1])
    assert [name for name, _ in fields] == [b"host", b"x-kept", b"content-length", b"connection"]
    assert body == b"ab"


def test_a_client_of_http_1_0_is_answered_as_one() -> None:
    said = request(RIGHT, "X: a HTTP/1.1", line="GET /x HTTP/1.0")
    passed = fed(said)[1]
    assert passed.startswith(b"GET /x HTTP/1.0\r\n") and b"X: a HTTP/1.1\r\n" in passed
    assert b"Connection: close\r\n" in passed


def test_options_for_the_whole_server_are_passed_on() -> None:
    assert requests_in(fed(request(RIGHT, line="OPTIONS * HTTP/1.1"))[1])[0][1] == b"*"


def test_a_body_of_any_size_is_passed_on_as_it_comes() -> None:
    request_, passed = fed(request(RIGHT, "Content-Length: 1000000", line="PUT /big HTTP/1.1"))
    for _ in range(100):
        piece = request_.feed(b"x" * 10_000)
        assert len(piece) == 10_000
        passed += piece
    assert requests_in(passed)[0][3] == b"x" * 1_000_000


WEBSOCKET = request(RIGHT, "Connection: keep-alive, Upgrade", "Upgrade: websocket", "X: 1")


def test_a_web_socket_goes_on_when_the_server_agrees() -> None:
    said, passed = fed(WEBSOCKET + b"early")
    ((_, _, fields, _),) = requests_in(passed)
    assert (b"connection", b"Upgrade") in fields and (b"upgrade", b"websocket") in fields
    assert said.waiting and said.feed(b"+") == b""
    for each in b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81":
        said.server(bytes([each]))
    assert not said.waiting
    assert said.feed(b"") == b"early+"
    assert said.feed(b"GET / HTTP/1.1\r\n") == b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 426 Upgrade Required\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\n\r\n",
        b"garbage\r\n\r\n",
    ],
)
def test_after_a_web_socket_that_the_server_refuses_nothing_follows(answer: bytes) -> None:
    said, _ = fed(WEBSOCKET)
    said.server(answer)
    assert said.feed(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n") == b""


@pytest.mark.parametrize("protocol", ["h2c", "connect-udp", "TLS/1.2", "websocket, h2c", "tcp"])
def test_no_other_protocol_is_asked_for(protocol: str) -> None:
    said, passed = fed(
        request(
            RIGHT,
            "Connection: Upgrade, HTTP2-Settings",
            f"Upgrade: {protocol}",
            "HTTP2-Settings: AA",
        )
    )
    assert b"pgrade" not in passed and b"HTTP2" not in passed and not said.waiting
    assert b"onnection: close" in passed


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", None),
        (b"\x16", None),
        (b"\x16\3", "tls"),
        (b"\x16\2", "other"),
        (b"G", None),
        (b"GET ", None),
        (b"GET /", None),
        (b"GET / HTTP/1.1", "http"),
        (b"\r\n\r\nGET / HTTP/1.1\r\n", "http"),
        (b"get\t\v/ HTTP/1", "http"),
        (b"CONNECT x HTTP/1.1\r\n", "http"),
        (b"VERSION-CONTROL / HTTP/1.1\r\n", "http"),
        (b"GET /" + b"x" * 9000, "other"),
        (b"GET /\r\n", "other"),
        (b"PRI * HTTP/2.0\r\n", "other"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "other"),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", "other"),
        (b"EHLO me", None),
        (b"EHLO me\r\n", "other"),
        (b"PING\r\n", "other"),
        (b"*1\r\n$4\r\nPING\r\n", "other"),
        (b"USER x HTTPS\r\n", "other"),
    ],
)
def test_the_first_bytes_tell_the_protocol(data: bytes, kind: str | None) -> None:
    assert looks_like(data) == kind


def test_blanks_without_end_take_no_time() -> None:
    for end in (b"", b"\0", b"x HTTP", b"\r\n"):
        began = time.monotonic()
        assert looks_like(b"A" + b" " * 8000 + end) in (None, "other")
        assert time.monotonic() - began < 0.1


def test_a_refusal_is_an_answer_that_a_person_can_read() -> None:
    text = refusal_text("evil.test", 80, "not on the list", "On the host: --allow evil.test:80")
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "evil.test")]))
    client.send(h11.EndOfMessage())
    client.receive_data(text)
    response, body = client.next_event(), client.next_event()
    assert isinstance(response, h11.Response) and response.status_code == 403
    assert isinstance(body, h11.Data) and b"--allow evil.test:80" in bytes(body.data)
    assert isinstance(client.next_event(), h11.EndOfMessage)


PARTS = st.lists(
    st.sampled_from(
        [
            *(b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"\r\n"),
            *(b"Host: a.example.org\r\n", b"Host: evil.test\r\n", b"Host:\ta.example.org \r\n"),
            *(
                b"Content-Length: 5\r\n",
                b"Content-Length: 0\r\n",
                b"Transfer-Encoding: chunked\r\n",
            ),
            *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"hello", b"\n", b"\r", b" ", b"\0", b"X: y\r\n"),
            *(b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n", b"Connection: close\r\n"),
            *(b"GET http://evil.test/ HTTP/1.1\r\n", b"Transfer-Encoding: identity\r\n"),
        ]
    )
    | st.binary(max_size=8),
    max_size=14,
)


@given(PARTS, st.integers(1, 40))
def test_whatever_is_said_at_most_one_request_for_the_right_host_is_passed_on(
    parts: list[bytes], pieces: int
) -> None:
    data = b"".join(parts)
    passed = b""
    said = HttpRequest(parse(NAME), 80)
    try:
        for at in range(0, len(data), pieces):
            passed += said.feed(data[at : at + pieces])
    except Refused:
        pass
    if passed:
        server = h11.Connection(h11.SERVER)
        server.receive_data(passed)
        first = server.next_event()
        assert isinstance(first, h11.Request)
        assert [value for name, value in first.headers if name == b"host"] == [NAME.encode()]
        assert first.target.startswith(b"/")
        while not isinstance(event := server.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return
            assert isinstance(event, h11.Data)
        assert not server.trailing_data[0]


@given(st.binary(max_size=200), st.integers(1, 20))
def test_no_bytes_crash_it(data: bytes, pieces: int) -> None:
    for start in (data, GET[:20] + data, GET + data):
        try:
            said, _ = fed(start, pieces=pieces)
            said.server(data)
            said.feed(data)
        except Refused:
            continue
