from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.images import cpio


def read(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Read an archive as the kernel's init/initramfs.c does."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        numbers = [int(data[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        name = data[position + 110 : position + 110 + numbers[11] - 1].decode()
        start = position + 110 + numbers[11]
        start += -start % 4
        content = data[start : start + numbers[6]]
        position = start + numbers[6]
        position += -position % 4
        if name == "TRAILER!!!":
            assert position == len(data)
            return found
        assert name not in found
        found[name] = (numbers[1], content, (numbers[9], numbers[10]))


def test_an_archive_holds_what_was_put_in() -> None:
    entries = {
        "/usr/bin/true": cpio.file(b"\x7fELF", 0o755),
        "/dev/console": cpio.character_device(5, 1, 0o600),
        "/lib": cpio.symlink("usr/lib"),
        "/tmp": cpio.folder(0o1777),
    }
    found = read(b"".join(cpio.archive(entries)))
    assert found["usr/bin/true"] == (stat.S_IFREG | 0o755, b"\x7fELF", (0, 0))
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found["lib"] == (stat.S_IFLNK | 0o777, b"usr/lib", (0, 0))
    assert found["tmp"] == (stat.S_IFDIR | 0o1777, b"", (0, 0))
    assert found["usr/bin"] == (stat.S_IFDIR | 0o755, b"", (0, 0))


names = st.lists(
    st.text("abc-._é", min_size=1, max_size=4).filter(lambda s: s not in (".", "..")),
    min_size=1,
    max_size=4,
).map(lambda parts: "/" + "/".join(parts))


@given(st.dictionaries(names, st.binary(max_size=9), max_size=8))
def test_folders_come_before_what_is_in_them_whatever_the_order(files: dict[str, bytes]) -> None:
    entries = {name: cpio.file(content) for name, content in files.items()}
    data = b"".join(cpio.archive(entries))
    backwards = dict(reversed(entries.items()))
    assert b"".join(cpio.archive(backwards)) == data
    seen: set[str] = set()
    for name in read(data):
        parent, _, _ = name.rpartition("/")
        assert not parent or parent in seen
        seen.add(name)


@pytest.mark.parametrize("name", ["relative", "/a/../b", "/", "/a//b", "/./a"])
def test_a_name_that_is_no_plain_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="plain path"):
        list(cpio.archive({name: cpio.file(b"")}))
