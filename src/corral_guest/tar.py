"""Archives of files as they travel between host and guest: a strict subset of tar, both ways.

Sans-I/O, one definition for both sides. Written is what every tar reads: ustar headers (POSIX.1,
pax(1)), with a pax record where a path, a link's target or a size does not fit. Read is that, and
GNU's long names. Everything else is an error: what comes from a guest is hostile, and two readers
that understand an archive differently are a hole. Nothing here grows with what an archive claims.

Not the standard library's tarfile: it holds a header of any size in memory, and importing it takes
an emulated guest 0.2 to 0.3 s.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
MAX_PATH = 4095  # bytes (PATH_MAX without its NUL, linux/limits.h)
MAX_NAME = 255  # bytes of one part of a path (NAME_MAX)
MAX_RECORDS = 64 * 1024  # bytes of one pax header, or of a GNU long name
MAX_SIZE = (1 << 63) - 1  # bytes of one file (off_t)
MAX_TIME = (1 << 33) - 1  # seconds: eleven octal digits

FILE, FOLDER, LINK, HARD_LINK, OTHER = "file", "folder", "link", "hard link", "other"
END = bytes(2 * BLOCK)

_KINDS = {48: FILE, 0: FILE, 55: FILE, 49: HARD_LINK, 50: LINK, 53: FOLDER}  # by typeflag
_DEVICES = b"346"  # character device, block device, pipe
_FLAGS = {FILE: b"0", HARD_LINK: b"1", LINK: b"2", FOLDER: b"5"}
_OCTAL = frozenset(b"01234567")
_DIGITS = frozenset(b"0123456789")


class ArchiveError(ValueError):
    """An archive is damaged, or not of the kind that is read here."""


class Entry:
    """One file, folder or link. path and target: bytes. size: bytes. time: seconds since 1970.

    mode: all twelve bits, as the archive says. target: of a link; else empty.
    """

    __slots__ = ("kind", "mode", "path", "size", "target", "time")

    def __init__(
        self, path: bytes, kind: str, mode: int, size: int = 0, time: int = 0, target: bytes = b""
    ) -> None:
        self.path = path
        self.kind = kind
        self.mode = mode
        self.size = size
        self.time = time
        self.target = target

    def __repr__(self) -> str:
        return f"Entry({self.path!r}, {self.kind}, {self.mode:o}, {self.size}, {self.target!r})"


def check_path(path: bytes) -> list[bytes]:
    """The parts of an entry's path. Raises ArchiveError unless it stays below where it is unpacked.

    Refused: absolute paths, `..`, `.`, empty parts, NULs, and what no Linux file can be called.
    """
    parts = path.split(b"/")
    if len(path) > MAX_PATH or b"\0" in path:
        raise ArchiveError("a path is too long or has a NUL in it")
    for part in parts:
        if part in (b"", b".", b"..") or len(part) > MAX_NAME:
            raise ArchiveError(
                "a path is absolute, leaves its folder or has a part that is no name"
            )
    return parts


def header(entry: Entry) -> bytes:
    """The blocks before an entry's content. Raises ArchiveError for what no archive can hold."""
    records = b""
    path, target, size = entry.path, entry.target, entry.size
    if entry.kind == FOLDER:
        path += b"/"
    if len(path) > 100:
        records += _record(b"path", path)
    if len(target) > 100:
        records += _record(b"linkpath", target)
    if size >= 1 << 33:
        records += _record(b"size", b"%d" % size)
        size = 0
    blocks = b""
    if records:
        blocks = _block(b"pax", b"x", 0o644, len(records), 0, b"") + records + padding(len(records))
    time = min(max(entry.time, 0), MAX_TIME)
    flag = _FLAGS.get(entry.kind)
    if flag is None or max(len(path), len(target)) > MAX_PATH + 1:
        raise ArchiveError("nothing that an archive can hold")
    return blocks + _block(path[:100], flag, entry.mode & 0o7777, size, time, target[:100])


def padding(size: int) -> bytes:
    """What follows a content of so many bytes."""
    return bytes(-size % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """One pax record: its own length, key and value."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while len(b"%d" % size) + len(rest) != size:
        size = len(b"%d" % size) + len(rest)
    return b"%d" % size + rest


def _block(path: bytes, flag: bytes, mode: int, size: int, time: int, target: bytes) -> bytes:
    start = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        path.ljust(100, b"\0"), mode, 0, 0, size, time,
    )  # fmt: skip
    end = flag + target.ljust(100, b"\0") + b"ustar\00000" + bytes(247)
    total = sum(start) + 8 * 32 + sum(end)
    return b"%s%06o\0 %s" % (start, total, end)


class Reader:
    """Takes an archive in pieces of any size and tells what is in it.

    left: bytes of the current entry's content that are still to come. ended: its end was seen; what
    follows it is not looked at.
    """

    __slots__ = ("_data", "_empty", "_long", "_meta", "_pad", "_records", "ended", "left")

    def __init__(self) -> None:
        self._data = bytearray()
        self._pad = 0
        self._meta = 0  # the typeflag of a header about the next entry, while its content comes
        self._records: dict[bytes, bytes] = {}
        self._long: dict[bytes, bytes] = {}
        self._empty = False
        self.left = 0
        self.ended = False

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Entry | bytes]:
        """Entries, each followed by the pieces of its content. Raises ArchiveError."""
        buffer = self._data
        buffer += data
        while not self.ended:
            if self._meta:
                if len(buffer) < self.left:
                    return
                self._take_meta()
            elif self.left:
                if not buffer:
                    return
                piece = bytes(memoryview(buffer)[: self.left])
                del buffer[: len(piece)]
                self.left -= len(piece)
                yield piece
            elif self._pad:
                size = min(self._pad, len(buffer))
                del buffer[:size]
                self._pad -= size
                if self._pad:
                    return
            elif len(buffer) < BLOCK:
                return
            else:
                block = bytes(memoryview(buffer)[:BLOCK])
                del buffer[:BLOCK]
                entry = self._header(block)
                if entry is not None:
                    yield entry

    def _header(self, block: bytes) -> Entry | None:
        if not any(block):
            if self._records or self._long:
                raise ArchiveError("the archive ends where an entry should be")
            self.ended, self._empty = self._empty, True
            return None
        if self._empty:
            raise ArchiveError("an empty block among the entries")
        total = sum(block) - sum(block[148:156]) + 8 * 32
        if _octal(block[148:156]) != total or block[257:262] != b"ustar":
            raise ArchiveError("no header of an entry, or a damaged one")
        flag = block[156]
        size = _number(block[124:136])
        if flag not in b"xgLK":
            return self._entry(block, flag, size)
        if not 0 < size <= MAX_RECORDS:
            raise ArchiveError("a header about the next entry is empty or too long")
        self._meta, self.left, self._pad = flag, size, -size % BLOCK
        return None

    def _entry(self, block: bytes, flag: int, size: int) -> Entry:
        path = _text(block[:100])
        if block[257:265] == b"ustar\00000":
            prefix = _text(block[345:500])
            path = prefix + b"/" + path if prefix else path
        target = _text(block[157:257])
        path = self._records.get(b"path", self._long.get(b"L", path))
        target = self._records.get(b"linkpath", self._long.get(b"K", target))
        if b"size" in self._records:
            size = _decimal(self._records[b"size"])
        self._records, self._long = {}, {}
        kind = _KINDS.get(flag)
        if kind == FILE and path.endswith(b"/"):
            kind = FOLDER  # as archives older than ustar have it
        if kind is None and flag in _DEVICES:
            kind = OTHER
        if kind is None:
            raise ArchiveError(f"an entry of kind {chr(flag)!r}, which is not understood")
        if kind != FILE and size:
            raise ArchiveError(f"a {kind} with content")
        if kind == FOLDER:
            path = path[:-1] if path.endswith(b"/") else path
        if kind not in (LINK, HARD_LINK):
            target = b""
        elif not target or b"\0" in target or len(target) > MAX_PATH:
            raise ArchiveError("a link to nothing, or to a path that is too long")
        self.left, self._pad = size, -size % BLOCK
        mode, time = _octal(block[100:108]) & 0o7777, _number(block[136:148])
        return Entry(path, kind, mode, size, time, target)

    def _take_meta(self) -> None:
        data = bytes(memoryview(self._data)[: self.left])
        del self._data[: self.left]
        flag, self._meta, self.left = chr(self._meta), 0, 0
        if flag in "LK":
            key = flag.encode()
            if key in self._long:
                raise ArchiveError("two long names for one entry")
            self._long[key] = data.rstrip(b"\0")
        else:
            records = parse_records(data)
            if flag == "g":
                if not records.keys().isdisjoint((b"path", b"linkpath", b"size")):
                    raise ArchiveError("one path or size for all entries")
            elif self._records:
                raise ArchiveError("two headers about one entry")
            else:
                self._records = records


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """The records of a pax header: `LENGTH KEY=VALUE` and a newline each. Raises ArchiveError."""
    records: dict[bytes, bytes] = {}
    while data:
        digits, space, _rest = data[:8].partition(b" ")
        size = int(digits) if space and digits and _DIGITS.issuperset(digits) else 0
        key, equals, value = data[len(digits) + 1 : size - 1].partition(b"=")
        if not 0 < size <= len(data) or data[size - 1 : size] != b"\n" or not equals or not key:
            raise ArchiveError("a damaged pax header")
        if key in records or key.startswith(b"GNU.sparse"):
            raise ArchiveError("a pax header says something twice, or describes a sparse file")
        records[key] = value
        data = data[size:]
    return records


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decimal(text: bytes) -> int:
    if not 0 < len(text) <= 19 or not _DIGITS.issuperset(text) or int(text) > MAX_SIZE:
        raise ArchiveError("a size that is no number")
    return int(text)


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not _OCTAL.issuperset(digits):
        raise ArchiveError("a field that is no number")
    return int(digits, 8) if digits else 0


def _number(field: bytes) -> int:
    """A size or time: octal digits, or GNU's base 256."""
    if field[0] != 0x80:
        return _octal(field)
    value = int.from_bytes(field[1:], "big")
    if value > MAX_SIZE:
        raise ArchiveError("a number that is too large")
    return value
