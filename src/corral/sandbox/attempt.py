"""One attempt to bring a machine up, until it is a sandbox; and how that ends.

QEMU, restored from a template or booted, and the file servers come up together; the guest is told
who it is; jails start.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TypeVar

from corral_guest import proof
from corral_guest.seccomp import export_filter

from ..backends.qemu import render
from ..channel import Channel, accept_guest
from ..errors import (
    BootError,
    ChannelError,
    CorralError,
    GuestError,
    ProcessError,
    SandboxError,
    SandboxGoneError,
)
from ..events import Notice, Phase, Report
from ..plan import Export
from ..proc import crash_point
from ..templates import Template, mark_broken
from .agents import Agents
from .checkpoint import attach, identify, thaw
from .debug import open_shells
from .descriptors import connect, memfd
from .disk import Disk
from .evidence import CONSOLE_LINES, DEBUG_HINT, explained
from .machine import LAST_WORDS, SETTLING, Machine
from .network import egress, preload
from .ports import Ports
from .sandbox import Sandbox
from .wake import set_clock, wake

T = TypeVar("T")

SYNC_TIMEOUT = 10.0
VSOCK_PORT = 5000  # corral_guest.carrier
_FIRST_GUEST_CID = 3  # vsock(7): 0 to 2 are reserved


class Attempt:
    """A machine while it becomes a sandbox, and when it ends."""

    def __init__(
        self,
        machine: Machine,
        disk: Disk | None,
        ports: Ports,
        intercept: Path | None,
        report: Report,
        *,
        keep: bool,
    ) -> None:
        self._machine = machine
        self._intercept = intercept
        self._ports = ports
        self._disk = disk
        machine.disk = -1 if disk is None else disk.fd
        self._plan = machine.plan
        self._parts = machine.parts
        self._report = report
        self._keep = keep
        self._waiting_for = "QEMU to start"
        self._up = False

    async def restored(
        self, stack: contextlib.AsyncExitStack, template: Template, limit: float
    ) -> Sandbox | None:
        """The sandbox, in the caller's stack; None when it could not be restored, which is told.

        Then the template is removed, unless one of our processes was killed or a server ended.
        """
        try:
            return await stack.enter_async_context(self.run(limit, template))
        except CorralError as error:
            machine = self._machine
            culprit = machine.why_gone.culprit
            served = culprit is None or culprit is machine.logs.get("QEMU")
            if served and not any(process.killed for process in machine.logs.values()):
                with contextlib.suppress(CorralError):
                    mark_broken(template.key)
            cause = error.message.rstrip(".")
            message = f"the saved machine could not be restored ({cause}); booting one."
            self._report(Notice(level="warning", message=message))
            return None

    @contextlib.asynccontextmanager
    async def run(
        self, limit: float, template: Template | None = None, *, saved: Template | None = None
    ) -> AsyncIterator[Sandbox]:
        """Be up within `limit` seconds, and serve."""
        async with contextlib.AsyncExitStack() as stack:
            # Explained before the stack is unwound: that ends QEMU, which would look like a cause.
            try:
                try:
                    async with asyncio.timeout(limit):
                        if saved is not None:
                            sandbox = await self._go_on(stack, saved)
                        else:
                            sandbox = await self._start(stack, template)
                except TimeoutError:
                    raise self._overdue(limit) from None
                self._up = True
                yield sandbox
            except (ChannelError, ProcessError, SandboxError) as error:
                raise await self._explained(error) from error

    async def _start(self, stack: contextlib.AsyncExitStack, template: Template | None) -> Sandbox:
        machine = self._machine
        message = "booting the guest" if template is None else "restoring the guest"
        self._report(Phase(name="boot", message=message))
        up = machine.boot(stack) if template is None else machine.restore(stack, template)
        clients = await self._with_servers(stack, up)
        channel = await machine.serial_channel(stack)
        if template is not None:
            await machine.resume()
        # The guest gets its devices while it already runs.
        plugged = asyncio.create_task(self._plug(clients), name="plug")
        plugged.add_done_callback(lambda task: task.cancelled() or task.exception())
        stack.callback(plugged.cancel)
        if template is None:
            self._waiting_for = "the guest to say that it is ready"
            await machine.ready()
            await machine.make_jails(channel)
        sandbox = await self._set_up(stack, channel)
        await plugged
        return sandbox

    async def _go_on(self, stack: contextlib.AsyncExitStack, saved: Template) -> Sandbox:
        """Be the machine that was saved, with file servers that take over where others were."""
        machine = self._machine
        self._report(Phase(name="boot", message="going on from the checkpoint"))
        await self._plug(await self._with_servers(stack, machine.load(stack, saved)))
        self._waiting_for = "QEMU to take over the machine's state"
        await machine.why_gone.guard(machine.arrive(saved))
        channel = await machine.serial_channel(stack)
        await machine.resume()
        self._waiting_for = "the guest to answer"
        next_command = await machine.why_gone.guard(attach(channel))
        crash_point("copy-attached")
        await machine.why_gone.guard(wake(channel, self._plan))
        sandbox = await self._sandbox(stack, channel, next_command)
        await sandbox.or_lost(identify(channel, self._plan, sandbox.machine_id))
        await sandbox.or_lost(thaw(channel))
        crash_point("copy-awake")
        return sandbox

    async def _with_servers(
        self, stack: contextlib.AsyncExitStack, up: Coroutine[object, object, None]
    ) -> list[tuple[Export, socket.socket]]:
        """Bring the machine `up` and start the file servers, all at once; what is to be plugged."""
        served = self._plan.machine.transport == "virtiofs"
        exports = render.exports(self._plan) if served else []
        imports = asyncio.to_thread(preload, self._plan)
        servers = (self._serve(stack, export) for export in exports)
        _none, _none, *clients = await _together(up, imports, *servers)
        return [(export, client) for export, client in zip(exports, clients, strict=True) if client]

    async def _plug(self, clients: list[tuple[Export, socket.socket]]) -> None:
        """Give the machine its file servers and its disk."""
        machine = self._machine
        try:
            for export, client in clients:
                await machine.why_gone.guard(
                    machine.monitor.plug("vhost-user-fs-pci", export.tag, client, tag=export.tag)
                )
                client.close()
                crash_point("file-server-plugged")
            if self._disk is not None:
                await machine.why_gone.guard(self._disk.plug(machine.monitor))
        except CorralError as error:
            machine.why_gone.set(error)  # who waits for the guest waits for nothing
            raise

    async def _serve(self, stack: contextlib.AsyncExitStack, export: Export) -> socket.socket:
        """Start the file server of an export; returns QEMU's end of its socket."""
        facts, server = self._parts.facts, self._parts.file_server
        assert facts.bwrap is not None and server is not None
        path = self._machine.folder / "sockets" / export.tag
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(client.close)
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
            argv = render.file_server(
                export, server, facts.bwrap, self._machine.empty, root=facts.user.uid == 0
            )
            name = f"virtiofsd ({export.tag})"
            await self._machine.spawn(name, argv, fds, "the file server", files=True)
        # Only the server holds its listener now: QEMU notices at once when it ends.
        crash_point("file-server-spawned")
        return client

    async def _set_up(self, stack: contextlib.AsyncExitStack, channel: Channel) -> Sandbox:
        """Tell the guest who it is, before anything of the user's runs in it."""
        why_gone = self._machine.why_gone
        self._waiting_for = "the guest to mount its folders and start the jail"
        self._report(Phase(name="agent", message="setting up the guest"))
        try:
            awake = asyncio.ensure_future(why_gone.guard(self._wake(channel)))
            if self._plan.machine.carrier == "vsock":
                await awake
                channel = await self._change_carrier(stack, channel)
            sandbox = await self._sandbox(stack, channel)
            # The guest does one after the other; nothing waits here in between.
            machine_id = sandbox.machine_id
            agents = [{**agent.setup, "machine_id": machine_id} for agent in self._plan.agents]
            await sandbox.or_lost(
                _together(
                    why_gone.guard(awake),
                    channel.call("setup", self._plan.setup),
                    *(channel.call("agent", setup) for setup in agents),
                )
            )
            crash_point("guest-set-up")
            await sandbox.or_lost(set_clock(channel))
            opened = open_shells(channel, self._plan, self._machine.folder)
            sandbox.debug_shells = await sandbox.or_lost(opened)
            crash_point("agent-up")
        except GuestError as error:
            raise BootError(f"the guest could not be set up: {error.message}.") from error
        return sandbox

    async def _sandbox(
        self, stack: contextlib.AsyncExitStack, channel: Channel, first: int = 1
    ) -> Sandbox:
        """With all that its agents need from the moment that they run."""
        machine = self._machine
        outward = egress(
            self._plan,
            channel,
            self._report,
            intercept=self._intercept,
            gateway=machine.gateway,
        )
        traffic = await stack.enter_async_context(outward)
        agents = await stack.enter_async_context(
            Agents(self._plan, channel, self._report).watched()
        )
        return Sandbox(
            self._plan, self._machine, channel, self._ports, traffic, agents, first=first
        )

    async def _wake(self, channel: Channel) -> None:
        await wake(channel, self._plan)
        crash_point("guest-awake")

    async def _change_carrier(self, stack: contextlib.AsyncExitStack, serial: Channel) -> Channel:
        """Start the vsock device and have the guest go on over it: it dials, both prove themselves.

        The secret for that goes over the serial port, which only this machine has.
        """
        machine, why_gone = self._machine, self._machine.why_gone
        program, bwrap = self._parts.vsock_server, self._parts.facts.bwrap
        assert program is not None and bwrap is not None
        sockets = machine.folder / "sockets"
        secret = secrets.token_bytes(proof.SECRET_BYTES)
        # vhost-device-vsock: a guest's connection to port P of the host arrives at PATH_P.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(sockets / f"vsock_{VSOCK_PORT}"))
            listener.listen(4)
            crash_point("vsock-listening")
            argv = render.vsock_server(
                program, bwrap, str(sockets), _FIRST_GUEST_CID, root=self._parts.facts.user.uid == 0
            )
            await machine.spawn("vhost-device-vsock", argv, {}, "the vsock device")
            crash_point("vsock-server-spawned")
            with await why_gone.guard(connect(sockets / "device")) as client:
                await why_gone.guard(machine.monitor.plug("vhost-user-vsock-pci", "vsock", client))
            crash_point("vsock-plugged")
            end, _answer = await why_gone.guard(
                _together(
                    accept_guest(listener, secret),
                    serial.call("carrier", {"secret": secret.hex()}),
                )
            )
        assert isinstance(end, socket.socket)
        stack.callback(end.close)
        return await machine.channel(stack, end)

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
        why_gone, log = self._machine.why_gone, self._machine.console.log
        if not isinstance(error, BootError):
            await why_gone.settle(LAST_WORDS if isinstance(error, SandboxGoneError) else SETTLING)
            error = why_gone.reason or error
        log.drain()
        next_step = None if self._keep else DEBUG_HINT
        return explained(error, log.tail(CONSOLE_LINES), up=self._up, next_step=next_step)

    def save_logs(self) -> None:
        """Write every log to the run folder."""
        folder = self._machine.folder
        try:
            for name, content in self._machine.all_logs().items():
                (folder / f"{name.replace(' ', '-')}.log").write_bytes(content)
        except OSError as error:
            message = f"the logs cannot be kept in {folder}: {error.strerror}."
            self._report(Notice(level="warning", message=message))


async def _together(*work: Coroutine[object, object, T]) -> list[T]:
    """Run all at once; their results. The first failure ends the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [task.result() for task in tasks]
