"""What a guest answers to requests about files, checked.

All of it is hostile: what it says is bounded, records are decoded strictly, names are checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Annotated, Literal

import msgspec

from corral_guest import files as guest
from corral_guest import tar

from ..channel import Execution, Stream
from ..channel.failures import printable
from ..errors import ChannelError, FileError, StreamResetError
from . import file_errors
from .archives import ROOT, shown
from .sources import Data

MAX_SAID = 64 * 1024  # bytes on a built-in's standard error
MAX_LINE = 32 * 1024  # bytes of one record: a name and a link's target, six bytes a character


class FileInfo(msgspec.Struct, frozen=True):
    """What is known of one file.

    name: without its folders; empty for the root folder. kind: "file", "folder", "link" or "other"
    (a device, socket or pipe). mode: permission, set-id and sticky bits. size: bytes. time: of the
    last change of the content, ns since 1970. target: what a link says; else empty. All of it is
    what the sandbox says: a name is no path, but may be that of any file.
    """

    name: str
    kind: Literal["file", "folder", "link", "other"]
    mode: int
    size: int
    time: int
    target: str


_Size = Annotated[int, msgspec.Meta(ge=0, le=tar.MAX_SIZE)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    kind: Literal["file", "folder", "link", "other"]
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
    size: _Size
    time: Annotated[int, msgspec.Meta(ge=-tar.MAX_SIZE, le=tar.MAX_SIZE)]
    target: str


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a built-in says on its standard error, a line each."""

    errno: Annotated[int, msgspec.Meta(ge=0, le=4095)] | None = None
    path: str = ""
    broken: str = ""
    left_out: str = ""


class Call:
    """One running built-in."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.said: list[_Said] = []
        self._refused = False  # it reads no more: its status tells why

    def complained(self, said: asyncio.Task[bytes]) -> None:
        """Its standard error has ended; give it up if that was no good."""
        if not said.cancelled() and said.exception() is not None:
            self.execution.stdin.reset("it says too much")
            self.execution.stdout.reset("it says too much")

    async def write(self, data: Data) -> None:
        """To its standard input."""
        if not self._refused:
            try:
                await self.execution.stdin.write(data)
            except StreamResetError:
                self._refused = True

    async def end(self) -> None:
        """No more input; and what is left of the output is not wanted."""
        if not self._refused:
            with contextlib.suppress(StreamResetError):
                await self.execution.stdin.end()

    def check(self, status: int, path: str) -> None:
        """Raise what its status means."""
        failures = [each for each in self.said if each.errno is not None]
        if status == guest.FAILED and len(failures) == 1:
            number = failures[0].errno
            assert number is not None
            raise file_errors.of_guest(number, _text(failures[0].path) or path)
        broken = [each.broken for each in self.said if each.broken]
        if status == guest.BROKEN and broken:
            raise FileError(f"the sandbox refused what it was sent: {printable(broken[0])}.")
        if status > 128:
            raise FileError(
                f"the work on {printable(path)} in the sandbox was ended by signal {status - 128}.",
                path=path,
                hint="Something in the sandbox killed it; perhaps its memory ran out (--memory).",
            )
        if status != guest.DONE or failures or broken or self._refused:
            raise ChannelError("the sandbox answered a request about files with nonsense.")

    def left_out(self) -> tuple[str, ...]:
        """What `pack` has named, below the root. Raises ChannelError for what lies elsewhere."""
        return tuple(_below(each.left_out) for each in self.said if each.left_out)


async def bounded(stream: Stream | None) -> bytes:
    """All that a built-in says, which is little."""
    said = bytearray()
    while stream is not None and (data := await stream.read()):
        said += data
        if len(said) > MAX_SAID:
            raise ChannelError("the sandbox said too much about files.")
    return bytes(said)


def decoded(said: bytes) -> list[_Said]:
    try:
        return [msgspec.json.decode(line, type=_Said) for line in said.splitlines()]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ChannelError("the sandbox answered a request about files with nonsense.") from error


async def lines(stream: Stream) -> AsyncIterator[bytes]:
    """Complete lines, none of them long."""
    rest = b""
    while data := await stream.read():
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE:
            break
    if rest:
        raise ChannelError("the sandbox listed a folder in a way that makes no sense.")


def file_info(line: bytes) -> FileInfo:
    """One record of the guest's, checked."""
    try:
        if len(line) > MAX_LINE:
            raise ValueError("too long")
        record = msgspec.json.decode(line, type=_Record)
        name, target = record.name.encode("latin-1"), record.target.encode("latin-1")
        if name in (b".", b"..") or b"/" in name or len(name) > tar.MAX_NAME:
            raise ValueError("no name")
        if (
            b"\0" in name + target
            or len(target) > tar.MAX_PATH
            or (record.kind != "link" and target)
        ):
            raise ValueError("no path")
    except (msgspec.DecodeError, ValueError) as error:
        raise ChannelError("the sandbox listed a folder in a way that makes no sense.") from error
    return FileInfo(
        os.fsdecode(name), record.kind, record.mode, record.size, record.time, os.fsdecode(target)
    )


def _below(path: str) -> str:
    """A path in an archive without ROOT, printable."""
    try:
        named = path.encode("latin-1")
        parts = tar.check_path(named)
        if parts[0] != ROOT:
            raise ValueError("elsewhere")
    except ValueError as error:
        raise ChannelError("the sandbox answered a request about files with nonsense.") from error
    return shown(named[len(ROOT) + 1 :])


def _text(path: str) -> str:
    return os.fsdecode(path.encode("latin-1", "replace"))
