"""What an agent asks of models while a task runs, from the gateway's transcript.

The gateway knows an agent by its connection and writes the number itself, so no agent's requests
count as another's. The transcript is followed by inotify(7) while somebody wants to know.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from ..channel.failures import printable
from ..journal import watched

MAX_PENDING = 1024  # requests that wait for their answers
MAX_LINE = 64 << 20  # bytes; the gateway's own lines are much shorter
_PIECE = 1 << 20
SETTLING = 2.0  # seconds for the end of an answer to be written down after the agent had it


class _Used(msgspec.Struct, frozen=True):
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_hour: int = 0


class _Record(msgspec.Struct, frozen=True):
    kind: Literal["request", "response"]
    id: str
    agent: int
    gateway: str
    model: str | None = None
    status: int | None = None
    seconds: float = 0.0
    usage: _Used = _Used()
    cost_usd: float | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was answered. tokens: those of caches count as input."""

    gateway: str
    model: str
    status: int | None
    seconds: float
    input_tokens: int
    output_tokens: int
    usd: float | None


class Account:
    """What was spent while it was followed. pending: requests that are not answered yet."""

    def __init__(self, tell: Callable[[Asked], None]) -> None:
        self._tell = tell
        self.requests = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.usd: float | None = 0.0
        self.pending: dict[str, str] = {}
        self.changed = asyncio.Event()

    def begun(self, record: _Record) -> None:
        """A request goes out."""
        if len(self.pending) < MAX_PENDING:
            self.pending[record.id] = record.model or ""

    def answered(self, record: _Record) -> None:
        """It was answered, perhaps one that went out before."""
        used = record.usage
        asked = Asked(
            gateway=printable(record.gateway),
            model=printable(self.pending.pop(record.id, record.model or ""))[:200],
            status=record.status,
            seconds=record.seconds,
            input_tokens=used.input + used.cache_read + used.cache_write + used.cache_write_hour,
            output_tokens=used.output,
            usd=record.cost_usd,
        )
        self.requests += 1
        self.input_tokens += asked.input_tokens
        self.output_tokens += asked.output_tokens
        unpriced = asked.usd is None and (asked.input_tokens or asked.output_tokens)
        if self.usd is not None:
            self.usd = None if unpriced else self.usd + (asked.usd or 0.0)
        self._tell(asked)
        self.changed.set()

    async def settled(self) -> None:
        """Until every answer is written down, within SETTLING."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLING):
                while self.pending:
                    self.changed.clear()
                    await self.changed.wait()


class Meter:
    """Follows a transcript for those who want to know.

    path: None where there is no gateway. life: how ids of this run's requests begin; other
    sandboxes of the same name write to the same file.
    """

    def __init__(self, path: Path | None = None, life: str = "") -> None:
        self._path = path
        self._life = f"{life}-"
        self._accounts: dict[int, list[Account]] = {}
        self._file = -1
        self._changes = -1
        self._rest = b""

    @contextlib.contextmanager
    def following(self, agent: int, tell: Callable[[Asked], None]) -> Iterator[Account]:
        """What an agent spends in the block. tell: called with each request that is answered."""
        account = Account(tell)
        if self._path is None:
            yield account
            return
        if not self._accounts:
            self._begin(self._path)
        else:
            self._read(self._path)  # what is before this counts for the others only
        self._accounts.setdefault(agent, []).append(account)
        try:
            yield account
        finally:
            self._accounts[agent].remove(account)
            if not self._accounts[agent]:
                del self._accounts[agent]
            if not self._accounts:
                self._end()

    def _begin(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._changes = watched(path.parent)
        except OSError:  # nothing can be told, which is no reason to refuse the work
            self._changes = -1
            return
        self._open(path)
        if self._file >= 0:
            os.lseek(self._file, 0, os.SEEK_END)
        asyncio.get_running_loop().add_reader(self._changes, self._changed, path)

    def _end(self) -> None:
        if self._changes >= 0:
            asyncio.get_running_loop().remove_reader(self._changes)
        for fd in (self._changes, self._file):
            if fd >= 0:
                os.close(fd)
        self._changes, self._file, self._rest = -1, -1, b""

    def _open(self, path: Path) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        with contextlib.suppress(OSError):
            self._file = os.open(path, flags)

    def _changed(self, path: Path) -> None:
        os.read(self._changes, 1 << 16)
        self._read(path)

    def _read(self, path: Path) -> None:
        if self._file < 0:
            self._open(path)
        while self._file >= 0:
            self._lines()
            if self._is_at(path):
                return
            os.close(self._file)  # it has become the older one
            self._file, self._rest = -1, b""
            self._open(path)

    def _lines(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._file, _PIECE):
                *whole, self._rest = (self._rest + data).split(b"\n")
                for line in whole:
                    self._line(line)
                if len(self._rest) > MAX_LINE:
                    self._rest = b""

    def _line(self, line: bytes) -> None:
        try:
            record = msgspec.json.decode(line, type=_Record)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return  # of another kind
        if not record.id.startswith(self._life):
            return
        for account in self._accounts.get(record.agent, ()):
            (account.begun if record.kind == "request" else account.answered)(record)

    def _is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), path.stat())
        except OSError:
            return True  # there is none: the next one comes under this name
