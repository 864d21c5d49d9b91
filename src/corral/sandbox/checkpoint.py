"""Saving a sandbox while it runs, and what a copy is told before it goes on.

The order: the guest stops its agents, writes back what they wrote and falls silent; the machine
stops; its state and its memory are written; it goes on. So in what is saved nothing of the user's
runs, no byte is under way in the channel, and the files on the host are those that the memory
knows. A copy is given its clock, its randomness and its names before its agents go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..channel import Channel
from ..errors import ChannelError, CheckpointError, GuestError, ProcessError
from ..plan import Plan
from ..proc import crash_point
from ..templates import keep_memory

if TYPE_CHECKING:
    from .sandbox import Sandbox

T = TypeVar("T")

CALL_TIMEOUT = 60.0  # seconds, under emulation and on a busy host


async def save(
    sandbox: Sandbox, memory: int, state: int, meanwhile: Callable[[], None] | None = None
) -> None:
    """Write the machine's memory and state to two empty files; the sandbox runs on afterwards.

    meanwhile: run in a thread while the machine stands still and its agents have written
    everything. Raises CheckpointError (the sandbox runs on), or what `meanwhile` raises.
    """
    if not sandbox.plan.machine.checkpoints:
        raise CheckpointError(
            "this sandbox was not made to be saved.",
            hint="Make it with checkpoints: corral up --checkpoints (machine.checkpoints).",
        )
    channel = sandbox.channel
    try:
        await sandbox.or_lost(channel.suspend("freeze", CALL_TIMEOUT))
        crash_point("checkpoint-frozen")
        await sandbox.or_lost(_save_stopped(sandbox, memory, state, meanwhile))
    except GuestError as error:
        raise CheckpointError(
            f"the sandbox could not be stopped to be saved: {error.message}.",
            hint="A process in it may wait for a disk of the host. Try again.",
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint cannot be written: {error.strerror}. The sandbox runs on.",
            hint="Free some space there, or set CORRAL_STATE_DIR to a folder on a larger disk.",
        ) from error
    except ProcessError as error:
        raise CheckpointError(
            f"the sandbox could not be saved and runs on: {error.message}", detail=error.detail
        ) from error
    finally:
        channel.resume()
        await sandbox.or_lost(thaw(channel))
    crash_point("checkpoint-thawed")


async def _save_stopped(
    sandbox: Sandbox, memory: int, state: int, meanwhile: Callable[[], None] | None
) -> None:
    machine = sandbox.machine
    try:
        await machine.monitor.save(state)
        crash_point("checkpoint-state")
        await in_thread(lambda: keep_memory(machine.memory, memory, sync=False))
        crash_point("checkpoint-memory")
        if meanwhile is not None:
            await in_thread(meanwhile)
    finally:
        await machine.resume()


async def in_thread(work: Callable[[], T]) -> T:
    """Run it to its end, also when this is cancelled: it uses descriptors of ours."""
    task = asyncio.create_task(asyncio.to_thread(work), name="checkpoint")
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # of no interest any more where this is cancelled


async def thaw(channel: Channel) -> None:
    """Let the agents go on, by the time that it is now."""
    await channel.call("thaw", {"clock": time.time_ns()}, timeout=CALL_TIMEOUT)


async def attach(channel: Channel) -> int:
    """Become the host of a copy; the number of our first command there. Raises ChannelError."""
    answer = await channel.call("attach", {}, timeout=CALL_TIMEOUT)
    number = answer.get("next") if isinstance(answer, dict) else None
    if type(number) is not int or not 0 < number < 1 << 31:
        raise ChannelError("the guest did not say where its commands begin.")
    return number


async def identify(channel: Channel, plan: Plan, machine_id: str) -> None:
    """Give a copy the names of its plan, and a machine id that nobody else has."""
    agents = [
        {
            "number": agent.number,
            "hostname": agent.setup["hostname"],
            "machine_id": machine_id,
            "files": agent.setup["files"],
        }
        for agent in plan.agents
    ]
    await channel.call("identify", {"agents": agents}, timeout=CALL_TIMEOUT)
