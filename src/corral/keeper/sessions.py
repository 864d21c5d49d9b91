"""Sessions: terminals of agents that the keeper holds, so that they outlive who looks at them.

The pseudo-terminal is in the guest, as with any command. What its program writes goes through an
emulator here, which knows the screen, answers the program's questions, and gives on nothing but
drawing; so a session runs on with nobody attached, and who attaches is shown the screen and then
what comes. Several may be attached. The size is that of the one who typed, came or changed last (as
tmux does: window-size latest); the others see the part that they have room for.

Memory is bounded: the screen by its size, history by lines, what a client has not taken by
_BACKLOG. A client that is behind is shown the screen as it is when it reads again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from ..agents import find
from ..channel import Execution, Stream
from ..channel.failures import printable
from ..errors import CorralError, SandboxStateError, UsageError
from ..spec.values import NAME_PATTERN
from ..tasks.commands import Command, Place
from ..tasks.prompts import at_a_terminal
from ..terminals import MAIN, SHELL
from ..terminals.emulator import Emulator
from ..terminals.recorded import Recorded, Recordings
from ..terminals.tap import SLICE
from .model import Info
from .running import Running

TERM = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}  # what the emulator is
MOST = 64  # sessions of one sandbox
_BACKLOG = 1 << 18  # characters that a client may be behind
_INPUTS = 64  # pieces that wait for the program to read them
_INPUT_SIZE = 4096  # bytes of one
_DRAWN_SECONDS = 0.1  # between two pictures for a client of another size
_HANG_UP_SECONDS = 2.0  # between SIGHUP and the end

Spawn = Callable[[Coroutine[object, object, None], str], None]


class Starter(Protocol):
    """What starts and ends the programs."""

    async def exec(self, argv: Sequence[str], *, session: str = "", **options: Any) -> Running:
        """Start a command."""

    def ended(self, running: Running, status: int) -> None:
        """It ended."""

    def forget(self, running: Running) -> None:
        """It is none any more."""


class Viewer:
    """One who is attached. size: rows and columns. watches: what it types does not count.

    over: the session has ended.
    """

    def __init__(
        self, session: Session, stream: Stream, size: tuple[int, int], *, watches: bool
    ) -> None:
        self.size = size
        self.watches = watches
        self._session = session
        self._stream = stream
        self._pending: list[str] = []
        self._behind = 0
        self._anew = True  # the screen is drawn before anything else
        self._more = asyncio.Event()
        self._more.set()
        self.over = False

    def give(self, text: str) -> None:
        """More is shown."""
        if not self._anew:
            self._pending.append(text)
            self._behind += len(text)
            if self._behind > _BACKLOG:
                self.draw_anew()
        self._more.set()

    def draw_anew(self) -> None:
        """What it has is not right any more."""
        self._pending, self._behind, self._anew = [], 0, True
        self._more.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.over = True
        self._more.set()

    async def show(self) -> None:
        """Bring it what there is, at its own pace, until either end has had enough."""
        with contextlib.suppress(CorralError):
            while not self.over or self._anew or self._pending:
                await self._more.wait()
                self._more.clear()
                fits = self.size == self._session.size
                if fits and not self._anew:
                    text = "".join(self._pending)
                else:
                    text = self._session.emulator.draw(None if fits else self.size)
                self._pending, self._behind, self._anew = [], 0, not fits and not self.over
                await self._stream.write(text.encode())
                if not fits:
                    await asyncio.sleep(_DRAWN_SECONDS)  # no more pictures than can be seen
            await self._stream.end()

    async def listen(self) -> None:
        """What is typed, until it detaches."""
        with contextlib.suppress(CorralError):
            while data := await self._stream.read(_INPUT_SIZE):
                if not self.watches:
                    self._session.attend(self)
                    await self._session.type(data)


class Session:
    """One terminal and its program."""

    def __init__(
        self, name: str, running: Running, size: tuple[int, int], recordings: Recordings
    ) -> None:
        self.agent, self.name, self.running = running.agent, name, running
        self.emulator = Emulator(*size)
        self.recorded: Recorded = recordings.begin(running, name, self.emulator)
        self.status: int | None = None
        self._viewers: list[Viewer] = []  # who had the last word is last
        self._inputs: asyncio.Queue[bytes | tuple[int, int]] = asyncio.Queue(_INPUTS)
        self._output = time.time()
        self._dropped = 0

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.emulator.screen.rows, self.emulator.screen.columns

    @property
    def execution(self) -> Execution:
        return self.running.execution

    def info(self) -> Info:
        """What is known of it."""
        return Info(
            agent=self.agent,
            session=self.name,
            command=self.running.number,
            argv=self.running.argv,
            since=self.running.since,
            output=self._output,
            size=self.size,
            clients=len(self._viewers),
            title=self.emulator.title,
            dropped=self._dropped,
            recording=str(self.recorded.path) if self.recorded.path else None,
        )

    # The program

    async def serve(self) -> int:
        """Until the program has ended; its status. Raises CorralError when the sandbox is gone."""
        typing = asyncio.ensure_future(self._type_all())
        try:
            while data := await self.execution.stdout.read(SLICE):
                began = time.monotonic()
                self._shown(data)
                if len(data) == SLICE:
                    # A flood: as much time for everybody else as it took.
                    await asyncio.sleep(time.monotonic() - began)
            self.status = await self.execution.wait()
            return self.status
        finally:
            typing.cancel()
            for viewer in self._viewers:
                viewer.end()

    def _shown(self, data: bytes) -> None:
        update = self.emulator.feed(data)
        self._output = time.time()
        self._dropped += update.dropped
        if update.replies:
            with contextlib.suppress(asyncio.QueueFull):  # it asks and does not listen
                self._inputs.put_nowait(update.replies)
        if update.clean:
            self.recorded.output(update.clean)
            for viewer in self._viewers:
                viewer.give(update.clean)

    async def _type_all(self) -> None:
        with contextlib.suppress(CorralError):  # its end is noticed elsewhere
            while True:
                item = await self._inputs.get()
                if isinstance(item, bytes):
                    await self.execution.stdin.write(item)
                else:
                    # A guest that is halted answers too late; keys are for it all the same.
                    with contextlib.suppress(CorralError):
                        await self.execution.resize(*item)

    async def type(self, data: bytes) -> None:
        """Press these keys, as soon as the program reads."""
        for at in range(0, len(data), _INPUT_SIZE):
            await self._inputs.put(data[at : at + _INPUT_SIZE])

    async def end(self) -> None:
        """As if its window were closed; what stays of its program is killed, with all it started.

        Raises CorralError when that cannot be.
        """
        with contextlib.suppress(CorralError, TimeoutError):
            await self.hang_up()
            await asyncio.wait_for(self.running.over.wait(), _HANG_UP_SECONDS)
        await self.execution.end()

    async def hang_up(self) -> None:
        """SIGHUP, which shells take as their end. Raises CorralError."""
        await self.execution.signal(signal.SIGHUP, group=True)

    # Who is attached

    def attach(self, stream: Stream, size: tuple[int, int], *, watches: bool) -> Viewer:
        """One more. It counts until `detach`."""
        viewer = Viewer(self, stream, size, watches=watches)
        self._viewers.insert(0 if watches else len(self._viewers), viewer)
        self._fit()
        return viewer

    def detach(self, viewer: Viewer) -> None:
        """One less."""
        self._viewers.remove(viewer)
        self._fit()

    def attend(self, viewer: Viewer) -> None:
        """It has the last word on the size."""
        if self._viewers[-1] is not viewer and viewer in self._viewers:
            self._viewers.remove(viewer)
            self._viewers.append(viewer)
            self._fit()

    def resized(self, viewer: Viewer, size: tuple[int, int]) -> None:
        """A window has another size."""
        viewer.size = size
        viewer.draw_anew()
        if not viewer.watches:
            self.attend(viewer)
        self._fit()

    def _fit(self) -> None:
        if not self._viewers or self._viewers[-1].watches:
            return
        size = self._viewers[-1].size
        if size == self.size:
            return
        self.emulator.resize(*size)
        with contextlib.suppress(asyncio.QueueFull):  # then it is told with the next change
            self._inputs.put_nowait(self.size)
        self.recorded.resized()
        for viewer in self._viewers:
            viewer.draw_anew()


class Sessions:
    """Those of one sandbox, by agent and name."""

    def __init__(self, starter: Starter, recordings: Recordings) -> None:
        self._starter = starter
        self._recordings = recordings
        self._sessions: dict[tuple[int, str], Session | None] = {}  # None: it begins
        self.places: Mapping[int, Place] = {}  # agents by number, once they are known

    def listed(self) -> list[Info]:
        """All of them."""
        return [found.info() for _key, found in sorted(self._sessions.items()) if found]

    def find(self, agent: int, name: str) -> Session:
        """Raises SandboxStateError."""
        found = self._sessions.get((agent, name))
        if found is None:
            raise SandboxStateError(
                f"agent {agent} has no session {printable(name)}.",
                hint="See those there are: corral attach NAME --list",
            )
        return found

    def _own(self, agent: int, name: str) -> Command:
        """What a session runs when nobody says."""
        place = self.places.get(agent)
        if name != MAIN or place is None or place.recipe is None:
            return Command(argv=SHELL)
        return at_a_terminal(place, find(place.recipe))

    async def open(
        self,
        agent: int,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        workdir: str | None,
        size: tuple[int, int],
        spawn: Spawn,
    ) -> bool:
        """Start a program in a new session; False when there is one of that name already.

        argv: empty for the session's own: of `main` the program of the agent's recipe; without a
        recipe, and of any other, a shell.

        Raises what starting it raises, ConfigError for a recipe that is wrong, UsageError.
        """
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(
                f"“{printable(name)}” is not a name for a session.",
                hint="Lower-case letters, digits and - are possible, up to 63, not - first.",
            )
        key = (agent, name)
        if key in self._sessions:
            return False
        if len(self._sessions) >= MOST:
            raise SandboxStateError(
                f"there are {MOST} sessions already.", hint="End one: corral attach NAME --kill"
            )
        if not argv:
            own = self._own(agent, name)
            argv, environment = own.argv, {**own.environment, **environment}
        self._sessions[key] = None
        try:
            running = await self._starter.exec(
                argv,
                environment={**environment, **TERM},
                workdir=workdir,
                terminal=size,
                agent=agent,
                session=name,
            )
        except BaseException:
            del self._sessions[key]
            raise
        session = self._sessions[key] = Session(name, running, size, self._recordings)
        spawn(self._serve(session), "session")
        return True

    async def _serve(self, session: Session) -> None:
        running = session.running
        mark = "the sandbox ended"
        try:
            status = await session.serve()
        except CorralError:  # the sandbox is gone, or the session was ended
            self._starter.forget(running)
        else:
            mark = f"ended with status {status}"
            self._starter.ended(running, status)
        finally:
            del self._sessions[(session.agent, session.name)]
            session.recorded.close(mark)

    async def hang_up(self) -> None:
        """The sandbox ends: tell all programs as terminals do, since shells ignore SIGTERM."""
        found = [session for session in self._sessions.values() if session]
        await asyncio.gather(*(_bounded(session.hang_up()) for session in found))


async def _bounded(work: Awaitable[None]) -> None:
    with contextlib.suppress(CorralError, TimeoutError):
        async with asyncio.timeout(_HANG_UP_SECONDS):
            await work
