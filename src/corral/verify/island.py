"""The egress engine in a network namespace of verify's own, where every address is a stand-in.

There a server answers for each address: private ones, metadata services, public hosts. What the
engine dials it reaches, and nothing can leave. `islander` is the program in there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping

import msgspec

from ..policy import Network
from .model import NotTried

# Of the host's own by its routes, and otherwise like any public address.
OWN = "45.33.32.1"
# Stand-ins for public hosts.
PUBLIC, OTHER_PUBLIC = "45.33.33.1", "45.33.34.1"
PORTS = (80, 443, 8080)
_ANSWER = 1 << 20  # bytes
_PATIENCE = 30.0  # seconds for a case
_PROGRAM = ("-P", "-m", f"{__package__}.islander")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that an agent asks for, and what it sends at once."""

    name: str
    port: int = 443
    data: bytes = b""
    agent: int = 1


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A policy, and connections one after the other (or all at once).

    answers: what the resolver says of a name: the addresses of its first lookup, of its second...
    and from then on the last ones. gateways: names of gateways that there are.
    """

    network: Network
    steps: tuple[Step, ...]
    answers: Mapping[str, tuple[tuple[str, ...], ...]] = {}
    gateways: tuple[str, ...] = ()
    together: bool = False
    hold: bool = False


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a step.

    verdict, reason, rule, address: of the engine's first event about it. lookups: names that were
    looked up for it. reached: addresses of stand-ins that were connected to. received: what the
    agent got. sent: what the stand-in got.
    """

    verdict: str
    reason: str
    rule: str
    address: str
    lookups: tuple[str, ...]
    reached: tuple[str, ...]
    received: bytes
    sent: bytes


class Island:
    """Plays cases. Made by `inhabited`."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def play(self, case: Case) -> list[Said]:
        """What became of each step. Raises NotTried."""
        async with self._lock:
            try:
                async with asyncio.timeout(_PATIENCE):
                    return await self._asked(case)
            except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
                await self.leave()  # it may still answer, and the next one would take that
                raise NotTried(f"the engine could not be tried: {error or 'no answer'}") from error

    async def _asked(self, case: Case) -> list[Said]:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *_PROGRAM),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_ANSWER,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(msgspec.json.encode(case) + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise NotTried(await self._complaint())
        return msgspec.json.decode(line, type=list[Said])

    async def _complaint(self) -> str:
        assert self._process is not None and self._process.stderr is not None
        text = (await self._process.stderr.read(1 << 16)).decode(errors="replace")
        last = text.strip().splitlines()[-1:]
        await self.leave()
        return f"no network namespace of our own: {last[0] if last else 'it ended'}"

    async def leave(self) -> None:
        """End the process; the next case starts another one."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def inhabited() -> AsyncIterator[Island]:
    """An island, and its end."""
    island = Island()
    try:
        yield island
    finally:
        await island.leave()
