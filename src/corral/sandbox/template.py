"""The template of a machine: found, or booted and saved."""

from __future__ import annotations

import asyncio
import contextlib

from ..errors import CorralError, ImageError, ProcessError
from ..events import Notice, Phase, Report
from ..plan import Plan
from ..proc import Helpers
from ..templates import Shape, Template, find, is_broken, keep_memory, saving, shape_of
from .evidence import CONSOLE_LINES, explained
from .machine import Machine
from .parts import Parts
from .run_folder import run_folder

# Seconds until the guest must be up. TCG is some ten times slower, and hosts are busy.
BOOT_TIMEOUT = {"kvm": 60.0, "tcg": 180.0}
# Seconds for a restored one, which takes less than one: then it is booted instead.
RESTORE_TIMEOUT = {"kvm": 10.0, "tcg": 40.0}


async def template_for(plan: Plan, parts: Parts, report: Report) -> Template | None:
    """The template to restore this plan's machine from, made if missing; None: boot instead.

    Close it. None when the plan says so, when its files are served by QEMU itself (9p), or when it
    cannot be made here, which is told.
    """
    if plan.machine.cold or plan.machine.transport != "virtiofs":
        return None
    shape = shape_of(plan, parts.facts, parts.kernel, parts.base)
    try:
        found = find(shape)
        if found is not None or is_broken(shape.key):
            return found
        await _save(shape, plan, parts, report)
        return find(shape)
    except CorralError as error:
        message = f"no machine could be saved to start faster ({error.message.rstrip('.')})."
        report(Notice(level="warning", message=message))
        return None


async def _save(shape: Shape, plan: Plan, parts: Parts, report: Report) -> None:
    """Boot a machine, stop it when its guest is ready, keep it."""
    machine = plan.machine
    summary = f"{machine.accel}, {machine.cpus} cpu, {machine.memory >> 20} MiB"
    with saving(shape, f"{summary}, {parts.kernel.release}", report) as files:
        if files is None:
            return
        report(Phase(name="template", message="booting a machine to restore from, once"))
        try:
            async with asyncio.timeout(BOOT_TIMEOUT[machine.accel]):
                await _boot_and_save(plan, parts, *files)
        except OSError as error:  # TimeoutError is one
            text = error.strerror or "it was not ready in time"
            raise ImageError(f"the machine could not be saved: {text}.") from error


async def _boot_and_save(plan: Plan, parts: Parts, memory: int, state: int) -> None:
    facts = parts.facts
    assert facts.bwrap is not None
    with run_folder(plan.name) as folder:
        async with (
            Helpers.start(facts.bwrap.argv, root=facts.user.uid == 0, run_folder=folder) as helpers,
            contextlib.AsyncExitStack() as stack,
        ):
            machine = Machine(plan, parts, helpers, folder)
            try:
                await machine.boot(stack)
                channel = await machine.serial_channel(stack)
                await machine.ready()
                await machine.make_jails(channel)
                await machine.why_gone.guard(channel.call("settle"))
                await machine.monitor.save(state)
            except CorralError as error:
                machine.console.log.drain()
                raise explained(error, machine.console.log.tail(CONSOLE_LINES), up=False) from error
            kept = await asyncio.to_thread(keep_memory, machine.memory, memory)
            if not kept:
                raise ProcessError("the machine's memory is empty.")
