"""Doors: helper processes with the host's network, that hold keys, and that the guest reaches.

The gateway is one. Each is confined to a tree of its own; its sockets are bound here and handed
down, so that nobody waits for it; keys reach it by a pipe from a short-lived process that finds
them, so that this process never has one. When a door ends, the sandbox goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ..channel.failures import printable
from ..errors import CorralError, HostError
from ..events import Notice, Report
from ..gateway.descriptors import CONFIG_FD, FIRST_LISTENER, KEYS_FD, TELL_FD
from ..gateway.found import Found, Wanted
from ..host import Facts
from ..plan import Plan
from ..plan.model import NOBODY
from ..policy import Key
from ..proc import Helpers, Process
from ..proc.bwrap import Access, Bind, Folder, Step, confined
from ..proc.own import ask
from ..search import changeable, without
from .descriptors import memfd
from .own_python import own_python

_BACKLOG = 256
_KEY_SECONDS = 180.0  # for all keys of a door; a password manager may ask its user
_KEYS = "corral.gateway.keys"
_MAX_LINE = 1 << 16
_END_GRACE = 3.0  # seconds to answer what is under way and to write down what it cost


@dataclass(frozen=True, slots=True)
class Door:
    """What a door is started with.

    what: as a message names it ("the gateway"). module, packages: what it runs, and imports besides
    corral. config: its configuration, without any secret. sockets: names of files in the run
    folder's `sockets`. keys: by name. folder: on the host, the one place that it writes to.
    guests: folders of the host that the sandbox can change, from which nothing is run for a key;
    nor is anything from where another could.
    """

    what: str
    module: str
    packages: tuple[str, ...]
    config: bytes
    sockets: tuple[str, ...]
    keys: Mapping[str, Key]
    folder: Path | None = None
    further: tuple[Step, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    guests: tuple[str, ...] = ()


FOLDER = "/kept"  # where a door sees Door.folder


class _Told(msgspec.Struct, frozen=True):
    """A line that a door tells us.

    again: keys that do not work any more, and their SHA-256. word: for who opened the door.
    """

    notice: str = ""
    again: dict[str, str] = {}
    word: msgspec.Raw = msgspec.Raw(b"")


@contextlib.asynccontextmanager
async def opened(
    door: Door,
    helpers: Helpers,
    run_folder: Path,
    facts: Facts,
    environ: Mapping[str, str],
    report: Report,
    hear: Callable[[bytes], None] = lambda _word: None,
) -> AsyncIterator[Process]:
    """The door, from its start to its end. Nothing waits until it is ready: its sockets take calls.

    environ: the user's environment, in which keys are looked for. hear: gets each `word` that the
    door tells, as JSON; a ValueError of it ends the listening. Raises HostError, ProcessError.
    """
    environ = for_keys(environ, door.guests)
    _check_variables(door, environ)
    async with contextlib.AsyncExitStack() as stack:
        key_reader, key_writer = os.pipe2(os.O_CLOEXEC)
        told_reader, told_writer = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, key_writer)
        stack.callback(os.close, told_reader)
        with contextlib.ExitStack() as passed:
            passed.callback(os.close, key_reader)
            passed.callback(os.close, told_writer)
            listeners = [
                _listener(passed, run_folder / "sockets" / name).fileno() for name in door.sockets
            ]
            fds = {
                CONFIG_FD: memfd(passed, "config", door.config),
                KEYS_FD: key_reader,
                TELL_FD: told_writer,
                **{FIRST_LISTENER + place: fd for place, fd in enumerate(listeners)},
            }
            argv, environment = _rendered(door, facts, environ)
            process = await helpers.spawn(door.what, argv, fds=fds, environment=environment)
        # Only the door holds its listeners now: when it ends, a connection fails at once.
        keeper = _KeyKeeper(door, key_writer, environ, report)
        tasks = [
            asyncio.create_task(keeper.find({name: "" for name in door.keys}), name="find-keys"),
            asyncio.create_task(
                _listen(told_reader, keeper, door, report, hear), name="hear-a-door"
            ),
            asyncio.create_task(_tell_its_end(process, door, report), name="watch-a-door"),
        ]
        try:
            yield process
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await process.end(_END_GRACE)


def _check_variables(door: Door, environ: Mapping[str, str]) -> None:
    """A kept sandbox can be started where other variables are set than when it was asked for."""
    for name, key in door.keys.items():
        if key.kind == "env" and not environ.get(key.value[0]):
            raise HostError(
                f"{door.what} takes the key of {name} from {key.value[0]}, which is not set here.",
                hint=f"Set it, and start the sandbox again: export {key.value[0]}=...",
            )


def writable_folders(plan: Plan) -> tuple[str, ...]:
    """What of the host the sandbox can change: its workspace and writable shares."""
    return tuple(
        step.source
        for agent in plan.agents
        for step in agent.export.tree
        if isinstance(step, Bind) and step.access is Access.WRITABLE
    )


def for_keys(environ: Mapping[str, str], guests: Sequence[str]) -> dict[str, str]:
    """The user's environment as what finds a key has it: nothing in it leads into `guests`.

    PATH leads into no folder that any sandbox can have changed.
    """
    given = without(environ, guests)
    path = given.pop("PATH", os.defpath)
    return given | without({"PATH": path}, changeable())


def _listener(stack: contextlib.ExitStack, path: Path) -> socket.socket:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(_BACKLOG)
    return listener


def _rendered(
    door: Door, facts: Facts, environ: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """argv of the door inside bubblewrap, and its environment."""
    assert facts.bwrap is not None
    python = own_python(door.module, door.packages, facts.python, environ)
    tree = [*python.tree, *door.further]
    if door.folder is not None:
        tree += [Folder(FOLDER), Bind(str(door.folder), FOLDER, Access.WRITABLE)]
    argv = confined(
        facts.bwrap.argv,
        tuple(tree),
        python.command,
        uid=NOBODY,
        root=facts.user.uid == 0,
        network=True,
    )
    return argv, {**python.environment, **door.environment}


class _KeyKeeper:
    """Has keys found. It knows where they are, and never what they are."""

    def __init__(self, door: Door, writer: int, environ: Mapping[str, str], report: Report) -> None:
        self._door = door
        self._writer = writer
        self._environ = environ
        self._report = report
        self._one_at_a_time = asyncio.Lock()

    async def find(self, rejected: Mapping[str, str]) -> None:
        """Find these keys; the door gets them, or why there are none."""
        wanted = [
            Wanted(name=name, key=self._door.keys[name], rejected=digest)
            for name, digest in rejected.items()
            if name in self._door.keys
        ]
        if not wanted:
            return
        async with self._one_at_a_time:
            try:
                await ask(
                    _KEYS,
                    msgspec.json.encode(wanted),
                    environment=self._environ,
                    stdout=self._writer,
                    timeout=_KEY_SECONDS,
                )
            except CorralError as error:
                self._failed(wanted, error)

    def _failed(self, wanted: Sequence[Wanted], error: CorralError) -> None:
        """No key came, or not all; the door has waited for them."""
        problem = f"no key was found: {error.message}"
        for each in wanted:
            line = msgspec.json.encode(Found(name=each.name, key=None, problem=problem)) + b"\n"
            with contextlib.suppress(OSError):  # the door has ended
                os.write(self._writer, line)
        text = f"{self._door.what}: {problem}"
        self._report(Notice(level="warning", message=text))


async def _listen(
    fd: int, keeper: _KeyKeeper, door: Door, report: Report, hear: Callable[[bytes], None]
) -> None:
    """What the door tells us, until it ends. It talks to the guest, so it is not trusted far."""
    searches: set[asyncio.Task[None]] = set()
    reader = asyncio.StreamReader(limit=_MAX_LINE)
    transport, _protocol = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(fd), "rb", 0)
    )
    try:
        while line := await reader.readline():
            told = msgspec.json.decode(line, type=_Told)
            if told.word:
                hear(bytes(told.word))
            if told.notice:
                text = f"{door.what}: {printable(told.notice)}"
                report(Notice(level="warning", message=text))
            if told.again and len(searches) < len(door.keys):
                search = asyncio.create_task(keeper.find(told.again), name="find-keys-again")
                searches.add(search)
                search.add_done_callback(searches.discard)
    except (ValueError, msgspec.MsgspecError):
        text = f"{door.what} says what makes no sense; it is not listened to any more."
        report(Notice(level="warning", message=text))
    finally:
        transport.close()
        for search in searches:
            search.cancel()
        # Each has a process to end, which may have a login to write down first.
        await asyncio.gather(*searches, return_exceptions=True)


async def _tell_its_end(process: Process, door: Door, report: Report) -> None:
    """Once, when the door ends before the sandbox does."""
    await asyncio.shield(process.exited)
    words = process.last_words()
    text = f"{process.explain()}; what leads through it fails from now on." + (
        f" Its last words: {printable(words.splitlines()[-1])}" if words else ""
    )
    report(Notice(level="warning", message=text))
