"""TLS is passed on when its ClientHello, whole and in the clear, names the right host alone."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.policy.names import parse
from corral.policy.sniff import Refused, TlsStart
from corral.policy.sniff.tls import MAX_HELLO

from .hellos import ECH, extension, hello, openssl, plain, records, server_hello, server_name

NAME = "a.example.org"
HOST = parse(NAME)
OF_OPENSSL = openssl(NAME)
CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")


def fed(data: bytes, host: str = NAME, pieces: int = 1 << 20) -> tuple[TlsStart, bytes]:
    start = TlsStart(parse(host))
    passed = b""
    for at in range(0, len(data), pieces):
        passed += start.feed(data[at : at + pieces])
    return start, passed


def refused(data: bytes, host: str = NAME) -> str:
    with pytest.raises(Refused) as error:
        fed(data, host)
    return str(error.value)


@pytest.mark.parametrize("newest", [None, ssl.TLSVersion.TLSv1_2])
@pytest.mark.parametrize("pieces", [1 << 20, 7, 1])
def test_what_openssl_says_is_passed_on_as_it_is(
    newest: ssl.TLSVersion | None, pieces: int
) -> None:
    said = openssl(NAME, newest=newest)
    start, passed = fed(said, pieces=pieces)
    assert passed == said and start.started


def test_another_name_of_openssl_is_refused() -> None:
    assert refused(openssl("b.example.org")) == "the TLS name is another one: b.example.org"
    assert refused(openssl(None)) == "TLS without a server name"


def test_records_may_split_the_hello_anywhere() -> None:
    message = hello(server_name(NAME.encode()))
    for sizes in ([1] * (len(message) - 1), [4], [1, 2, 3], [len(message) - 1]):
        said = records(message, sizes)
        assert fed(said)[1] == said
        assert fed(said, pieces=1)[1] == said
        wrong = records(hello(server_name(b"b.example.org")), sizes)
        assert "another one" in refused(wrong)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (hello(), "TLS without a server name"),
        (hello(extension(10, b"")), "TLS without a server name"),
        (hello(server_name(NAME.encode(), b"b.org")), "TLS with several server names"),
        (hello(server_name(NAME.encode(), NAME.encode())), "TLS with several server names"),
        (hello(server_name()), "TLS with several server names"),
        (hello(server_name(NAME.encode(), kind=1)), "TLS with a server name of another kind"),
        (hello(server_name(NAME.encode()), extension(ECH, b"")), "TLS with encrypted ClientHello"),
        (hello(extension(ECH, b"x" * 200), server_name(NAME.encode())), "encrypted ClientHello"),
        (hello(server_name(NAME.encode()), extension(0xFFCE, b"")), "encrypted server name"),
        (hello(server_name(NAME.encode()), server_name(NAME.encode())), "a malformed ClientHello"),
        (hello(server_name(b"a.example.org.")), "another one"),
        (hello(server_name(b"b.example.org")), "another one"),
        (hello(server_name(b"x.a.example.org")), "another one"),
        (hello(server_name(b"example.org")), "another one"),
        (hello(server_name(b"a.example.org\0")), "not a name"),
        (hello(server_name(b"a.example.org\0.b.org")), "not a name"),
        (hello(server_name(b"")), "not a name"),
        (hello(server_name(b"*.example.org")), "not a name"),
        (hello(server_name(b"192.0.2.1")), "another one"),
        (hello(server_name("ä.example.org".encode())), "not a name"),
        (hello(server_name(b"\xff\xfe")), "not a name"),
        (hello(server_name(NAME.encode()), tail=b"x"), "a malformed ClientHello"),
        (hello(extension(0, b"")), "a malformed ClientHello"),
        (hello(extension(0, b"\0\xff")), "a malformed ClientHello"),
        (hello(server_name(NAME.encode()), version=b"\2\0"), "not TLS"),
        (b"\2" + hello(server_name(NAME.encode()))[1:], "not TLS"),
        (b"\1\xff\xff\xff" + bytes(MAX_HELLO), "a ClientHello without end"),
        (b"\1\0\0\0", "a malformed ClientHello"),
        (hello(server_name(NAME.encode())) + hello(server_name(b"b.org")), "more than"),
    ],
)
def test_a_hello_that_is_not_for_this_host_alone_is_refused(message: bytes, reason: str) -> None:
    sizes = [1 << 14] * (len(message) >> 14)
    assert reason in refused(records(message, sizes))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\1\3\1",  # the ClientHello of SSL 2
        bytes.fromhex("1502010002"),
        bytes.fromhex("16030100"),
        bytes.fromhex("1603010000"),
        bytes.fromhex("160301ffff"),
        bytes.fromhex("1602010005"),
        CHANGE_CIPHER_SPEC,
    ],
)
def test_what_is_not_the_start_of_tls_is_refused(data: bytes) -> None:
    if data == bytes.fromhex("16030100"):
        assert fed(data)[1] == b""
    else:
        assert refused(data) == "not TLS"


def test_the_name_may_differ_in_case_only() -> None:
    said = plain("A.Example.ORG")
    assert fed(said)[1] == said


def test_an_address_has_no_server_name() -> None:
    said = records(hello(extension(10, b"")))
    assert fed(said, "192.0.2.1")[1] == said
    assert fed(records(hello()), "192.0.2.1")[1]
    for name in ("a.example.org", "192.0.2.1"):
        assert "not the address" in refused(plain(name), "192.0.2.1")
    assert "encrypted" in refused(records(hello(extension(ECH, b""))), "192.0.2.1")


def test_nothing_follows_the_hello_until_the_server_has_answered() -> None:
    first = plain(NAME)
    start, passed = fed(first + CHANGE_CIPHER_SPEC + b"more")
    assert passed == first and start.waiting
    assert start.feed(b"!") == b""
    answer = server_hello()
    for at in range(len(answer)):
        start.server(answer[at : at + 1])
    assert not start.waiting
    assert start.feed(b"") == CHANGE_CIPHER_SPEC + b"more!"
    assert start.feed(plain("b.org")) == plain("b.org"), "encrypted, or the server's own affair"


@pytest.mark.parametrize("pieces", [1 << 20, 1])
@pytest.mark.parametrize("between", [b"", CHANGE_CIPHER_SPEC])
def test_a_second_hello_is_looked_at_too(pieces: int, between: bytes) -> None:
    """The server asks for another ClientHello; it must not name another host."""

    def second(data: bytes) -> bytes:
        start, _ = fed(plain(NAME))
        start.server(server_hello(retry=True))
        return b"".join(start.feed(data[at : at + pieces]) for at in range(0, len(data), pieces))

    good = between + plain(NAME) + b"\x17\3\3\0\1x"
    assert second(good) == good
    for bad in (
        plain("b.example.org"),
        records(hello(server_name(NAME.encode()), extension(ECH, b""))),
        records(hello()),
        b"GET /",
        b"\x18\3\3\0\1x" + plain("b.example.org"),
    ):
        with pytest.raises(Refused):
            second(between + bad)


def test_a_second_hello_sent_ahead_is_looked_at_too() -> None:
    first = plain(NAME)
    start, passed = fed(first + CHANGE_CIPHER_SPEC + plain("b.example.org"))
    assert passed == first
    start.server(server_hello(retry=True))
    with pytest.raises(Refused):
        start.feed(b"")


def test_a_server_that_splits_its_answer_is_taken_to_ask_again() -> None:
    answer = server_hello()[5:]
    start, _ = fed(plain(NAME))
    start.server(records(answer, [3, 10]))
    with pytest.raises(Refused):
        start.feed(plain("b.example.org"))


@pytest.mark.parametrize("pieces", [1 << 20, 1])
def test_a_warning_before_the_servers_answer_changes_nothing(pieces: int) -> None:
    for answer, opens in ((server_hello(), True), (server_hello(retry=True), False)):
        start, _ = fed(plain(NAME))
        said = b"\x15\3\3\0\2\1\x70" * 99 + answer
        for at in range(0, len(said), pieces):
            start.server(said[at : at + pieces])
        if opens:
            assert start.feed(plain("b.org")) == plain("b.org")
        else:
            with pytest.raises(Refused):
                start.feed(plain("b.org"))


def test_a_server_that_speaks_no_tls_is_passed_on() -> None:
    start, _ = fed(plain(NAME))
    start.server(b"HTTP/1.1 400 Bad Request\r\n")
    assert start.feed(b"anything") == b"anything"


@given(st.binary(max_size=300), st.integers(1, 50))
def test_no_bytes_crash_it_and_none_pass_unless_they_name_the_host(data: bytes, size: int) -> None:
    for start in (data, b"\x16\3\1" + data, records(b"\1" + data), records(hello(data))):
        try:
            passed = fed(start, pieces=size)[1]
        except Refused:
            continue
        assert passed == b"" or server_name(NAME.encode()).lower() in start.lower()


@given(st.data())
def test_a_hello_with_one_byte_changed_passes_only_if_the_name_is_still_right(
    data: st.DataObject,
) -> None:
    said = bytearray(OF_OPENSSL)
    said[data.draw(st.integers(0, len(said) - 1))] = data.draw(st.integers(0, 255))
    try:
        passed = fed(bytes(said), pieces=data.draw(st.integers(1, 600)))[1]
    except Refused:
        return
    assert passed == b"" or NAME.encode() in bytes(said).lower()


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(1, 99), st.booleans())
def test_no_split_of_records_and_reads_passes_a_wrong_name(
    sizes: list[int], pieces: int, right: bool
) -> None:
    said = records(hello(server_name(NAME.encode() if right else b"b.example.org")), sizes)
    if right:
        assert fed(said, pieces=pieces)[1] == said
    else:
        assert "another one" in refused(said)


def test_a_hello_in_single_bytes_takes_no_time() -> None:
    """Looking at it all again for each byte would take minutes."""
    message = b"\1\0\xf0\0" + bytes(0xEFFF)
    start = TlsStart(HOST)
    with pytest.raises(Refused):
        for each in records(message, [9] * 7000):
            start.feed(bytes([each]))
