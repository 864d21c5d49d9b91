"""Files of a running sandbox: read, written, listed and copied, as the agent, in its jail.

The guest's half is corral_guest.files. What it says is hostile: output is bounded, records are
decoded strictly, names checked, archives unpacked by `archives`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Protocol

import msgspec

from corral_guest import files as guest

from ..channel import Execution
from ..channel.failures import printable
from ..errors import ChannelError, CorralError, FileError, FileMissingError, StreamResetError
from .archives import ROOT, Checked, Unpacker
from .file_answers import Call, FileInfo, bounded, decoded, file_info, lines
from .packing import Packer, Readable, repacked
from .sources import Content, in_thread, pieces_of

__all__ = ["Content", "Copied", "Executor", "FileInfo", "Files"]

READ_LIMIT = 1 << 30  # bytes that `read` holds at most, unless told otherwise
LIST_LIMIT = 100_000  # entries
_READ = 1 << 18  # bytes


class Executor(Protocol):
    """What runs commands: a `Sandbox`, or a client of a sandbox's keeper."""

    async def exec(
        self,
        argv: Seq[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
        agent: int = 1,
        builtin: bool = False,
    ) -> Execution:
        """Start a command; see `Sandbox.exec`."""


class Copied(msgspec.Struct, frozen=True):
    """What a copy has done. files: how many. size: their bytes. left_out: sockets, pipes and
    devices, which are not copied, by path.
    """

    files: int
    size: int
    left_out: tuple[str, ...]


class Files:
    """The files of a sandbox as an agent sees them.

    Paths are text; a relative one starts at the agent's working folder (the workspace). Everything
    raises FileError (or what is below it) when the sandbox refuses, ChannelError when it answers
    nonsense, and SandboxGoneError. Whoever stops waiting for one of these ends it in the sandbox.
    """

    def __init__(self, executor: Executor, *, agent: int = 1) -> None:
        self._executor = executor
        self._agent = agent

    async def read(self, path: str, *, limit: int = READ_LIMIT) -> bytes:
        """The content of a file of at most `limit` bytes; FileError when it has more."""
        content = bytearray()
        async with contextlib.aclosing(self.stream(path)) as pieces:
            async for piece in pieces:
                content += piece
                if len(content) > limit:
                    raise FileError(
                        f"{printable(path)} in the sandbox has more than {limit} bytes.",
                        path=path,
                        hint="Read it in pieces (stream), or copy it to a file (download).",
                    )
        return bytes(content)

    async def stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """The content of a file of any size, in pieces of at most 256 KiB.

        That it is complete is known when the iteration has ended without an error.
        """
        async with self._running("read", path) as call:
            while piece := await call.execution.stdout.read(_READ):
                yield piece

    async def write(self, path: str, content: Content, *, mode: int | None = None) -> None:
        """Make or replace a file, as a whole: until all is there, the old one is.

        content: bytes, or pieces of them from any iterable. mode: permission bits; None keeps those
        of the file that is there, a new one gets what the umask leaves of 0666.
        """
        bits = () if mode is None else (f"{_bits(mode):o}",)
        async with self._running("write", path, *bits) as call:
            async with contextlib.aclosing(pieces_of(content)) as pieces:
                async for piece in pieces:
                    view = memoryview(piece).cast("B")
                    for start in range(0, len(view), guest.PIECE):
                        await call.write(guest.frame(view[start : start + guest.PIECE]))
            await call.write(guest.frame(b""))

    async def list(self, path: str = ".", *, limit: int = LIST_LIMIT) -> list[FileInfo]:
        """What is in a folder, by name. FileError when it has more than `limit` entries."""
        found: list[FileInfo] = []
        async with self._running("list", path) as call:
            async for line in lines(call.execution.stdout):
                found.append(file_info(line))
                if len(found) > limit:
                    message = f"{printable(path)} in the sandbox has more than {limit} entries."
                    raise FileError(message, path=path)
        names = {each.name for each in found}
        if "" in names or len(names) != len(found):
            raise ChannelError("the sandbox listed a folder in a way that makes no sense.")
        return sorted(found, key=lambda each: each.name)

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """What is known of a file; follow: of what a link leads to."""
        found: list[FileInfo] = []
        # What `.` and `..` lead to is no link, and has a name only where they are resolved.
        follow = follow or path.rstrip("/").rpartition("/")[2] in (".", "..")
        async with self._running("stat", path, *(() if follow else ("nofollow",))) as call:
            async for line in lines(call.execution.stdout):
                found.append(file_info(line))
                if len(found) > 1:
                    break
        if len(found) != 1:
            raise ChannelError("the sandbox described a file in a way that makes no sense.")
        return found[0]

    async def exists(self, path: str) -> bool:
        """Whether there is something by that path (a link that leads nowhere is nothing)."""
        try:
            await self.stat(path)
        except FileMissingError:
            return False
        return True

    async def mkdir(self, path: str, *, mode: int = 0o777, parents: bool = False) -> None:
        """Make a folder; parents: those above it, too, and then it may be there already.

        mode: permission bits, of which the umask takes some away.
        """
        extra = ("parents",) if parents else ()
        async with self._running("mkdir", path, f"{_bits(mode):o}", *extra):
            pass

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link or an empty folder; recursive: a folder with all that is in it."""
        async with self._running("remove", path, *(("recursive",) if recursive else ())):
            pass

    async def download(self, source: str, target: Path | str, *, follow: bool = False) -> Copied:
        """Copy a file or folder of the sandbox to `target` on this machine, modes and times too.

        A file at `target` is replaced, a folder there filled. follow: copy what a link leads to.
        What would do harm here is refused (UnsafeArchiveError), and then nothing is changed: see
        docs/sdk.md. Raises FileError for either side.
        """
        with Unpacker(Path(target)) as unpacker:
            async with self._packing(source, ROOT, follow) as call:
                while not unpacker.ended and (data := await call.execution.stdout.read(_READ)):
                    await in_thread(unpacker.feed, data)
            left_out = call.left_out()
            await in_thread(unpacker.put)
        return Copied(unpacker.files, unpacker.size, left_out)

    async def upload(
        self, source: Path | str, target: str, *, follow: bool = False, fill: bool = False
    ) -> Copied:
        """Copy a file or folder of this machine to the path `target` in the sandbox.

        Its folder must be there. A file there is replaced, a folder filled. follow: copy what a
        link leads to. fill: copy what is in a folder into the folder `target`, which is there.
        Raises FileError for either side.
        """
        folder, name = (target, "") if fill else os.path.split(target.rstrip("/"))
        packer = Packer(Path(source), os.fsencode(name), follow=follow)
        await self.unpack(folder or ("/" if target.startswith("/") else "."), packer.pieces())
        return Copied(packer.files, packer.size, tuple(packer.left_out))

    async def pack(
        self, path: str, *, name: str | None = None, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """A tar archive of a file or folder, in pieces.

        name: what it is called in it; None for the last part of the path, which may be `.` (its
        content, below `./`), "root" where that is no name (`..`, `/`). The archive was
        checked as `download` does. Raises UnsafeArchiveError, FileError.
        """
        if name is None:
            name = path.rstrip("/").rpartition("/")[2]
            name = "root" if name in ("", "..") else name
        checked = Checked(os.fsencode(name))
        async with self._packing(path, ROOT, follow) as call:
            while not checked.ended and (data := await call.execution.stdout.read(_READ)):
                if piece := await in_thread(checked.feed, data):
                    yield piece
        if not checked.ended:
            raise ChannelError("the sandbox sent an archive without its end.")

    async def unpack(self, folder: str, archive: Content) -> None:
        """Unpack a tar archive into a folder of the sandbox that is there.

        archive: the bytes, or pieces of them, of an archive that `pack` or any plain tar writes;
        for compressed and other kinds see `unpack_from`. Raises FileError.
        """
        async with (
            self._running("unpack", folder) as call,
            contextlib.aclosing(pieces_of(archive)) as pieces,
        ):
            async for piece in pieces:
                await call.write(piece)

    async def unpack_from(self, folder: str, archive: Readable) -> None:
        """`unpack` of an archive of any kind that Python's tarfile reads, from an open file."""
        await self.unpack(folder, repacked(archive))

    @contextlib.asynccontextmanager
    async def _packing(self, path: str, name: bytes, follow: bool) -> AsyncIterator[Call]:
        extra = ("follow",) if follow else ()
        async with self._running("pack", path, os.fsdecode(name), *extra) as call:
            yield call

    @contextlib.asynccontextmanager
    async def _running(self, action: str, path: str, *arguments: str) -> AsyncIterator[Call]:
        """A built-in that runs; leaving waits for its end and raises what it says went wrong."""
        argv = (action, path, *arguments)
        execution = await self._executor.exec(argv, agent=self._agent, builtin=True)
        call = Call(execution)
        said = asyncio.create_task(bounded(execution.stderr), name=f"files-{action}")
        # What is wrong there ends the whole call, whatever it waits for.
        said.add_done_callback(call.complained)
        ended = False
        try:
            try:
                yield call
            except StreamResetError:
                if said.done() and not said.cancelled():
                    said.result()
                raise
            await call.end()
            call.said = decoded(await said)
            status = await execution.wait()
            ended = True
            call.check(status, path)
        finally:
            said.cancel()
            if not ended:  # it must not go on without us
                with contextlib.suppress(CorralError):
                    await execution.signal(signal.SIGKILL)
            for stream in (execution.stdin, execution.stdout, execution.stderr):
                if stream is not None:
                    stream.reset("not needed any more")


def _bits(mode: int) -> int:
    if not 0 <= mode <= 0o777:
        raise ValueError("mode must be permission bits, 0 to 0o777")
    return mode
