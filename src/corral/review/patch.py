"""Changes in git's format (git-diff(1), "Generating patch text with -p"). Pure.

`git apply` accepts what this makes, binary contents included. No git is run for it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence

import msgspec

from .lines import Block, Budget, differing
from .model import Change, Side

CONTEXT = 3  # lines around a change, as git
MAX_SHOWN = 16 << 20  # bytes of a content that a patch holds
_NULL = "0" * 40
_BINARY_LOOK = 8000  # bytes in which git looks for a NUL (xdiff-interface.c, FIRST_FEW_BYTES)
_NOT_PLAIN = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_SHORT = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}


class Contents(msgspec.Struct, frozen=True):
    """What the two sides of a change hold; None where it is too large to be shown."""

    old: bytes | None
    new: bytes | None


class Counts(msgspec.Struct, frozen=True):
    """Lines that a change adds and removes; binary: no lines to count."""

    added: int = 0
    removed: int = 0
    binary: bool = False


class Pair(msgspec.Struct, frozen=True):
    """One entry of a diff: a change, or a file that has only another name (moved_from)."""

    change: Change
    moved_from: str = ""


def paired(changes: Sequence[Change], digests: dict[str, bytes]) -> list[Pair]:
    """Changes with those joined that are one file under another name.

    digests: by path, of the contents of files that are added or removed; only equal ones are
    joined. Not where a folder takes a file's place: a patch with such renames cannot be applied.
    """
    removed = {change.path for change in changes if change.new is None}
    needed = {above for change in changes if change.new for above in _above(change.path)}
    gone: dict[tuple[bytes, str], list[Change]] = {}
    for change in changes:
        if change.path not in digests or change.path in needed:
            continue
        if change.old is not None and change.new is None:
            gone.setdefault((digests[change.path], change.old.git_mode), []).append(change)
    moved: dict[str, str] = {}
    for change in changes:
        if change.path not in digests or not removed.isdisjoint(_above(change.path)):
            continue
        if change.old is None and change.new is not None:
            known = gone.get((digests[change.path], change.new.git_mode))
            if known:
                moved[change.path] = known.pop(0).path
    sources = set(moved.values())
    return [
        Pair(change, moved.get(change.path, "")) for change in changes if change.path not in sources
    ]


def _above(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def patch(pair: Pair, contents: Contents, budget: Budget, *, binary: bool) -> Iterator[bytes]:
    """One change as lines of a patch. binary: write binary contents out, too."""
    change = pair.change
    if change.old is None and change.new is None:  # no file now, and none before: git has no words
        return
    if pair.moved_from:
        assert change.new is not None
        yield _header(pair.moved_from, change.path)
        yield b"similarity index 100%\n"
        yield b"rename from " + quoted(pair.moved_from) + b"\n"
        yield b"rename to " + quoted(change.path) + b"\n"
    elif change.status == "T":  # as git: the one is removed, the other added
        gone = msgspec.structs.replace(change, new=None)
        come = msgspec.structs.replace(change, old=None)
        yield from _patch(gone, Contents(contents.old, b""), budget, binary=binary)
        yield from _patch(come, Contents(b"", contents.new), budget, binary=binary)
    else:
        yield from _patch(change, contents, budget, binary=binary)


def _patch(change: Change, contents: Contents, budget: Budget, *, binary: bool) -> Iterator[bytes]:
    old, new = change.old, change.new
    yield _header(change.path, change.path)
    if old is None and new is not None:
        yield f"new file mode {new.git_mode}\n".encode()
    elif new is None and old is not None:
        yield f"deleted file mode {old.git_mode}\n".encode()
    elif old is not None and new is not None and old.git_mode != new.git_mode:
        yield f"old mode {old.git_mode}\nnew mode {new.git_mode}\n".encode()
    if contents.old is not None and contents.old == contents.new and old and new:
        return
    same = f" {new.git_mode}" if old and new and old.git_mode == new.git_mode else ""
    if contents.old is None or contents.new is None:
        yield _differ(change, old, new)
        return
    ids = _object_id(old, contents.old), _object_id(new, contents.new)
    is_text = not (is_binary(contents.old) or is_binary(contents.new))
    if is_text or not binary:
        ids = ids[0][:10], ids[1][:10]
    yield f"index {ids[0]}..{ids[1]}{same}\n".encode()
    if is_text:
        yield from _text(change, contents.old, contents.new, budget)
    elif not binary:
        yield _differ(change, old, new)
    else:
        yield b"GIT binary patch\n"
        yield from _literal(contents.new)
        yield from _literal(contents.old)


def _differ(change: Change, old: Side | None, new: Side | None) -> bytes:
    one, other = _sides(change, old, new)
    return b"Binary files " + one + b" and " + other + b" differ\n"


def counts(contents: Contents, budget: Budget) -> Counts:
    """How many lines change."""
    if contents.old is None or contents.new is None:
        return Counts(binary=True)
    if is_binary(contents.old) or is_binary(contents.new):
        return Counts(binary=True)
    blocks = differing(lines_of(contents.old), lines_of(contents.new), budget)
    return Counts(sum(b[3] - b[2] for b in blocks), sum(b[1] - b[0] for b in blocks))


def is_binary(content: bytes) -> bool:
    """What git takes for binary."""
    return b"\0" in content[:_BINARY_LOOK]


def lines_of(content: bytes) -> list[bytes]:
    """Lines with their newlines; the last may have none."""
    lines = [line + b"\n" for line in content.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def quoted(path: str, prefix: str = "", *, always: bool = False) -> bytes:
    """A name as git writes it: in quotes, with escapes, where it has anything but plain ASCII.

    always: in quotes in any case, which git reads as well.
    """
    raw = prefix.encode() + path.encode("utf-8", "surrogateescape")
    if not (always or _NOT_PLAIN.search(raw)):
        return raw
    shown = (
        f"\\{_SHORT[byte]}"
        if byte in _SHORT
        else (chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}")
        for byte in raw
    )
    return b'"' + "".join(shown).encode() + b'"'


def _header(old: str, new: str) -> bytes:
    # Where no other line has the names, git finds out where the first ends: not of "x /y" (2.39).
    spaced = " " in old or " " in new
    one, other = quoted(old, "a/", always=spaced), quoted(new, "b/", always=spaced)
    return b"diff --git " + one + b" " + other + b"\n"


def _sides(change: Change, old: Side | None, new: Side | None) -> tuple[bytes, bytes]:
    one = quoted(change.path, "a/") if old else b"/dev/null"
    other = quoted(change.path, "b/") if new else b"/dev/null"
    return one, other


def _text(change: Change, old: bytes, new: bytes, budget: Budget) -> Iterator[bytes]:
    a, b = lines_of(old), lines_of(new)
    blocks = differing(a, b, budget)
    if not blocks:
        return
    one, other = _sides(change, change.old, change.new)
    # A name with a space ends in a tab, so that nothing is taken for a date after it.
    end = b"\t\n" if " " in change.path else b"\n"
    yield b"--- " + one + (end if change.old else b"\n")
    yield b"+++ " + other + (end if change.new else b"\n")
    for group in _groups(blocks):
        yield from _hunk(a, b, group)


def _groups(blocks: list[Block]) -> list[list[Block]]:
    """Blocks whose context would touch, together."""
    groups: list[list[Block]] = []
    for block in blocks:
        if groups and block[0] - groups[-1][-1][1] <= 2 * CONTEXT:
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


def _hunk(a: list[bytes], b: list[bytes], group: list[Block]) -> Iterator[bytes]:
    i1, j1 = max(0, group[0][0] - CONTEXT), max(0, group[0][2] - CONTEXT)
    i2, j2 = min(len(a), group[-1][1] + CONTEXT), min(len(b), group[-1][3] + CONTEXT)
    yield f"@@ -{_range(i1, i2)} +{_range(j1, j2)} @@\n".encode()
    i = i1
    for old_begin, old_end, new_begin, new_end in group:
        yield from _marked(b" ", a[i:old_begin])
        yield from _marked(b"-", a[old_begin:old_end])
        yield from _marked(b"+", b[new_begin:new_end])
        i = old_end
    yield from _marked(b" ", a[i:i2])


def _range(begin: int, end: int) -> str:
    count = end - begin
    if count == 1:
        return str(begin + 1)
    return f"{begin + 1 if count else begin},{count}"


def _marked(mark: bytes, lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        yield mark + line
        if not line.endswith(b"\n"):
            yield b"\n\\ No newline at end of file\n"


def object_id(content: bytes) -> str:
    """The name that git gives a content (SHA-1, as in most repositories)."""
    head = b"blob %d\0" % len(content)
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _object_id(side: Side | None, content: bytes) -> str:
    return object_id(content) if side else _NULL


def _literal(content: bytes) -> Iterator[bytes]:
    """A content of a binary patch: deflated, in lines of 52 bytes as base 85, with their length."""
    yield f"literal {len(content)}\n".encode()
    packed = zlib.compress(content)
    for begin in range(0, len(packed), 52):
        piece = packed[begin : begin + 52]
        length = len(piece)
        mark = chr(ord("A") + length - 1) if length <= 26 else chr(ord("a") + length - 27)
        yield mark.encode() + base64.b85encode(piece, pad=True) + b"\n"
    yield b"\n"
