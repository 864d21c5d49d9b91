"""The one parser of host names and addresses: for rules, for the decision and for the dial.

What two programs read differently is how such checks are got around (RFC 6943, section 3.1): so a
text is brought into its one canonical notation first, everything else works on that, and what is
dialled is made from it, never from the text. What cannot be read in one way only is refused.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from msgspec import Struct

MAX_TEXT = 1024  # characters looked at; a name of 253 bytes in non-ASCII letters has fewer
MAX_NAME = 253  # characters of a name without its last dot: 255 octets on the wire, RFC 1035 2.3.4
MAX_LABEL = 63  # RFC 1035 2.3.4

# RFC 1123 2.1, and an underscore, which names of real servers have; never in the last label.
# Hyphens at the third and fourth place are everyday use too ("r3---sn-x.googlevideo.com").
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_LAST = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

IPAddress = IPv4Address | IPv6Address


class BadName(ValueError):
    """A text that is no name, no address, or no rule; the message says why, for a person."""


class Host(Struct, frozen=True):
    """Where a connection is to lead: a name, or an address.

    text: the canonical notation of either. address: None for a name. An IPv4-mapped IPv6 address
    is its IPv4 address.
    """

    text: str
    address: IPAddress | None = None


def parse(text: str) -> Host:
    """The canonical form of a name or address that a user, a guest or a protocol says.

    Names: UTS 46 mapping, IDNA 2008, lower case, A-labels, no last dot. IPv4: any notation of
    inet_aton(3) but one with leading zeros, which some read as octal and some as decimal. IPv6: any
    notation of RFC 4291 2.2, no zone, no brackets. Parsing `text` of the result gives it again.
    Raises BadName.
    """
    if not text:
        raise BadName("there is no name.")
    if len(text) > MAX_TEXT:
        raise BadName("the name is too long.")
    if ":" in text:
        return from_address(_ipv6(text))
    name = _mapped(text)
    if name.endswith("."):
        name = name[:-1]
    labels = name.split(".")
    if not all(labels):
        raise BadName(f"{shown(text)} has an empty part between its dots.")
    if _NUMBER.fullmatch(labels[-1]):
        return from_address(_ipv4(labels, text))
    name = ".".join(_label(label, text, last=False) for label in labels[:-1])
    last = _label(labels[-1], text, last=True)
    name = f"{name}.{last}" if name else last
    if len(name) > MAX_NAME:
        raise BadName(f"{shown(text)} is longer than {MAX_NAME} characters.")
    return Host(name)


def from_address(address: IPAddress) -> Host:
    """The canonical form of an address."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise BadName(f"{address} names an interface of one machine.")
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    return Host(str(address), address)


def split_port(text: str) -> tuple[str, int | None]:
    """HOST, HOST:PORT, [IPV6] or [IPV6]:PORT as its two parts; an IPv6 address alone has no port.

    The first part is not looked at, but for brackets. Raises BadName.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise BadName(f"{shown(text)}: brackets are for an IPv6 address, as in [::1]:80.")
        return host, (parse_port(rest[1:]) if rest else None)
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, (parse_port(port) if colon else None)


def parse_port(text: str, *, lowest: int = 1) -> int:
    """A port number in decimal. Raises BadName."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and lowest <= int(text) < 65536):
        raise BadName(f"{shown(text)} is not a port: a number from {lowest} to 65535.")
    return int(text)


def shown(text: str) -> str:
    """A text in a message: short, quoted, nothing in it that drives a terminal."""
    return ascii(text if len(text) <= 80 else f"{text[:77]}...")


def _mapped(text: str) -> str:
    """Lower case, and what UTS 46 says is the same letter or dot."""
    if text.isascii():
        return text.lower()
    import idna  # it takes milliseconds, and most names need none of it

    try:
        return idna.uts46_remap(text, std3_rules=False, transitional=False)
    except UnicodeError as error:
        raise _no_name(text, error) from error


def _label(label: str, text: str, *, last: bool) -> str:
    if not label.isascii():
        label = _a_label(label, text)
    if label.startswith("xn--"):
        _check_a_label(label, text)
    elif len(label) > MAX_LABEL:
        raise BadName(f"{shown(text)} has a part longer than {MAX_LABEL} characters.")
    elif not (_LAST if last else _LABEL).fullmatch(label):
        raise BadName(
            f"{shown(text)} is not a host name: it may have letters, digits, dots and, "
            "not at the ends of a part, hyphens."
        )
    return label


def _check_a_label(label: str, text: str) -> None:
    import idna

    try:
        again = idna.alabel(idna.ulabel(label)).decode("ascii")
    except UnicodeError as error:
        raise _no_name(text, error) from error
    if again != label:
        raise BadName(f"{shown(text)} has a part that no name is encoded as: {label}.")


def _no_name(text: str, error: UnicodeError) -> BadName:
    why = str(error).encode("ascii", "backslashreplace").decode("ascii")
    return BadName(f"{shown(text)} is not a host name: {why}.")


def _a_label(label: str, text: str) -> str:
    import idna

    try:
        return idna.alabel(label).decode("ascii")
    except UnicodeError as error:
        raise _no_name(text, error) from error


def _ipv4(parts: list[str], text: str) -> IPv4Address:
    """inet_aton(3): one to four parts, the last one fills what is left; decimal or hexadecimal."""
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) and part != "0x" for part in parts):
        raise BadName(f"{shown(text)} ends in a number and is no IPv4 address.")
    if any(len(part) > 1 and part[0] == "0" and part[1] != "x" for part in parts):
        raise BadName(f"{shown(text)} has zeros in front, which some read as octal, some do not.")
    if any(len(part) > 12 for part in parts):
        raise BadName(f"{shown(text)} has a number that is too large.")
    numbers = [int(part, 16) if part.startswith("0x") else int(part) for part in parts]
    value, free = 0, 32
    for number in numbers[:-1]:
        free -= 8
        if number > 255:
            raise BadName(f"{shown(text)} has a number that is too large.")
        value |= number << free
    if numbers[-1] >= 1 << free:
        raise BadName(f"{shown(text)} has a number that is too large.")
    return IPv4Address(value | numbers[-1])


def _ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise BadName(f"{shown(text)} names an interface of one machine.")
    try:
        return IPv6Address(text)
    except AddressValueError as error:
        raise BadName(f"{shown(text)} is neither a host name nor an IPv6 address.") from error
