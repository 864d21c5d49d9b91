"""From a Plan and its Parts to a running Sandbox, and back to nothing.

QEMU and the file servers come up together; the guest says that it is ready; jails start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

from corral_guest.seccomp import export_filter

from ..backends.qemu import render
from ..backends.qemu.control import Console, Monitor
from ..channel import Channel, accept_guest, serial_pair
from ..errors import (
    BootError,
    ChannelError,
    CorralError,
    ExecError,
    GuestError,
    ProcessError,
    SandboxError,
    SandboxGoneError,
)
from ..events import Notice, Phase, Report
from ..plan import Export, Plan
from ..proc import Helpers, Process, crash_point
from .descriptors import connect, memfd, memory
from .evidence import CONSOLE_LINES, DEBUG_HINT, explained
from .parts import Parts
from .run_folder import run_folder
from .sandbox import Sandbox, WhyGone

# Seconds until the guest must be up. TCG is some ten times slower, and hosts are busy.
BOOT_TIMEOUT = {"kvm": 60.0, "tcg": 180.0}
SYNC_TIMEOUT = 10.0
# Seconds that an error waits for its cause to be noticed: any, and after the channel's end.
SETTLING, LAST_WORDS = 0.5, 2.5
VSOCK_PORT = 5000  # corral_guest.carrier
_FIRST_GUEST_CID = 3  # vsock(7): 0 to 2 are reserved


@contextlib.asynccontextmanager
async def start(
    plan: Plan,
    parts: Parts,
    report: Report,
    *,
    console_echo: int | None = None,
    keep: bool = False,
    boot_timeout: float | None = None,
) -> AsyncIterator[Sandbox]:
    """Run the sandbox; on leaving, everything is written back and every process is gone.

    console_echo: a descriptor that gets the guest's console, too. keep: keep the run folder, with
    all logs. boot_timeout: seconds, by default BOOT_TIMEOUT of the accelerator. Raises BootError,
    HostError, ProcessError, SandboxGoneError.
    """
    facts = parts.facts
    assert facts.bwrap is not None
    limit = BOOT_TIMEOUT[plan.machine.accel] if boot_timeout is None else boot_timeout
    with run_folder(plan.name, keep=keep) as folder:
        if keep:
            report(Notice(level="info", message=f"logs are kept in {folder}"))
        remove = None if keep else folder
        async with Helpers.start(
            facts.bwrap.argv, root=facts.user.uid == 0, run_folder=remove
        ) as helpers:
            machine = _Machine(plan, parts, report, helpers, folder, console_echo, keep=keep)
            try:
                async with machine.run(limit) as sandbox:
                    try:
                        yield sandbox
                    except ExecError:  # of the command; the sandbox is well
                        await machine.finish(sandbox)
                        raise
                    await machine.finish(sandbox)
            finally:
                if keep:
                    machine.save_logs()


class _Machine:
    """QEMU and the servers of one sandbox while it starts and runs."""

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        report: Report,
        helpers: Helpers,
        folder: Path,
        console_echo: int | None,
        *,
        keep: bool,
    ) -> None:
        self._keep = keep
        self._plan = plan
        self._parts = parts
        self._report = report
        self._helpers = helpers
        self._folder = folder
        self._console = Console(console_echo)
        self._verbose = console_echo is not None
        self._why_gone = WhyGone()
        self._logs: dict[str, Process] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._secret = secrets.token_bytes(32)
        self._waiting_for = "QEMU to start"
        self._up = False

    @contextlib.asynccontextmanager
    async def run(self, limit: float) -> AsyncIterator[Sandbox]:
        """Boot within `limit` seconds, and serve."""
        async with contextlib.AsyncExitStack() as stack:
            # Explained before the stack is unwound: that ends QEMU, which would look like a cause.
            try:
                try:
                    async with asyncio.timeout(limit):
                        sandbox = await self._boot(stack)
                except TimeoutError:
                    raise self._overdue(limit) from None
                self._up = True
                yield sandbox
            except (ChannelError, ProcessError, SandboxError) as error:
                raise await self._explained(error) from error

    async def _boot(self, stack: contextlib.AsyncExitStack) -> Sandbox:
        self._report(Phase(name="boot", message="booting the guest"))
        ours, theirs = serial_pair()
        stack.callback(ours.close)
        listener = self._listen(stack)
        try:
            monitor = await self._start_qemu(stack, theirs)
        finally:
            theirs.close()
        self._waiting_for = "the file servers"
        if self._plan.machine.transport == "virtiofs":
            await _together(*(self._serve(monitor, each) for each in render.exports(self._plan)))
        self._waiting_for = "the guest to say that it is ready"
        if listener is not None:
            ours = await self._start_vsock(stack, monitor, listener)
        channel = await stack.enter_async_context(
            await Channel.start(ours, {"ready": self._on_ready, "exited": _ignore})
        )
        watch = asyncio.create_task(self._watch(channel), name="watch-channel")
        stack.callback(watch.cancel)
        crash_point("channel-started")
        await self._why_gone.guard(self._ready)
        crash_point("guest-ready")
        self._waiting_for = "the guest to mount its folders and start the jail"
        return await self._set_up(channel)

    async def _start_qemu(
        self, stack: contextlib.AsyncExitStack, channel: socket.socket
    ) -> Monitor:
        plan, parts = self._plan, self._parts
        qmp, qemu_qmp = socket.socketpair()
        console, qemu_console = socket.socketpair()
        ram = memory(plan.machine.memory)
        fds = {
            render.QMP_FD: qemu_qmp.fileno(),
            render.CONSOLE_FD: qemu_console.fileno(),
            render.RAM_FD: ram,
        }
        with contextlib.ExitStack() as passed:
            passed.callback(os.close, ram)
            passed.callback(qemu_qmp.close)
            passed.callback(qemu_console.close)
            if plan.machine.carrier == "serial":
                fds[render.CHANNEL_FD] = channel.fileno()
            else:
                fds[render.SECRET_FD] = memfd(passed, "secret", self._secret)
            if plan.machine.transport == "9p":
                fds[render.FILTER_FD] = memfd(passed, "filter", export_filter())
            argv = render.qemu(
                plan,
                parts.facts,
                str(parts.kernel.image),
                str(parts.base.path),
                self._empty,
                verbose=self._verbose,
            )
            process = await self._spawn("QEMU", argv, fds, "the virtual machine")
        crash_point("qemu-spawned")
        self._console.attach(console)
        stack.callback(self._console.log.close)
        monitor = await stack.enter_async_context(Monitor.connect(qmp, process))
        crash_point("monitor-connected")
        return monitor

    @property
    def _empty(self) -> str:
        return str(self._folder / "empty")

    async def _spawn(
        self, name: str, argv: tuple[str, ...], fds: dict[int, int], what: str
    ) -> Process:
        process = await self._helpers.spawn(name, argv, fds=fds)
        self._logs[name] = process
        self._why_gone.watch(process, what, serves=name != "QEMU")
        return process

    async def _serve(self, monitor: Monitor, export: Export) -> None:
        """Start the file server of an export and plug it in."""
        facts, server = self._parts.facts, self._parts.file_server
        assert facts.bwrap is not None and server is not None
        path = self._folder / "sockets" / export.tag
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with client:
            with contextlib.ExitStack() as passed:
                listener = passed.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                listener.bind(str(path))
                listener.listen(1)
                client.connect(str(path))  # waits in the backlog: the path is not needed any more
                path.unlink()
                fds = {
                    render.LISTEN_FD: listener.fileno(),
                    render.EXPORT_FILTER_FD: memfd(passed, "filter", export_filter()),
                }
                argv = render.file_server(export, server, facts.bwrap, self._empty)
                await self._spawn(f"virtiofsd ({export.tag})", argv, fds, "the file server")
            crash_point("file-server-spawned")
            # Only the server holds its listener now: QEMU notices at once when it ends.
            await self._why_gone.guard(
                monitor.plug("vhost-user-fs-pci", export.tag, client, tag=export.tag)
            )
            crash_point("file-server-plugged")

    def _listen(self, stack: contextlib.AsyncExitStack) -> socket.socket | None:
        """Over vsock the guest dials: the listener is there before the device."""
        if self._plan.machine.carrier != "vsock" or self._parts.vsock_server is None:
            return None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(listener.close)
        # vhost-device-vsock: a guest's connection to port P of the host arrives at PATH_P.
        listener.bind(str(self._folder / "sockets" / f"vsock_{VSOCK_PORT}"))
        listener.listen(4)
        crash_point("vsock-listening")
        return listener

    async def _start_vsock(
        self, stack: contextlib.AsyncExitStack, monitor: Monitor, listener: socket.socket
    ) -> socket.socket:
        program, bwrap = self._parts.vsock_server, self._parts.facts.bwrap
        assert program is not None and bwrap is not None
        sockets = self._folder / "sockets"
        argv = render.vsock_server(program, bwrap, str(sockets), _FIRST_GUEST_CID)
        await self._spawn("vhost-device-vsock", argv, {}, "the vsock device")
        crash_point("vsock-server-spawned")
        client = await self._why_gone.guard(connect(sockets / "device"))
        with client:
            await self._why_gone.guard(monitor.plug("vhost-user-vsock-pci", "vsock", client))
        crash_point("vsock-plugged")
        return await self._why_gone.guard(accept_guest(listener, self._secret))

    def _on_ready(self, params: dict[str, object]) -> None:
        if params.get("version") != render.PROTOCOL_VERSION:
            raise ChannelError("the guest speaks another version of the protocol.")
        if not self._ready.done():
            self._ready.set_result(None)

    async def _watch(self, channel: Channel) -> None:
        reason = await channel.wait_closed()
        if isinstance(reason, SandboxGoneError):
            # QEMU's end closes the channel, too; its own reason says more and is on its way.
            await self._why_gone.settle(LAST_WORDS - SETTLING)
        self._why_gone.set(reason)

    async def _set_up(self, channel: Channel) -> Sandbox:
        sandbox = Sandbox(self._plan, self._folder, channel, self._why_gone)
        self._report(Phase(name="agent", message="setting up the guest"))
        try:
            setup = {**self._plan.setup, "clock": time.time_ns()}
            await sandbox.or_lost(channel.call("setup", setup))
            crash_point("guest-set-up")
            for agent in self._plan.agents:
                await sandbox.or_lost(channel.call("agent", agent.setup))
            crash_point("agent-up")
        except GuestError as error:
            raise BootError(f"the guest could not be set up: {error.message}.") from error
        return sandbox

    async def finish(self, sandbox: Sandbox) -> None:
        """Write back what the guest holds."""
        crash_point("before-sync")
        try:
            async with asyncio.timeout(SYNC_TIMEOUT):
                await sandbox.or_lost(sandbox.sync())
        except (CorralError, TimeoutError) as error:
            cause = error.message if isinstance(error, CorralError) else "it does not answer."
            message = (
                "the guest did not confirm that all it wrote is in the workspace; what its "
                f"programs changed through mapped memory may be missing: {cause}"
            )
            self._report(Notice(level="warning", message=message))
        crash_point("after-sync")

    def _overdue(self, limit: float) -> BootError:
        return BootError(
            f"the guest was not up after {limit:g} seconds; corral waited for {self._waiting_for}.",
            hint="Run it again with --console to see what the guest does. On a busy machine it "
            "may need more time.",
        )

    async def _explained(self, error: CorralError) -> CorralError:
        """The error with its cause, and with the guest's last words."""
        if not isinstance(error, BootError):
            await self._why_gone.settle(
                LAST_WORDS if isinstance(error, SandboxGoneError) else SETTLING
            )
            error = self._why_gone.reason or error
        self._console.log.drain()
        console = self._console.log.tail(CONSOLE_LINES)
        next_step = None if self._keep else DEBUG_HINT
        return explained(error, console, up=self._up, next_step=next_step)

    def save_logs(self) -> None:
        """Write every log to the run folder."""
        logs = {"console": self._console.log, **{n: p.log for n, p in self._logs.items()}}
        try:
            for name, log in logs.items():
                file = self._folder / f"{name.replace(' ', '-')}.log"
                file.write_bytes(log.content())
        except OSError as error:
            message = f"the logs cannot be kept in {self._folder}: {error.strerror}."
            self._report(Notice(level="warning", message=message))


def _ignore(_params: dict[str, object]) -> None:
    """Before a Sandbox listens, no command runs."""


async def _together(*work: Coroutine[object, object, None]) -> None:
    """Run all at once; the first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
