"""An event loop on a thread of its own, for programs that do not use asyncio, or use it elsewhere.

Works beside a running loop (Jupyter) and from several threads. The sandbox's helper processes hang
on the warden, not on the thread that started them, so it is no matter which thread this is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..errors import SandboxError

T = TypeVar("T")

_CLOSED = "the sandbox was closed."
_END_TIME = 30.0  # seconds for what still runs to end


class Portal:
    """The loop and its thread. `call` from any thread of the process that made it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._waited: set[concurrent.futures.Future[Any]] = set()  # what callers wait for
        # A daemon: the interpreter's end waits for no thread of ours; `close` is at exit, too.
        self._thread = threading.Thread(target=self._run, daemon=True, name="corral")
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
                self._loop.run_until_complete(asyncio.wait((task,), timeout=_END_TIME))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()
            for done in list(self._waited):  # of who called while it ended
                if not done.done():
                    done.set_exception(SandboxError(_CLOSED))

    @property
    def usable(self) -> bool:
        """Whether this is the process that made it, and it is not closed."""
        return self._pid == os.getpid() and not self._loop.is_closed()

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> T:
        """Run function(*args, **kwargs) on the loop; its result, or what it raises.

        An interrupt (KeyboardInterrupt) here cancels it there, and is raised when it has ended.
        """
        if self._pid != os.getpid():
            raise SandboxError(
                "this sandbox belongs to the process that started it, not to its children.",
                hint="Start one in the child, or connect to a kept one (Sandbox.connect).",
            )
        if threading.current_thread() is self._thread:
            raise SandboxError(
                "a sandbox cannot be used from a function that it calls itself.",
                hint="Do it in another thread, or use AsyncSandbox.",
            )
        done: concurrent.futures.Future[T] = concurrent.futures.Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            try:
                task = self._loop.create_task(function(*args, **kwargs))
            except Exception as error:  # arguments that it does not take, say
                done.set_exception(error)
                return
            tasks.append(task)
            task.add_done_callback(lambda ended: _pass_on(ended, done))

        self._waited.add(done)
        try:
            self._begin(begin)
            try:
                concurrent.futures.wait((done,))
            except BaseException:
                self._begin(lambda: [task.cancel() for task in tasks])
                concurrent.futures.wait((done,), timeout=_END_TIME)
                raise
            return done.result()
        finally:
            self._waited.discard(done)

    def _begin(self, what: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError as error:  # the loop is closed
            raise SandboxError(_CLOSED) from error

    def soon(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Begin function() on the loop, without waiting; nothing when the portal is not usable."""
        if self.usable:
            self._loop.call_soon_threadsafe(lambda: _keep(self._loop.create_task(function())))

    def leave(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Begin function(), and end the loop after it, without waiting."""

        async def last() -> None:
            try:
                await function()
            finally:
                self._loop.stop()

        self.soon(last)

    def close(self) -> None:
        """End what runs, the loop and its thread."""
        if self.usable and threading.current_thread() is not self._thread:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_END_TIME)


_kept: set[asyncio.Task[object]] = set()


def _keep(task: asyncio.Task[object]) -> None:
    """Hold a task that nobody waits for until it has ended."""
    _kept.add(task)
    task.add_done_callback(_kept.discard)


def _pass_on(task: asyncio.Task[T], done: concurrent.futures.Future[T]) -> None:
    if done.done():  # the loop was closed meanwhile
        return
    if task.cancelled():
        done.set_exception(SandboxError("the sandbox was closed meanwhile."))
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())
