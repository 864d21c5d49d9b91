"""Where what is sent into a sandbox comes from: bytes, iterables of either kind, what may block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_AHEAD = 4  # pieces of a source that are held
Data = bytes | bytearray | memoryview
Content = Data | Iterable[Data] | AsyncIterable[Data]


async def pieces_of(content: Content) -> AsyncGenerator[Data, None]:
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


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what may block, in a thread; when cancelled, wait for it all the same."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise
