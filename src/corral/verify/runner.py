"""Attacks sent into a running sandbox: one process there runs them all, each in a child."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from ..channel import Execution
from ..errors import CorralError, StreamResetError
from ..sandbox import Sandbox
from . import inside
from .model import NotTried

# The base image's interpreter, for the guest's root; programs of the toolbox in a jail.
ROOT_PYTHON = ("/usr/bin/python3", "-I", "-S", "-c", inside.PROGRAM)
JAIL_PYTHON = ("python3", "-I", "-S", "-c", inside.PROGRAM)
ANSWER_LIMIT = 1 << 20  # bytes
PATIENCE = 30.0  # seconds beyond those that an attack may take, under emulation


class Runner:
    """Runs attacks as one agent; agent 0 is the guest's root outside every jail."""

    def __init__(self, sandbox: Sandbox, agent: int) -> None:
        self._sandbox = sandbox
        self._agent = agent
        self._argv: Sequence[str] = JAIL_PYTHON if agent else ROOT_PYTHON
        self._execution: Execution | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, code: str, seconds: float = 20.0) -> dict[str, str]:
        """What the program recorded: how each attempt ended, by its name.

        seconds: after which it is killed. Raises NotTried when it could not be run.
        """
        line = msgspec.json.encode({"code": code, "seconds": seconds}) + b"\n"
        try:
            async with self._lock, asyncio.timeout(seconds + PATIENCE):
                answer = await self._asked(line)
            return msgspec.json.decode(answer, type=dict[str, str])
        except (CorralError, TimeoutError, msgspec.MsgspecError) as error:
            await self.close()
            why = str(error) or "the sandbox did not answer in time"
            raise NotTried(f"the attack could not be made: {why}") from error

    async def _asked(self, line: bytes) -> bytes:
        if self._execution is None:
            self._execution = await self._sandbox.exec(self._argv, agent=self._agent)
        await self._execution.stdin.write(line)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            piece = await self._execution.stdout.read()
            if not piece or len(answer) > ANSWER_LIMIT:
                raise NotTried(f"the attack could not be made: {await self._complaint()}")
            answer += piece
        return bytes(answer)

    async def _complaint(self) -> str:
        """What Python says when it does not start, or ends."""
        execution, self._execution = self._execution, None
        assert execution is not None and execution.stderr is not None
        text = b""
        with contextlib.suppress(StreamResetError, TimeoutError):
            async with asyncio.timeout(5):
                while len(text) < 4096 and (piece := await execution.stderr.read()):
                    text += piece
        last = text.decode(errors="replace").strip().splitlines()[-1:]
        return last[0] if last else "what runs attacks in the sandbox ended"

    async def close(self) -> None:
        """Let the process in the sandbox end."""
        execution, self._execution = self._execution, None
        if execution is not None:
            with contextlib.suppress(CorralError):
                await execution.stdin.end()
