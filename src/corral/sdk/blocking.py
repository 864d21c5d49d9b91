"""The SDK without asyncio: every class here has an asynchronous one inside and delegates to it.

`blocking` makes a method out of the asynchronous one: name, signature, docstring and errors are
that one's, and so are its types.
"""

from __future__ import annotations

import atexit
import collections
import functools
import os
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, Unpack

from ..events import Report
from ..sandbox.files import Files
from .options import Options, Spec
from .portal import Portal
from .ports import Ports
from .process import AsyncLines, AsyncProcess, ProcessInput, ProcessOutput
from .review import Review
from .sandbox import AsyncSandbox

P = ParamSpec("P")
T = TypeVar("T")
W = TypeVar("W")
A = TypeVar("A")


def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """The same method, which waits."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self._portal.call(getattr(self._inner, method.__name__), *args, **kwargs)
        return result

    return call


def blocking_to(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], wrap: Callable[[Portal, T], W]
) -> Callable[Concatenate[Any, P], W]:
    """The same method, which waits, and whose result is wrapped."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> W:
        result = self._portal.call(getattr(self._inner, method.__name__), *args, **kwargs)
        return wrap(self._portal, result)

    return call


def wrapping(
    method: Callable[Concatenate[Any, P], T], wrap: Callable[[Portal, T], W]
) -> Callable[Concatenate[Any, P], W]:
    """The same method, which does not wait; its result is wrapped."""

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> W:
        return wrap(self._portal, getattr(self._inner, method.__name__)(*args, **kwargs))

    return call


class _Delegate(Generic[A]):
    """Something asynchronous and the portal to it."""

    def __init__(self, portal: Portal, inner: A) -> None:
        self._portal = portal
        self._inner = inner


class _Closing(_Delegate[A]):
    """One that is closed on leaving a `with` block."""

    def close(self) -> None:
        """End it."""
        raise NotImplementedError  # each of the following has its own

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


class Input(_Delegate[ProcessInput]):
    """What a command reads; see ProcessInput."""

    write = blocking(ProcessInput.write)
    close = blocking(ProcessInput.close)


class Output(_Delegate[ProcessOutput]):
    """What a command writes; see ProcessOutput."""

    read = blocking(ProcessOutput.read)
    read_all = blocking(ProcessOutput.read_all)

    def __iter__(self) -> Iterator[str]:
        batches = self._inner.batches()

        async def following() -> list[str]:
            return await anext(batches, [])

        while lines := self._portal.call(following):
            yield from lines


class Process(_Closing[AsyncProcess]):
    """A command that runs; see AsyncProcess."""

    def __init__(self, portal: Portal, inner: AsyncProcess) -> None:
        super().__init__(portal, inner)
        self.stdin = Input(portal, inner.stdin)
        self.stdout = Output(portal, inner.stdout)
        self.stderr = Output(portal, inner.stderr) if inner.stderr is not None else None

    @property
    def status(self) -> int | None:
        """Its exit status; None while no `wait` has seen it end."""
        return self._inner.status

    wait = blocking(AsyncProcess.wait)
    signal = blocking(AsyncProcess.signal)
    resize = blocking(AsyncProcess.resize)
    end = blocking(AsyncProcess.end)
    close = blocking(AsyncProcess.close)


class Lines(_Closing[AsyncLines]):
    """The lines of a command; see AsyncLines. Dropped before its end, it kills the command."""

    def __init__(self, portal: Portal, inner: AsyncLines) -> None:
        super().__init__(portal, inner)
        self._ready: collections.deque[str] = collections.deque()

    @property
    def status(self) -> int | None:
        """Its exit status once the iteration has ended."""
        return self._inner.status

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not self._ready and not self._inner.closed:
            # Many at once: the way to the other thread and back costs more than a line.
            self._ready.extend(self.batch())
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    batch = blocking(AsyncLines.batch)

    def close(self) -> None:
        """End the command if it runs."""
        self._ready.clear()
        self._portal.call(self._inner.close)

    def __del__(self) -> None:
        if not self._inner.closed:
            self._portal.soon(self._inner.close)


class Pieces(_Closing[AsyncGenerator[bytes, None]]):
    """Bytes as they come, to iterate over."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        async def following() -> bytes | None:
            return await anext(self._inner, None)

        piece = self._portal.call(following)
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Read no more."""
        self._portal.call(self._inner.aclose)

    def __del__(self) -> None:
        self._portal.soon(self._inner.aclose)


class BlockingFiles(_Delegate[Files]):
    """The files of a sandbox; see Files."""

    read = blocking(Files.read)
    stream = wrapping(Files.stream, Pieces)
    write = blocking(Files.write)
    list = blocking(Files.list)
    stat = blocking(Files.stat)
    exists = blocking(Files.exists)
    mkdir = blocking(Files.mkdir)
    remove = blocking(Files.remove)
    download = blocking(Files.download)
    upload = blocking(Files.upload)
    pack = wrapping(Files.pack, Pieces)
    unpack = blocking(Files.unpack)
    unpack_from = blocking(Files.unpack_from)


class BlockingPorts(_Delegate[Ports]):
    """The published ports of a sandbox; see Ports."""

    list = blocking(Ports.list)
    add = blocking(Ports.add)
    remove = blocking(Ports.remove)


class BlockingReview(_Delegate[Review]):
    """What is held back of a sandbox; see Review."""

    changes = blocking(Review.changes)
    diff = blocking(Review.diff)
    apply = blocking(Review.apply)
    undo = blocking(Review.undo)


class Sandbox:
    """A virtual machine on a folder, for as long as the `with` block lasts.

        with Sandbox(workspace=".") as box:
            result = box.exec(["make", "test"], timeout=600)

    spec: options that hold where none of the same name is given. report: called, on a thread of the
    sandbox's, with everything that happens (corral.events); by default warnings go to the logger
    "corral". Options: see `Options`. Starting raises ConfigError, PlanError or HostError when the
    host cannot do this, BootError when the machine does not come up. After the block nothing of it
    is left, whatever ended the block. Any thread may use it; a process that was forked may not.
    """

    def __init__(
        self, spec: Spec | None = None, /, *, report: Report | None = None,
        **options: Unpack[Options],
    ) -> None:  # fmt: skip
        self._adopt(AsyncSandbox(spec, report=report, **options))

    @classmethod
    def connect(cls, name: str) -> Self:
        """One that is kept (`corral up`), to use as any other; it outlives the block.

        Entering the block raises UnknownSandboxError, SandboxStateError.
        """
        made = cls()
        made._adopt(AsyncSandbox.connect(name))
        return made

    def _adopt(self, inner: AsyncSandbox) -> None:
        self._inner = inner
        self._opened: Portal | None = None
        self._adopted = False

    @property
    def _portal(self) -> Portal:
        if self._opened is None:
            self._inner.alive()  # raises what there is to say
        assert self._opened is not None
        return self._opened

    def __enter__(self) -> Self:
        if self._adopted:  # a fork, which runs already
            self._adopted = False
            return self
        return self.start()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close(value)

    def start(self) -> Self:
        """Start it, where a `with` block does not fit; `close` must follow."""
        portal = self._opened or Portal()
        try:
            portal.call(self._inner.start)
        except BaseException:
            if self._opened is None:
                portal.close()
            raise
        self._opened = portal
        _open.add(self)
        return self

    def close(self, error: BaseException | None = None) -> None:
        """End it; everything is written back to the workspace. Again: nothing happens.

        error: see AsyncSandbox.close. In a forked child it only forgets it.
        """
        portal, self._opened = self._opened, None
        _open.discard(self)
        if portal is None or not portal.usable:
            return
        try:
            portal.call(self._inner.close, error)
        finally:
            portal.close()

    def __del__(self) -> None:
        portal = getattr(self, "_opened", None)
        if portal is not None and portal.usable:
            warnings.warn("a sandbox was not closed", ResourceWarning, stacklevel=2, source=self)
            portal.leave(self._inner.close)

    @property
    def name(self) -> str:
        """The sandbox's name."""
        return self._inner.name

    @property
    def agents(self) -> tuple[int, ...]:
        """The numbers of its agents, from 1."""
        return self._inner.agents

    @property
    def accel(self) -> str:
        """What runs the machine: "kvm", or "tcg" (emulated, some ten times slower)."""
        return self._inner.accel

    @property
    def files(self) -> BlockingFiles:
        """Its files, as the first agent sees them."""
        return self.files_of(1)

    def files_of(self, agent: int) -> BlockingFiles:
        """Its files, as one of several agents sees them."""
        return BlockingFiles(self._portal, self._inner.files_of(agent))

    @property
    def ports(self) -> BlockingPorts:
        """The ports of this machine that lead into it."""
        return BlockingPorts(self._portal, self._inner.ports)

    @property
    def review(self) -> BlockingReview:
        """What it has changed in its workspace, where that is held back."""
        return self.review_of(1)

    def review_of(self, agent: int) -> BlockingReview:
        """The same of one of several agents."""
        return BlockingReview(self._portal, self._inner.review_of(agent))

    @property
    def workspace(self) -> Path | None:
        """Where its workspace is on the host; None before it starts."""
        return self._inner.workspace

    agent_states = blocking(AsyncSandbox.agent_states)

    def fork(self, *, workspace: str | os.PathLike[str] | None = None) -> Self:
        """A copy that goes on from here, which runs already; see AsyncSandbox.fork.

        with box.fork() as clone: ...
        """
        made = type(self)()
        made._adopt(self._portal.call(self._inner.unstarted_fork, workspace))
        made.start()
        made._adopted = True
        return made

    exec = blocking(AsyncSandbox.exec)
    task = blocking(AsyncSandbox.task)
    tasks = blocking(AsyncSandbox.tasks)
    stream = wrapping(AsyncSandbox.stream, Lines)
    spawn = blocking_to(AsyncSandbox.spawn, Process)


_open: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """What a program has left open when it ends."""
    for sandbox in list(_open):
        sandbox.close()
