"""One reading of every name and address: the reference table, and what must hold of any text."""

from __future__ import annotations

import ipaddress
import json
import socket
import string
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from corral.policy import BadName
from corral.policy.addresses import METADATA, forms, special
from corral.policy.names import MAX_TEXT, Host, from_address, parse, split_port

TABLE = Path(__file__).with_name("names.tsv")

Row = tuple[str, str, str]


def rows() -> list[Row]:
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("# "):
            text, canonical, kind = line.split("\t")
            found.append((json.loads(text) if text.startswith('"') else text, canonical, kind))
    return found


ROWS = rows()


def kind_of(host: Host) -> str:
    return "name" if host.address is None else special(host.address) or "public"


def test_the_table_is_long_and_says_nothing_twice() -> None:
    texts = [text for text, _, _ in ROWS]
    assert len(texts) >= 200
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(("text", "canonical", "kind"), ROWS, ids=lambda each: ascii(each)[:60])
def test_a_text_of_the_table_is_read_as_it_says(text: str, canonical: str, kind: str) -> None:
    if kind == "refused":
        with pytest.raises(BadName):
            parse(text)
        return
    host = parse(text)
    assert (host.text, kind_of(host)) == (canonical, kind)


TEXTS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet=string.ascii_letters + string.digits + ".-_:x[]%", max_size=40),
    st.text(alphabet="0123456789abcdefx.:\uff0e\u3002\uff11\u2460ÄüßK\u00ad", max_size=40),
    st.sampled_from([text for text, _, _ in ROWS]),
)


@given(TEXTS)
@example("\u2024")
def test_what_is_read_reads_as_itself(text: str) -> None:
    """Parsing is idempotent, and its result is nothing that another program reads otherwise."""
    try:
        host = parse(text)
    except BadName as error:
        assert str(error).isprintable() and str(error).isascii()
        return
    assert parse(host.text) == host
    assert host.text.isascii() and host.text == host.text.lower() and len(host.text) <= 253
    assert not set(host.text) & set(" \t\r\n\0%@/\\[]*?#")
    if host.address is None:
        # Whatever inet_aton(3) takes for an address must not pass as a name.
        with pytest.raises(OSError, match="illegal IP address string"):
            socket.inet_aton(host.text)
        assert ":" not in host.text
    else:
        assert ipaddress.ip_address(host.text) == host.address


@given(TEXTS.filter(str.isascii))
def test_case_and_the_last_dot_change_nothing(text: str) -> None:
    def reading(text: str) -> Host | None:
        try:
            return parse(text)
        except BadName:
            return None

    host = reading(text)
    assert reading(text.upper()) == host
    if host is not None and ":" not in text and not text.endswith("."):
        assert reading(f"{text}.") == host


def notations(address: ipaddress.IPv4Address) -> list[str]:
    """Ways to write it; zeros in front left out."""
    value = int(address)
    a, b, c, d = address.packed
    return [
        *(str(value), hex(value), hex(value).upper().replace("X", "x"), f"{a}.{b}.{c}.{d}."),
        *(f"{a}.{value & 0xFFFFFF}", f"{a}.{b}.{value & 0xFFFF}"),
        *(f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"{a:#x}.{b}.{c}.{d}", f"0X{a:x}.{b}.{c:#x}.{d}"),
        *(f"::ffff:{address}", f"::FFFF:{value >> 16:x}:{value & 0xFFFF:x}"),
        f"0:0:0:0:0:ffff:{a:02x}{b:02x}:{c:02X}{d:02x}",
        str(address).translate({ord("0") + digit: chr(0xFF10 + digit) for digit in range(10)}),
        str(address).replace(".", "\u3002"),
    ]


@given(st.ip_addresses(v=4))
def test_every_notation_of_an_ipv4_address_is_that_address(address: ipaddress.IPv4Address) -> None:
    for text in notations(address):
        assert parse(text) == Host(str(address), address), text


@given(st.ip_addresses(v=6))
def test_every_notation_of_an_ipv6_address_is_that_address(address: ipaddress.IPv6Address) -> None:
    assume(address.ipv4_mapped is None)
    for text in (str(address), address.exploded, address.exploded.upper()):
        assert parse(text) == Host(str(address), address)


@given(st.ip_addresses())
def test_what_python_knows_to_be_special_is_special(address: ipaddress.IPv4Address) -> None:
    """Ours refuses at least what the standard library calls not global."""
    host = from_address(address)
    assert host.address is not None
    if not special(host.address):
        plain = forms(host.address)[-1]
        assert plain.is_global and not plain.is_multicast and not plain.is_reserved


@pytest.mark.parametrize("address", sorted(map(str, METADATA)))
def test_a_metadata_address_is_known_also_behind_nat64(address: str) -> None:
    found = ipaddress.ip_address(address)
    assert special(found) == "metadata"
    if isinstance(found, ipaddress.IPv4Address):
        translated = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(found))
        assert special(translated) == "metadata"


def test_a_text_without_end_takes_no_time() -> None:
    for text in ("ü" * 100_000, "a." * 100_000, "1" * 100_000, ":" * 100_000, "xn--" * 25_000):
        with pytest.raises(BadName):
            parse(text)
    for text in ("ü" * MAX_TEXT, "1" * MAX_TEXT, "\u0301" * MAX_TEXT, "xn--" + "9" * 1000):
        with pytest.raises(BadName):
            parse(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.org", ("a.org", None)),
        ("a.org:80", ("a.org", 80)),
        ("[::1]", ("::1", None)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", None)),
        ("1.2.3.4:65535", ("1.2.3.4", 65535)),
    ],
)
def test_a_port_is_split_off(text: str, parts: tuple[str, int | None]) -> None:
    assert split_port(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "a:0",
        "a:65536",
        "a:",
        "a:+1",
        "a:1 ",
        "a:\u0661",
        "[::1",
        "[::1]80",
        "[a]:80",
        "[::1]:",
        "[]",
    ],
)
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        split_port(text)
