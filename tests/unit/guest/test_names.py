"""The name server: an address for every name, nothing for any other question, and no crash."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_guest import names

ADDRESS = bytes((198, 18, 0, 9))
A, AAAA, TXT, HTTPS, PTR, ANY = 1, 28, 16, 65, 12, 255
OPTIONS = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def query(
    name: str | bytes, kind: int = A, *, of: int = 1, flags: int = 0x0100, further: bytes = b""
) -> bytes:
    """A question, as a resolver asks it."""
    raw = name if isinstance(name, bytes) else encoded(name)
    head = struct.pack(">HHHHHH", 0x1234, flags, 1, 0, 0, 1 if further else 0)
    return head + raw + struct.pack(">HH", kind, of) + further


def encoded(name: str) -> bytes:
    """A name on the wire."""
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def asked(message: bytes) -> tuple[bytes | None, list[str]]:
    """The answer, and the names for which an address was wanted."""
    wanted: list[str] = []

    def address(name: str) -> bytes:
        wanted.append(name)
        return ADDRESS

    return names.answer(message, address), wanted


def parts(answer: bytes | None) -> tuple[int, int, int, bytes]:
    """Flags, number of answers, number of further records, and what follows the header."""
    assert answer is not None
    number, flags, questions, answers, _authorities, further = struct.unpack_from(">HHHHHH", answer)
    assert number == 0x1234
    assert flags & 0x8000
    assert questions in (0, 1)
    return flags, answers, further, answer[12:]


def test_every_name_has_an_address() -> None:
    question = query("Files.PythonHosted.org")
    answer, wanted = asked(question)
    flags, answers, further, rest = parts(answer)
    assert (flags & 0xF, answers, further) == (0, 1, 0)
    assert rest.startswith(question[12:])  # to the letter: resolvers compare it
    assert rest.endswith(ADDRESS)
    assert wanted == ["files.pythonhosted.org"]


@pytest.mark.parametrize("kind", [AAAA, TXT, HTTPS, PTR, ANY, 64, 15, 2, 33])
def test_other_questions_have_no_answer_and_are_no_error(kind: int) -> None:
    flags, answers, _further, _rest = parts(asked(query("example.test", kind))[0])
    assert (flags & 0xF, answers) == (0, 0)


def test_a_resolver_with_extensions_gets_its_record_back() -> None:
    flags, answers, further, rest = parts(asked(query("example.test", further=OPTIONS))[0])
    assert (flags & 0xF, answers, further) == (0, 1, 1)
    assert rest.endswith(OPTIONS)


@pytest.mark.parametrize("name", ["localhost", "app.localhost", "LOCALHOST"])
def test_localhost_is_the_loopback(name: str) -> None:
    answer, wanted = asked(query(name))
    assert answer is not None
    assert answer.endswith(bytes((127, 0, 0, 1)))
    assert wanted == []


@pytest.mark.parametrize(
    "name",
    [
        b"\x03a\0b\x04test\0",  # a NUL in it
        b"\x03a.b\x04test\0",  # a dot that is none
        b"\x02a%\x04test\0",
        b"\x02\xc3\xa4\x04test\0",  # not ASCII: names travel as IDNA
        b"\x02a \x04test\0",
        b"\x02a/\x04test\0",
    ],
)
def test_what_is_no_name_of_a_host_does_not_exist(name: bytes) -> None:
    answer, wanted = asked(query(name))
    assert parts(answer)[0] & 0xF == 3
    assert wanted == []


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (query("a.test", flags=0x0900), 4),  # another operation
        (query(b"\xc0\x0c"), 1),  # a name that is a pointer to itself
        (query(b"\x40" + b"a" * 64 + b"\0"), 1),  # a label too long
        (query((b"\x3f" + b"a" * 63) * 4 + b"\0"), 1),  # a name too long
        (query("a.test")[:-1], 1),  # cut off
        (query("a.test")[:12], 1),
        (query("a.test", of=3), 5),  # of no internet
        (struct.pack(">HHHHHH", 0x1234, 0, 2, 0, 0, 0) + query("a.test")[12:], 1),
        (struct.pack(">HHHHHH", 0x1234, 0, 1, 1, 0, 0) + query("a.test")[12:], 1),
    ],
)
def test_nonsense_is_refused(message: bytes, code: int) -> None:
    answer, wanted = asked(message)
    assert parts(answer)[0] & 0xF == code
    assert wanted == []


@pytest.mark.parametrize("message", [b"", b"x" * 11, query("a.test", flags=0x8180)])
def test_who_asks_nothing_hears_nothing(message: bytes) -> None:
    assert asked(message) == (None, [])


def test_the_root_has_no_address() -> None:
    assert parts(asked(query(b"\0"))[0])[1] == 0


@given(st.binary(max_size=600))
def test_no_message_is_too_strange(message: bytes) -> None:
    answer, wanted = asked(message)
    assert answer is None or 12 <= len(answer) <= 12 + 255 + 4 + 16 + 11
    assert all(len(name) <= names.MAX_NAME for name in wanted)


@given(
    st.lists(st.binary(min_size=1, max_size=63), max_size=8),
    st.integers(0, 65535),
    st.binary(max_size=40),
)
def test_no_question_is_too_strange(labels: list[bytes], kind: int, further: bytes) -> None:
    """Whatever is asked: an address is made for names of hosts only, and for what names say."""
    raw = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    answer, wanted = asked(query(raw, kind, further=further))
    flags, answers, _further, rest = parts(answer)
    assert answers == (1 if wanted else 0)
    if wanted:
        assert flags & 0xF == 0
        assert rest.startswith(raw)
        assert wanted == [b".".join(labels).lower().decode()]


@given(st.lists(st.sampled_from([f"n{number}.test" for number in range(12)]), max_size=80))
def test_an_address_means_one_name(asked_for: list[str]) -> None:
    """The last ones asked for are known; no address ever stands for two names at once."""
    table = names.Table(10, 30, limit=5)
    last: dict[str, int] = {}
    for name in asked_for:
        address = table.address(name)
        assert 10 <= address <= 30
        assert table.name(address) == name
        last.pop(name, None)
        last[name] = address
    known = list(last.items())[-5:]
    assert [table.name(address) for _name, address in known] == [name for name, _ in known]
    assert len({address for _name, address in known}) == len(known)


def test_a_forgotten_address_means_nobody_for_long() -> None:
    table = names.Table(0, 99, limit=4)
    first = table.address("first.test")
    for number in range(90):
        table.address(f"n{number}.test")
    assert table.name(first) is None


def test_a_name_that_is_dialled_is_remembered() -> None:
    table = names.Table(0, 99, limit=4)
    first = table.address("first.test")
    for number in range(50):
        table.address(f"n{number}.test")
        assert table.name(first) == "first.test"
