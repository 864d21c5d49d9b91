"""Files of a running sandbox: read, written, listed and copied, as the agent, in its jail.

The guest's half is corral_guest.files. What it says is hostile: output is bounded, records are
decoded strictly, names checked, archives unpacked by `archives`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Annotated, Literal, ParamSpec, Protocol, TypeVar

import msgspec

from corral_guest import files as guest
from corral_guest import tar

from ..channel import Stream
from ..channel.failures import printable
from ..errors import ChannelError, CorralError, FileError, FileMissingError, StreamResetError
from . import file_errors
from .archives import ROOT, Checked, Unpacker, shown
from .execution import Execution
from .packing import Packer, Readable, repacked

P = ParamSpec("P")
T = TypeVar("T")

READ_LIMIT = 1 << 30  # bytes that `read` holds at most, unless told otherwise
LIST_LIMIT = 100_000  # entries
MAX_SAID = 64 * 1024  # bytes on a built-in's standard error
MAX_LINE = 32 * 1024  # bytes of one record: a name and a link's target, six bytes a character
_READ = 1 << 18  # bytes
_AHEAD = 4  # pieces of a source that are held
Data = bytes | bytearray | memoryview
Content = Data | Iterable[Data] | AsyncIterable[Data]


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


class FileInfo(msgspec.Struct, frozen=True):
    """What is known of one file.

    kind: "file", "folder", "link" or "other" (a device, socket or pipe). mode: permission, set-id
    and sticky bits. size: bytes. time: of the last change of the content, ns since 1970. target:
    what a link says; else empty. All of it is what the sandbox says.
    """

    name: str
    kind: Literal["file", "folder", "link", "other"]
    mode: int
    size: int
    time: int
    target: str


class Copied(msgspec.Struct, frozen=True):
    """What a copy has done. files: how many. size: their bytes. left_out: sockets, pipes and
    devices, which are not copied, by path.
    """

    files: int
    size: int
    left_out: tuple[str, ...]


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
            async with contextlib.aclosing(_pieces(content)) as pieces:
                async for piece in pieces:
                    view = memoryview(piece).cast("B")
                    for start in range(0, len(view), guest.PIECE):
                        await call.write(guest.frame(view[start : start + guest.PIECE]))
            await call.write(guest.frame(b""))

    async def list(self, path: str = ".", *, limit: int = LIST_LIMIT) -> list[FileInfo]:
        """What is in a folder, by name. FileError when it has more than `limit` entries."""
        found: list[FileInfo] = []
        async with self._running("list", path) as call:
            async for line in _lines(call.execution.stdout):
                found.append(_info(line))
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
        async with self._running("stat", path, *(() if follow else ("nofollow",))) as call:
            async for line in _lines(call.execution.stdout):
                found.append(_info(line))
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
                    await _in_thread(unpacker.feed, data)
            await _in_thread(unpacker.put)
        return Copied(unpacker.files, unpacker.size, call.left_out())

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
        """A tar archive of a file or folder, in pieces; name: what it is called in it.

        The archive was checked as `download` does. Raises UnsafeArchiveError, FileError.
        """
        checked = Checked(os.fsencode(name or path.rstrip("/").rpartition("/")[2] or "root"))
        async with self._packing(path, ROOT, follow) as call:
            while not checked.ended and (data := await call.execution.stdout.read(_READ)):
                if piece := await _in_thread(checked.feed, data):
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
            contextlib.aclosing(_pieces(archive)) as pieces,
        ):
            async for piece in pieces:
                await call.write(piece)

    async def unpack_from(self, folder: str, archive: Readable) -> None:
        """`unpack` of an archive of any kind that Python's tarfile reads, from an open file."""
        await self.unpack(folder, repacked(archive))

    @contextlib.asynccontextmanager
    async def _packing(self, path: str, name: bytes, follow: bool) -> AsyncIterator[_Call]:
        extra = ("follow",) if follow else ()
        async with self._running("pack", path, os.fsdecode(name), *extra) as call:
            yield call

    @contextlib.asynccontextmanager
    async def _running(self, action: str, path: str, *arguments: str) -> AsyncIterator[_Call]:
        """A built-in that runs; leaving waits for its end and raises what it says went wrong."""
        argv = (action, path, *arguments)
        execution = await self._executor.exec(argv, agent=self._agent, builtin=True)
        call = _Call(execution)
        said = asyncio.create_task(_bounded(execution.stderr), name=f"files-{action}")
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
            call.said = _decoded(await said)
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


class _Call:
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
        """What `pack` has named, below the root."""
        return tuple(
            shown(each.left_out.encode("latin-1", "replace").partition(b"/")[2])
            for each in self.said
            if each.left_out
        )


async def _bounded(stream: Stream | None) -> bytes:
    """All that a built-in says, which is little."""
    said = bytearray()
    while stream is not None and (data := await stream.read()):
        said += data
        if len(said) > MAX_SAID:
            raise ChannelError("the sandbox said too much about files.")
    return bytes(said)


def _decoded(said: bytes) -> list[_Said]:
    try:
        return [msgspec.json.decode(line, type=_Said) for line in said.splitlines()]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ChannelError("the sandbox answered a request about files with nonsense.") from error


async def _lines(stream: Stream) -> AsyncIterator[bytes]:
    """Complete lines, none of them long."""
    rest = b""
    while data := await stream.read():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE:
            break
    if rest:
        raise ChannelError("the sandbox listed a folder in a way that makes no sense.")


def _info(line: bytes) -> FileInfo:
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


def _text(path: str) -> str:
    return os.fsdecode(path.encode("latin-1", "replace"))


def _bits(mode: int) -> int:
    if not 0 <= mode <= 0o777:
        raise ValueError("mode must be permission bits, 0 to 0o777")
    return mode


async def _pieces(content: Content) -> AsyncGenerator[Data, None]:
    """What is to be sent. A plain iterator may block: a thread asks it for its pieces."""
    if isinstance(content, bytes | bytearray | memoryview):
        yield content
    elif isinstance(content, AsyncIterable):
        async for piece in content:
            yield piece
    else:
        async with contextlib.aclosing(_threaded(content)) as pieces:
            async for piece in pieces:
                yield piece


async def _threaded(content: Iterable[Data]) -> AsyncGenerator[Data, None]:
    """The pieces of what may block, asked for a few ahead in a thread.

    Whoever stops waits for nothing: the thread may hang on a pipe, and ends with its next piece.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Data | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    stopped = threading.Event()

    def say(item: Data | BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(queue.put_nowait, item)

    def work() -> None:
        pieces = iter(content)
        try:
            for piece in pieces:
                room.acquire()
                if stopped.is_set():
                    break
                say(piece)
            if isinstance(pieces, Generator):
                pieces.close()
        except BaseException as error:
            say(error)
        else:
            say(None)

    threading.Thread(target=work, daemon=True, name="pieces").start()
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            room.release()
    finally:
        stopped.set()
        room.release()


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what may block, in a thread; when cancelled, wait for it all the same."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise
