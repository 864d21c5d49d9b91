"""A name server that knows no names: every one gets an address of its own, for the forwarder.

Pure. Messages as RFC 1035 has them; what an agent sends is hostile, so they are read strictly: one
question, no compression in it, nothing looked at that is not needed.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RANGE = "198.18.0.0/15"  # for tests of network devices, so in use nowhere (RFC 2544)
NAME_SERVER = "198.18.0.1"
FIRST, LAST = 0xC6120002, 0xC613FFFE  # of RANGE, as numbers, without the name server
MAX_QUERY = 1232  # bytes; what resolvers announce as well (dnsflagday.net/2020)
MAX_NAME = 253  # characters of a name as text
MAX_NAMES = 4096  # that a table remembers
TTL = 30  # seconds; an address means the same name for much longer

_HEADER = Struct(">HHHHHH")
_QUESTION = Struct(">HH")
_A, _OPT, _ANY_CLASS, _INTERNET = 1, 41, 255, 1
_RESPONSE, _OPCODE, _RECURSION_WANTED, _RECURSION = 0x8000, 0x7800, 0x0100, 0x0080
_FORMAT_ERROR, _NO_SUCH_NAME, _NOT_IMPLEMENTED, _REFUSED = 1, 3, 4, 5
_ANSWER = Struct(">HHHIH4s")  # a pointer to the question's name, type, class, ttl, length, address
_OPTIONS = b"\0" + Struct(">HHIH").pack(_OPT, MAX_QUERY, 0, 0)  # RFC 6891
_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_UPPER = bytes(range(0x41, 0x5B))
_LOWER = bytes.maketrans(_UPPER, _UPPER.lower())
_LOOPBACK = b"\x7f\0\0\1"


class Table:
    """Which address stands for which name: addresses as numbers, from `first` to `last`.

    It remembers the `limit` names asked for last. An address is given to another name only when
    all others have been used: a program with an old one meets nobody rather than a stranger.
    """

    __slots__ = ("_addresses", "_first", "_last", "_limit", "_names", "_next")

    def __init__(self, first: int, last: int, limit: int = MAX_NAMES) -> None:
        self._first, self._last, self._next = first, last, first
        self._limit = min(limit, last - first)
        self._names: dict[int, str] = {}
        self._addresses: dict[str, int] = {}  # the one asked for longest ago comes first

    def address(self, name: str) -> int:
        """The address of a name, from now on if it had none."""
        address = self._addresses.pop(name, None)
        if address is None:
            if len(self._addresses) >= self._limit:
                oldest = next(iter(self._addresses))
                del self._names[self._addresses.pop(oldest)]
            address = self._free()
            self._names[address] = name
        self._addresses[name] = address
        return address

    def name(self, address: int) -> str | None:
        """The name of an address that is in use; it counts as asked for."""
        name = self._names.get(address)
        if name is not None:
            self._addresses[name] = self._addresses.pop(name)
        return name

    def _free(self) -> int:
        while self._next in self._names:
            self._step()
        found = self._next
        self._step()
        return found

    def _step(self) -> None:
        self._next = self._first if self._next == self._last else self._next + 1


def answer(message: bytes, address: Callable[[str], bytes]) -> bytes | None:
    """The answer to a message; None where none is due: to what is no question.

    address: the four bytes that stand for a name. A question for anything but an address of IPv4 is
    answered with nothing, which lets programs go on to ask for that.
    """
    if len(message) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, further = _HEADER.unpack_from(message)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return _failure(number, flags, _NOT_IMPLEMENTED)
    if questions != 1 or answers or authorities:
        return _failure(number, flags, _FORMAT_ERROR)
    found = _name(message)
    if found is None:
        return _failure(number, flags, _FORMAT_ERROR)
    name, end = found
    if len(message) < end + _QUESTION.size:
        return _failure(number, flags, _FORMAT_ERROR)
    kind, of = _QUESTION.unpack_from(message, end)
    end += _QUESTION.size
    question = message[_HEADER.size : end]
    if of not in (_INTERNET, _ANY_CLASS):
        return _reply(number, flags | _REFUSED, question)
    text = _text(name)
    if text is None:
        return _reply(number, flags | _NO_SUCH_NAME, question)
    options = _OPTIONS if further and message[end : end + 3] == _OPTIONS[:3] else b""
    if kind != _A or not text:
        return _reply(number, flags, question, options=options)
    loopback = text == "localhost" or text.endswith(".localhost")  # RFC 6761, section 6.3
    packed = _LOOPBACK if loopback else address(text)
    return _reply(number, flags, question, packed, options)


def _name(message: bytes) -> tuple[list[bytes], int] | None:
    """The labels of the question's name and where it ends; None for what is none."""
    labels: list[bytes] = []
    position = _HEADER.size
    while position < len(message):
        size = message[position]
        position += 1
        if not size:
            return labels, position
        if size > 63 or position - _HEADER.size + size > 254:
            return None
        labels.append(message[position : position + size])
        position += size
    return None


def _text(labels: list[bytes]) -> str | None:
    """A name as text, in lower case; None when it is no name of a host or service."""
    lowered = [label.translate(_LOWER) for label in labels]
    if not all(_CHARACTERS.issuperset(label) for label in lowered):
        return None
    return b".".join(lowered).decode("ascii")


def _failure(number: int, flags: int, code: int) -> bytes:
    return _HEADER.pack(number, _flags(flags, code), 0, 0, 0, 0)


def _flags(flags: int, code: int) -> int:
    return _RESPONSE | (flags & (_OPCODE | _RECURSION_WANTED)) | _RECURSION | code


def _reply(
    number: int, flags: int, question: bytes, address: bytes | None = None, options: bytes = b""
) -> bytes:
    """An answer that repeats the question, to the letter. flags: the query's, with the code."""
    head = _HEADER.pack(
        number,
        _flags(flags, flags & 0xF),
        1,
        0 if address is None else 1,
        0,
        1 if options else 0,
    )
    record = b""
    if address is not None:
        record = _ANSWER.pack(0xC000 | _HEADER.size, _A, _INTERNET, TTL, 4, address)
    return head + question + record + options
