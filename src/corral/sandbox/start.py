"""From a Plan and its Parts to a running Sandbox, and back to nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ..agents.images import held
from ..errors import ExecError
from ..events import Notice, Report
from ..plan import Plan
from ..proc import Helpers
from ..proc.bwrap import Bind
from ..templates import Template
from .attempt import Attempt
from .disk import Disk, opened
from .limits import bounds
from .machine import Machine
from .parts import Parts
from .ports import Ports
from .run_folder import run_folder
from .sandbox import Sandbox
from .template import BOOT_TIMEOUT, RESTORE_TIMEOUT, template_for


@contextlib.asynccontextmanager
async def start(
    plan: Plan,
    parts: Parts,
    report: Report,
    *,
    console_echo: int | None = None,
    keep: bool = False,
    boot_timeout: float | None = None,
    restore_timeout: float | None = None,
    disk: Path | None = None,
    folder: Path | None = None,
    console: Callable[[bytes], None] | None = None,
    saved: Template | None = None,
    kept: bool = False,
) -> AsyncIterator[Sandbox]:
    """Run the sandbox; on leaving, everything is written back and every process is gone.

    console_echo: a descriptor that gets the guest's console, too. keep: keep the run folder, with
    all logs. boot_timeout, restore_timeout: seconds, by default BOOT_TIMEOUT and RESTORE_TIMEOUT
    of the accelerator. disk: the file of the sandbox's disk, made if there is none; only where the
    plan has one. folder: the caller's `run_folder`, by default one of its own. console: called with
    what the guest's console says. saved: go on from this checkpoint of a sandbox with the same
    exports, as a machine of its own; the caller closes it. kept: this sandbox will start again, so
    what it spends at a gateway counts for all its starts. Raises BootError, HostError,
    PortError, ProcessError, SandboxGoneError.
    """
    facts, accel = parts.facts, plan.machine.accel
    assert facts.bwrap is not None
    limit = BOOT_TIMEOUT[accel] if boot_timeout is None else boot_timeout
    restore_limit = RESTORE_TIMEOUT[accel] if restore_timeout is None else restore_timeout
    async with contextlib.AsyncExitStack() as stack:
        # Programs that corral installed stay while they are in use.
        stack.enter_context(
            held(step.source for step in plan.toolbox.tree if isinstance(step, Bind))
        )
        # First: a port that is in use is found before anything is started.
        ports = await stack.enter_async_context(Ports(plan.network.publish))
        for notice in ports.chosen():
            report(notice)
        # Who wants to see the guest boot sees it boot.
        template = None
        files = stack.enter_context(contextlib.ExitStack())
        if console_echo is None and saved is None:
            template = await template_for(plan, parts, report, limit)
        if template is not None:
            files.callback(template.close)
        if folder is None:
            folder = stack.enter_context(run_folder(plan.name, keep=keep))
        if keep:
            report(Notice(level="info", message=f"logs are kept in {folder}"))
        helpers = await stack.enter_async_context(
            Helpers.start(
                facts.bwrap.argv,
                root=facts.user.uid == 0,
                run_folder=None if keep else folder,
                bounds=bounds(plan, folder.name),
            )
        )
        machines = _Machines(plan, parts, helpers, folder, report, console_echo, console)
        await machines.prepare(stack, disk, saved, kept=kept)
        attempt, sandbox = machines.attempt(ports, keep=keep), None
        try:
            if template is not None:
                sandbox = await attempt.restored(stack, template, restore_limit)
                files.close()  # an evicted template then frees its room at once
                if sandbox is None:
                    attempt = machines.attempt(ports, keep=keep)
            if sandbox is None:
                sandbox = await stack.enter_async_context(attempt.run(limit, saved=saved))
            ports.serve(sandbox.dial)
            try:
                yield sandbox
            except ExecError:  # of the command; the sandbox is well
                await attempt.finish(sandbox)
                raise
            await attempt.finish(sandbox)
        finally:
            if keep:
                attempt.save_logs()


class _Machines:
    """What every attempt has: the disk, the interceptor, the gateway. They are started once."""

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        helpers: Helpers,
        folder: Path,
        report: Report,
        console_echo: int | None,
        console: Callable[[bytes], None] | None,
    ) -> None:
        self._plan = plan
        self._parts = parts
        self._helpers = helpers
        self._folder = folder
        self._report = report
        self._console_echo = console_echo
        self._console = console
        self._disk: Disk | None = None
        self._intercept: Path | None = None
        self._gateway: Callable[[int], Path] | None = None

    async def prepare(
        self,
        stack: contextlib.AsyncExitStack,
        disk: Path | None,
        saved: Template | None,
        *,
        kept: bool,
    ) -> None:
        """Start what stands beside the machine; nothing waits for the gateway."""
        plan, facts = self._plan, self._parts.facts
        helpers, folder, report = self._helpers, self._folder, self._report
        if disk is not None and plan.disk:
            self._disk = await stack.enter_async_context(
                opened(disk, plan.disk, facts, helpers, report)
            )
        if plan.secrets:
            from .secrets import intercepting

            held = {} if saved is None else saved.placeholders
            secret = await stack.enter_async_context(
                intercepting(plan, helpers, folder, facts, os.environ, report, held)
            )
            self._plan, self._intercept = secret.plan, secret.socket
        if plan.gateways:
            from .gateway import opened_gateway

            self._gateway = await stack.enter_async_context(
                opened_gateway(plan, helpers, folder, facts, os.environ, report, kept=kept)
            )

    def attempt(self, ports: Ports, *, keep: bool) -> Attempt:
        """A machine that is still to come up."""
        machine = Machine(
            self._plan, self._parts, self._helpers, self._folder, console_echo=self._console_echo
        )
        machine.console.log.tap = self._console
        machine.gateway = self._gateway
        return Attempt(machine, self._disk, ports, self._intercept, self._report, keep=keep)
