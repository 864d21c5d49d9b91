"""From a Plan to a running Sandbox, and back to nothing.

prepare   what may take long and needs no sandbox: kernel, base image, file server
start     QEMU and the file servers come up together; the guest says ready; jails start
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from corral_guest.seccomp import export_filter

from ..backends.qemu import render
from ..backends.qemu.control import Console, Monitor
from ..channel import Channel, accept_guest, serial_pair
from ..errors import (
    BootError,
    ChannelError,
    CorralError,
    GuestError,
    HostError,
    MissingProgramError,
    ProcessError,
    SandboxGoneError,
)
from ..events import Phase, Report
from ..host import Facts, Program, Virtiofsd
from ..images import BaseImage, Kernel, ensure_base_image, ensure_kernel
from ..images.fetch import fetch_tool
from ..plan import Export, Plan
from ..proc import Helpers, Process
from .run_folder import run_folder
from .sandbox import Sandbox, WhyGone

# Seconds until the guest must be up. TCG is some ten times slower, and hosts are busy.
BOOT_TIMEOUT = {"kvm": 60.0, "tcg": 180.0}
SYNC_TIMEOUT = 10.0
VSOCK_PORT = 5000  # corral_guest.carrier
_FIRST_GUEST_CID = 3  # vsock(7): 0 to 2 are reserved


@dataclass(frozen=True, slots=True)
class Parts:
    """What a sandbox is made of besides the plan. empty: a path to an empty file."""

    facts: Facts
    kernel: Kernel
    base: BaseImage
    file_server: Virtiofsd | None
    vsock_server: Program | None


def prepare(plan: Plan, facts: Facts, report: Report) -> Parts:
    """Get everything that is not there yet. Raises ImageError, FetchError, MissingProgramError."""
    if facts.qemu is None or facts.bwrap is None:
        raise MissingProgramError(
            "QEMU and bubblewrap are needed.", hint="Run `corral doctor --fix`."
        )
    if not facts.user_namespaces.ok:
        raise HostError(
            f"corral needs user namespaces: {facts.user_namespaces.reason}",
            hint=facts.user_namespaces.hint,
        )
    wanted = Path(plan.kernel) if plan.kernel else None
    kernel = ensure_kernel(wanted=wanted, modules=plan.modules, report=report)
    base = ensure_base_image(kernel, facts.python, Path(facts.bwrap.argv[0]), report)
    server = _file_server(facts, report) if plan.machine.transport == "virtiofs" else None
    vsock = None
    if plan.machine.carrier == "vsock" and not facts.vhost_vsock:
        vsock = facts.vhost_device_vsock or fetch_tool("vhost-device-vsock", report)
    return Parts(facts, kernel, base, server, vsock)


def _file_server(facts: Facts, report: Report) -> Virtiofsd:
    """The host's virtiofsd, or Debian's Rust one.

    QEMU's own (C) serves root only: an ordinary user's cannot open root's files the way overlayfs
    wants them (O_NOATIME is the owner's, see open(2)).
    """
    found = facts.virtiofsd
    if found is not None and (found.dialect == "rust" or facts.user.uid == 0):
        return found
    return Virtiofsd(program=fetch_tool("virtiofsd", report), dialect="rust")


@contextlib.asynccontextmanager
async def start(
    plan: Plan,
    parts: Parts,
    report: Report,
    *,
    console_echo: int | None = None,
    keep: bool = False,
) -> AsyncIterator[Sandbox]:
    """Run the sandbox; on leaving, everything is written back and every process is gone.

    console_echo: a descriptor that gets the guest's console, too. keep: keep the run folder, with
    all logs. Raises BootError, HostError, ProcessError, SandboxGoneError.
    """
    facts = parts.facts
    assert facts.bwrap is not None
    with run_folder(plan.name, keep=keep) as folder:
        remove = None if keep else folder
        async with Helpers.start(
            facts.bwrap.argv, root=facts.user.uid == 0, run_folder=remove
        ) as helpers:
            machine = _Machine(plan, parts, report, helpers, folder, console_echo)
            try:
                async with machine.run() as sandbox:
                    yield sandbox
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
    ) -> None:
        self._plan = plan
        self._parts = parts
        self._report = report
        self._helpers = helpers
        self._folder = folder
        self._console = Console(console_echo)
        self._why_gone = WhyGone()
        self._logs: dict[str, Process] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._secret = secrets.token_bytes(32)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Sandbox]:
        """Boot and serve. What goes wrong is told with the guest's last words."""
        limit = BOOT_TIMEOUT[self._plan.machine.accel]
        try:
            async with contextlib.AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(limit):
                        sandbox = await self._boot(stack)
                except TimeoutError:
                    raise BootError(f"the guest was not up after {limit:g} seconds.") from None
                yield sandbox
        except (BootError, ChannelError, ProcessError, SandboxGoneError) as error:
            await self._why_gone.settle()
            raise self._explained(error) from error

    async def _boot(self, stack: contextlib.AsyncExitStack) -> Sandbox:
        self._report(Phase(name="boot", message="booting the guest"))
        ours, theirs = serial_pair()
        stack.callback(ours.close)
        listener = self._listen(stack)
        try:
            monitor = await self._start_qemu(stack, theirs)
        finally:
            theirs.close()
        if self._plan.machine.transport == "virtiofs":
            await asyncio.gather(
                *(self._serve(monitor, export) for export in render.exports(self._plan))
            )
        if listener is not None:
            ours = await self._start_vsock(stack, monitor, listener)
        channel = await stack.enter_async_context(
            await Channel.start(ours, {"ready": self._on_ready, "exited": _ignore})
        )
        watch = asyncio.create_task(self._watch(channel), name="watch-channel")
        stack.callback(watch.cancel)
        await self._why_gone.guard(self._ready)
        return await self._set_up(channel)

    async def _start_qemu(
        self, stack: contextlib.AsyncExitStack, channel: socket.socket
    ) -> Monitor:
        plan, parts = self._plan, self._parts
        qmp, qemu_qmp = socket.socketpair()
        console, qemu_console = socket.socketpair()
        ram = os.memfd_create("corral-ram", os.MFD_CLOEXEC)
        os.ftruncate(ram, plan.machine.memory)
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
                fds[render.SECRET_FD] = _memfd(passed, "secret", self._secret)
            if plan.machine.transport == "9p":
                fds[render.FILTER_FD] = _memfd(passed, "filter", export_filter())
            argv = render.qemu(
                plan, parts.facts, str(parts.kernel.image), str(parts.base.path), self._empty
            )
            process = await self._spawn("QEMU", argv, fds, "the virtual machine")
        self._console.attach(console)
        stack.callback(self._console.log.close)
        return await stack.enter_async_context(Monitor.connect(qmp, process))

    @property
    def _empty(self) -> str:
        return str(self._folder / "empty")

    async def _spawn(
        self, name: str, argv: tuple[str, ...], fds: dict[int, int], what: str
    ) -> Process:
        process = await self._helpers.spawn(name, argv, fds=fds)
        self._logs[name] = process
        self._why_gone.watch(process, what)
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
                    render.EXPORT_FILTER_FD: _memfd(passed, "filter", export_filter()),
                }
                argv = render.file_server(export, server, facts.bwrap, self._empty)
                await self._spawn(f"virtiofsd ({export.tag})", argv, fds, "the file server")
            # Only the server holds its listener now: QEMU notices at once when it ends.
            await self._why_gone.guard(
                monitor.plug("vhost-user-fs-pci", export.tag, client, tag=export.tag)
            )

    def _listen(self, stack: contextlib.AsyncExitStack) -> socket.socket | None:
        """Over vsock the guest dials: the listener is there before the device."""
        if self._plan.machine.carrier != "vsock" or self._parts.vsock_server is None:
            return None
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(listener.close)
        # vhost-device-vsock: a guest's connection to port P of the host arrives at PATH_P.
        listener.bind(str(self._folder / "sockets" / f"vsock_{VSOCK_PORT}"))
        listener.listen(4)
        return listener

    async def _start_vsock(
        self, stack: contextlib.AsyncExitStack, monitor: Monitor, listener: socket.socket
    ) -> socket.socket:
        program, bwrap = self._parts.vsock_server, self._parts.facts.bwrap
        assert program is not None and bwrap is not None
        sockets = self._folder / "sockets"
        argv = render.vsock_server(program, bwrap, str(sockets), _FIRST_GUEST_CID)
        process = await self._spawn("vhost-device-vsock", argv, {}, "the vsock device")
        client = await self._why_gone.guard(_connect(sockets / "device", process))
        with client:
            await monitor.plug("vhost-user-vsock-pci", "vsock", client)
        return await self._why_gone.guard(accept_guest(listener, self._secret))

    def _on_ready(self, params: dict[str, object]) -> None:
        if params.get("version") != render.PROTOCOL_VERSION:
            raise ChannelError("the guest speaks another version of the protocol.")
        if not self._ready.done():
            self._ready.set_result(None)

    async def _watch(self, channel: Channel) -> None:
        reason = await channel.wait_closed()
        # QEMU's end closes the channel, too; its own reason says more and is on its way.
        await asyncio.sleep(0.3)
        self._why_gone.set(reason)

    async def _set_up(self, channel: Channel) -> Sandbox:
        sandbox = Sandbox(self._plan, self._folder, channel, self._why_gone)
        self._report(Phase(name="agent", message="setting up the guest"))
        try:
            setup = {**self._plan.setup, "clock": time.time_ns()}
            await sandbox.or_lost(channel.call("setup", setup))
            for agent in self._plan.agents:
                await sandbox.or_lost(channel.call("agent", agent.setup))
        except GuestError as error:
            raise BootError(f"the guest could not be set up: {error.message}.") from error
        return sandbox

    async def finish(self, sandbox: Sandbox) -> None:
        """Write back what the guest holds."""
        with contextlib.suppress(CorralError, TimeoutError):
            # A guest that does not answer loses nothing but what its programs never wrote out.
            await asyncio.wait_for(sandbox.or_lost(sandbox.sync()), SYNC_TIMEOUT)

    def _explained(self, error: CorralError) -> CorralError:
        """The error with the guest's last words, or with the kernel's when it panicked."""
        reason = self._why_gone.reason or error
        console = self._console.log.tail(30)
        panic = next((line for line in console.splitlines() if "Kernel panic" in line), None)
        if panic:
            return SandboxGoneError(
                "the guest's kernel panicked.", hint=_PANIC_HINT, detail=console
            )
        kind = BootError if isinstance(error, BootError) else type(reason)
        detail = "\n".join(part for part in (reason.detail, console) if part)
        return kind(reason.message, hint=reason.hint or _DEBUG_HINT, detail=detail or None)

    def save_logs(self) -> None:
        """Write every log to the run folder."""
        (self._folder / "console.log").write_bytes(self._console.log.content())
        for name, process in self._logs.items():
            file = self._folder / f"{name.replace(' ', '-')}.log"
            file.write_bytes(process.log.content())


_PANIC_HINT = "If memory ran out, give the sandbox more (--memory)."
_DEBUG_HINT = "Run it again with --debug: it keeps the logs and prints where."


def _ignore(_params: dict[str, object]) -> None:
    """Before a Sandbox listens, no command runs."""


def _memfd(stack: contextlib.ExitStack, name: str, content: bytes) -> int:
    """A descriptor to read `content` from, closed with the stack."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def _connect(path: Path, process: Process) -> socket.socket:
    """Connect to a socket that `process` makes. It tells nobody when, so this has to look."""
    loop = asyncio.get_running_loop()
    while True:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.setblocking(False)
        try:
            await loop.sock_connect(client, str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            await asyncio.sleep(0.005)
        else:
            client.setblocking(True)
            return client
