"""Archives: what is written reads back everywhere; what is read is bounded and strict."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_guest import tar
from corral_guest.tar import ArchiveError, Entry, Reader

names = st.binary(min_size=1, max_size=120).filter(
    lambda name: name not in (b".", b"..") and not set(name) & {0, ord("/")}
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
entries = st.one_of(
    st.builds(Entry, paths, st.just(tar.FOLDER), st.integers(0, 0o7777)),
    st.builds(
        Entry,
        paths,
        st.sampled_from((tar.LINK, tar.HARD_LINK)),
        st.integers(0, 0o7777),
        target=paths,
    ),
    st.builds(
        Entry,
        paths,
        st.just(tar.FILE),
        st.integers(0, 0o7777),
        st.integers(0, 2000),
        st.integers(0, tar.MAX_TIME),
    ),
)


def archive(content: Iterable[Entry]) -> bytes:
    """An archive; a file's bytes are as many `x` as it is long."""
    data = b""
    for entry in content:
        data += tar.header(entry)
        if entry.kind == tar.FILE:
            data += b"x" * entry.size + tar.padding(entry.size)
    return data + tar.END


def parsed(data: bytes, piece: int = 1 << 20) -> list[tuple[object, ...]]:
    """All entries, each with its content."""
    reader = Reader()
    found: list[tuple[Entry, bytearray]] = []
    for start in range(0, len(data), piece):
        for event in reader.feed(data[start : start + piece]):
            if isinstance(event, bytes):
                found[-1][1].extend(event)
            else:
                found.append((event, bytearray()))
    assert reader.ended
    return [(*shown(entry), bytes(content)) for entry, content in found]


def shown(entry: Entry) -> list[object]:
    return [entry.path, entry.kind, entry.mode, entry.size, entry.time, entry.target]


@given(st.lists(entries, max_size=5), st.integers(1, 3000))
@settings(max_examples=100)
def test_what_is_written_reads_back_whatever_the_pieces(content: list[Entry], piece: int) -> None:
    expected = [(*shown(entry), b"x" * entry.size) for entry in content]
    assert parsed(archive(content), piece) == expected


@given(st.lists(entries, max_size=5))
@settings(max_examples=100)
def test_the_standard_library_reads_the_same(content: list[Entry]) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(content))) as found:
        assert [
            (member.name.encode("utf-8", "surrogateescape"), member.mode, member.size)
            for member in found.getmembers()
        ] == [(entry.path, entry.mode, entry.size) for entry in content]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_the_standard_library_writes_is_read(form: int) -> None:
    written = io.BytesIO()
    long = "d" * 90 + "/" + "e" * 90 + ("" if form == tarfile.USTAR_FORMAT else "f" * 100)
    with tarfile.open(fileobj=written, mode="w", format=form) as file:
        for name, kind in ((long, tarfile.REGTYPE), ("d", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mtime = kind, 3 * (kind == tarfile.REGTYPE), 7
            file.addfile(member, io.BytesIO(b"abc"))
    assert parsed(written.getvalue()) == [
        (long.encode(), tar.FILE, 0o644, 3, 7, b"", b"abc"),
        (b"d", tar.FOLDER, 0o644, 0, 7, b"", b""),
    ]


@given(st.binary(max_size=3000), st.integers(1, 700))
@settings(max_examples=100)
def test_noise_is_an_archive_error_or_nothing(noise: bytes, piece: int) -> None:
    reader = Reader()
    with contextlib.suppress(ArchiveError):
        for start in range(0, len(noise), piece):
            list(reader.feed(noise[start : start + piece]))


@given(st.lists(entries, min_size=1, max_size=3), st.data())
@settings(max_examples=200)
def test_a_damaged_archive_never_does_more_than_fail(
    content: list[Entry], data: st.DataObject
) -> None:
    damaged = bytearray(archive(content))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ArchiveError):
        list(Reader().feed(damaged))


def test_a_header_that_claims_much_is_refused_before_it_is_held() -> None:
    block = tar._block(b"pax", b"x", 0o644, tar.MAX_RECORDS + 1, 0, b"")
    with pytest.raises(ArchiveError, match="too long"):
        list(Reader().feed(block))


def test_a_file_of_any_size_is_read_without_holding_it() -> None:
    reader = Reader()
    (entry,) = reader.feed(tar.header(Entry(b"huge", tar.FILE, 0o644, 1 << 40)))
    assert isinstance(entry, Entry)
    assert (entry.size, reader.left) == (1 << 40, 1 << 40)
    for _ in range(3):
        assert sum(map(len, reader.feed(bytes(1 << 20)))) == 1 << 20  # type: ignore[arg-type]
    assert not reader._data


def _raw(flag: bytes, size: int = 0, target: bytes = b"", path: bytes = b"a") -> bytes:
    return tar._block(path, flag, 0o644, size, 0, target)


def _pax(records: bytes) -> bytes:
    return _raw(b"x", len(records)) + records + tar.padding(len(records))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\1" * 512, "no number"),
        (bytes(511) + b"x", "damaged"),
        (_raw(b"S"), "not understood"),
        (_raw(b"M"), "not understood"),
        (_raw(b"5", 5), "with content"),
        (_raw(b"2", 5, b"t"), "with content"),
        (_raw(b"2"), "link to nothing"),
        (_raw(b"x"), "empty"),
        (_pax(b"9 path=a\n") + _pax(b"9 path=a\n"), "two headers"),
        (_pax(b"9 path=a\n9 path=b\n"), "twice"),
        (_pax(b"8 path=a\n"), "damaged pax"),
        (_pax(b"99 path=a\n"), "damaged pax"),
        (_pax(b"-9 path=a\n"), "damaged pax"),
        (_pax(b"11 size=-1\n") + _raw(b"0"), "no number"),
        (_pax(b"17 size=99999999\n") + _raw(b"5"), "with content"),
        (_pax(b"22 GNU.sparse.major=1\n"), "sparse"),
        (_raw(b"g", 9) + b"9 path=a\n" + bytes(503), "for all entries"),
        (bytes(512) + _raw(b"0"), "empty block"),
        (_pax(b"9 path=a\n") + bytes(512), "ends where an entry"),
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ArchiveError, match=reason):
        list(Reader().feed(data))


@pytest.mark.parametrize(
    "path",
    [
        *(b"", b"/", b"/etc/passwd", b"..", b"a/..", b"a/../b", b"./a", b"a//b", b"a/", b"a\0b"),
        *(b"n" * 256, b"/".join([b"n" * 200] * 21)),
    ],
)
def test_a_path_that_leaves_or_is_none_is_refused(path: bytes) -> None:
    with pytest.raises(ArchiveError):
        tar.check_path(path)
