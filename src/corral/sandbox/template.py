"""The template of a machine: found, or booted and saved."""

from __future__ import annotations

import asyncio
import contextlib
from weakref import WeakKeyDictionary

from ..channel import Channel
from ..errors import BootError, CorralError, ImageError
from ..events import Notice, Phase, Report
from ..plan import Plan
from ..proc import Helpers
from ..templates import Shape, Template, find, is_broken, keep_memory, saving, shape_of
from .evidence import CONSOLE_LINES, explained
from .machine import LAST_WORDS, Machine
from .parts import Parts
from .run_folder import run_folder

# Seconds until the guest must be up. TCG is some ten times slower, and hosts are busy.
BOOT_TIMEOUT = {"kvm": 60.0, "tcg": 180.0}
# Seconds for a restored one, which takes less than one: then it is booted instead.
RESTORE_TIMEOUT = {"kvm": 10.0, "tcg": 40.0}
SAVE_TIMEOUT = 60.0
_LOCKS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
BOOT_HINT = "Run it again with --console to see what the guest does."


async def template_for(
    plan: Plan, parts: Parts, report: Report, limit: float | None = None
) -> Template | None:
    """The template to restore this plan's machine from, made if missing; None: boot instead.

    Close it. None when the plan says so, when its files are served by QEMU itself (9p), or when it
    cannot be saved here, which is told. limit: seconds for the boot, by default BOOT_TIMEOUT's.
    Raises BootError and what else a boot raises: a sandbox's own would fail as well.
    """
    if plan.machine.cold or plan.machine.transport != "virtiofs":
        return None
    shape = shape_of(plan, parts.facts, parts.kernel, parts.base)
    try:
        found = find(shape)
        if found is not None or is_broken(shape.key):
            return found
        limit = BOOT_TIMEOUT[plan.machine.accel] if limit is None else limit
        # Another sandbox of this event loop may be about it: to wait for the lock between processes
        # would stop the loop, and so the other one.
        async with _one_at_a_time():
            found = find(shape)
            if found is None and not is_broken(shape.key):
                await _save(shape, plan, parts, report, limit)
                found = find(shape)
        return found
    except ImageError as error:
        message = f"no machine could be saved to start faster ({error.message.rstrip('.')})."
        report(Notice(level="warning", message=message))
        return None


def _one_at_a_time() -> asyncio.Lock:
    return _LOCKS.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def _save(shape: Shape, plan: Plan, parts: Parts, report: Report, limit: float) -> None:
    """Boot a machine, stop it when its guest is ready, keep it."""
    machine, facts = plan.machine, parts.facts
    assert facts.bwrap is not None
    summary = f"{machine.accel}, {machine.cpus} cpu, {machine.memory >> 20} MiB"
    with saving(shape, f"{summary}, {parts.kernel.release}", report) as files:
        if files is None:
            return
        report(Phase(name="template", message="booting a machine to restore from, once"))
        with run_folder(plan.name) as folder:
            async with (
                Helpers.start(
                    facts.bwrap.argv, root=facts.user.uid == 0, run_folder=folder
                ) as helpers,
                contextlib.AsyncExitStack() as stack,
            ):
                booted = Machine(plan, parts, helpers, folder)
                channel = await _boot(booted, stack, limit)
                await _keep(booted, channel, *files)


async def _boot(machine: Machine, stack: contextlib.AsyncExitStack, limit: float) -> Channel:
    """Its channel, once the guest is ready and has made the jails."""
    try:
        async with asyncio.timeout(limit):
            await machine.boot(stack)
            channel = await machine.serial_channel(stack)
            await machine.ready()
            await machine.make_jails(channel)
            return channel
    except TimeoutError:
        error: CorralError = BootError(
            f"the guest was not up after {limit:g} seconds.",
            hint="Run it again with --console to see what the guest does. On a busy machine it "
            "may need more time.",
        )
    except CorralError as failure:
        await machine.why_gone.settle(LAST_WORDS)
        error = machine.why_gone.reason or failure
    log = machine.console.log
    log.drain()
    raise explained(error, log.tail(CONSOLE_LINES), up=False, next_step=BOOT_HINT) from error


async def _keep(machine: Machine, channel: Channel, memory: int, state: int) -> None:
    """Write the machine to two files. Raises ImageError."""
    try:
        async with asyncio.timeout(SAVE_TIMEOUT):
            await machine.why_gone.guard(channel.call("settle"))
            await machine.monitor.save(state)
        if not await asyncio.to_thread(keep_memory, machine.memory, memory):
            raise ImageError("its memory is empty.")
    except (CorralError, OSError) as error:  # TimeoutError is an OSError
        text = error.message if isinstance(error, CorralError) else error.strerror
        raise ImageError(f"{text or 'it took too long'}".rstrip(".") + ".") from error
