"""The user's terminal, joined to a session of an agent until it ends or the user detaches."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import posixpath
import signal
from collections.abc import Iterator, Mapping

from ..errors import SandboxStateError, UsageError
from ..keeper.client import Attachment, Kept, Session, connect
from ..terminals.drawing import ENTER, LEAVE
from . import terminal

_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_ATTEMPTS = 3  # a session may end between being found and being attached
_SETTLING = 5.0  # seconds for the status of a session whose output has ended


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says. argv: empty for the session's own program. key: detaches."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    workdir: str | None
    watch: bool
    key: bytes


def attach(name: str, session: Session, wanted: Wanted) -> tuple[bool, int | None]:
    """Returns whether it ended, and its status if that is known. Raises CorralError."""
    if not (os.isatty(terminal.STDIN) and os.isatty(terminal.STDOUT)):
        raise UsageError(
            "attaching needs a terminal at standard input and output.",
            hint="Without one: --detach, --type, --capture.",
        )
    return asyncio.run(_attach(name, session, wanted))


def open_only(name: str, session: Session, wanted: Wanted) -> None:
    """Start it. Raises SandboxStateError when there is one of that name."""

    async def work() -> None:
        async with connect(name) as kept:
            if not await _open(kept, session, wanted):
                raise SandboxStateError(
                    f"agent {session[0]} of {name} has a session {session[1]} already.",
                    hint="Attach to it, end it (--kill), or give this one another name.",
                )

    asyncio.run(work())


async def _open(kept: Kept, session: Session, wanted: Wanted) -> bool:
    folder = wanted.workdir
    return await kept.open_session(
        session,
        wanted.argv,
        size=terminal.size(),
        environment=wanted.environment,
        workdir=None if folder is None else posixpath.join(kept.hello.workdir, folder),
    )


async def _attach(name: str, session: Session, wanted: Wanted) -> tuple[bool, int | None]:
    async with connect(name) as kept:
        size = terminal.size()
        for attempt in range(_ATTEMPTS):
            opened = not wanted.watch and await _open(kept, session, wanted)
            if wanted.argv and not opened and not wanted.watch:
                raise SandboxStateError(
                    f"agent {session[0]} of {name} has a session {session[1]} already.",
                    hint="Attach to it without a command, or end it first (--kill).",
                )
            try:
                attachment = await kept.attach_session(session, size, watch=wanted.watch)
                break
            except SandboxStateError:
                if wanted.watch or attempt == _ATTEMPTS - 1:
                    raise
        return await kept.or_lost(_joined(attachment, size, wanted.key))


async def _joined(
    attachment: Attachment, size: tuple[int, int], key: bytes
) -> tuple[bool, int | None]:
    sink = terminal.Sink(terminal.STDOUT)
    with terminal.raw_mode(), terminal.on_resize(size, attachment.resize), _ending() as ended:
        try:
            await sink.write(ENTER.encode())
            work = [
                asyncio.ensure_future(terminal.drain(attachment.stream, sink)),
                asyncio.ensure_future(terminal.feed(_Keys(attachment, key))),
                asyncio.ensure_future(ended.wait()),
            ]
            try:
                await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in work:
                    each.cancel()
            if not work[0].done() or work[1].done():
                return False, None
            work[0].result()
            with contextlib.suppress(TimeoutError):
                return True, await asyncio.wait_for(attachment.over, _SETTLING)
            return True, None
        finally:
            with contextlib.suppress(OSError):  # the terminal may be gone
                terminal.write_all(terminal.STDOUT, LEAVE.encode())


class _Keys:
    """What is typed, up to the key that detaches."""

    def __init__(self, attachment: Attachment, key: bytes) -> None:
        self._stream = attachment.stream
        self._key = key

    async def write(self, data: bytes) -> None:
        """Pass it on. Raises CorralError; UsageError after the key, which ends the feeding."""
        before, key, _rest = data.partition(self._key)
        if before:
            await self._stream.write(before)
        if key:
            raise UsageError("detached.")

    async def end(self) -> None:
        """The terminal is gone."""


@contextlib.contextmanager
def _ending() -> Iterator[asyncio.Event]:
    """Set when this process is told to end: then the terminal is put right first."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in _ENDS:
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number in _ENDS:
            loop.remove_signal_handler(number)
