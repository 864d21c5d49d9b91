"""QEMU with its console and its monitor: booted, or restored from a template.

A sandbox stands on one; a template is one that was saved when its guest was ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from corral_guest.seccomp import export_filter

from ..backends.qemu import render
from ..backends.qemu.control import Console, Monitor
from ..channel import Channel, serial_pair
from ..channel.channel import Handler
from ..errors import ChannelError, HostError, SandboxGoneError
from ..plan import Plan
from ..proc import Helpers, Process, crash_point
from ..templates import Template, copy_memory
from .descriptors import memfd, memory
from .parts import Parts
from .why_gone import WhyGone

# Seconds that an error waits for its cause to be noticed: any, and after the channel's end.
SETTLING, LAST_WORDS = 0.5, 2.5


class Machine:
    """A virtual machine. logs: of its processes. memory, disk: descriptors of them, or -1.

    gateway: where the gateway listens for an agent; None without one.
    """

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        helpers: Helpers,
        folder: Path,
        *,
        console_echo: int | None = None,
    ) -> None:
        self.plan = plan
        self.parts = parts
        self.folder = folder
        self.console = Console(console_echo)
        self.why_gone = WhyGone()
        self.logs: dict[str, Process] = {}
        self.memory = -1
        self.disk = -1
        self.gateway: Callable[[int], Path] | None = None
        self._helpers = helpers
        self._verbose = console_echo is not None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._serial: socket.socket | None = None
        self._monitor: Monitor | None = None

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor, once the machine is up."""
        assert self._monitor is not None
        return self._monitor

    @property
    def empty(self) -> str:
        """The path of an empty file on the host."""
        return str(self.folder / "empty")

    @property
    def pid(self) -> int:
        """The process above all others of this machine."""
        return self._helpers.pid

    async def boot(self, stack: contextlib.AsyncExitStack) -> None:
        """Start it. Raises ProcessError, HostError."""
        self._take_memory(stack)
        await self._start_qemu(stack, restored=False)

    async def restore(self, stack: contextlib.AsyncExitStack, template: Template) -> None:
        """Bring it to where the template was saved; it stands still until `resume`.

        Raises ProcessError, HostError, OSError.
        """
        await self.load(stack, template)
        await self.arrive(template)

    async def load(self, stack: contextlib.AsyncExitStack, template: Template) -> None:
        """The first half of `restore`: its memory, and a QEMU that waits for the rest.

        What was plugged in when it was saved is to be plugged in now. Raises as `restore`.
        """
        self._take_memory(stack)
        copied = asyncio.create_task(
            asyncio.to_thread(copy_memory, template.memory, self.memory), name="copy-memory"
        )
        try:
            await self._start_qemu(stack, restored=True)
            await copied
        except OSError as error:
            raise HostError(f"the saved memory cannot be read: {error.strerror}.") from error
        finally:
            await asyncio.wait((copied,))  # a thread cannot be cancelled, and uses our descriptor
        crash_point("memory-copied")

    async def arrive(self, template: Template) -> None:
        """The second half of `restore`: the state of processors and devices. Raises the same."""
        await self.monitor.restore(template.state)
        crash_point("machine-restored")

    async def resume(self) -> None:
        """Let it run."""
        await self.monitor.execute("cont")

    def _take_memory(self, stack: contextlib.AsyncExitStack) -> None:
        self.memory = memory(self.plan.machine.memory)
        stack.callback(os.close, self.memory)

    async def _start_qemu(self, stack: contextlib.AsyncExitStack, *, restored: bool) -> None:
        plan, parts = self.plan, self.parts
        qmp, qemu_qmp = socket.socketpair()
        console, qemu_console = socket.socketpair()
        self._serial, qemu_serial = serial_pair()
        stack.callback(self._serial.close)
        with contextlib.ExitStack() as passed:
            for end in (qemu_qmp, qemu_console, qemu_serial):
                passed.callback(end.close)
            fds = {
                render.QMP_FD: qemu_qmp.fileno(),
                render.CHANNEL_FD: qemu_serial.fileno(),
                render.CONSOLE_FD: qemu_console.fileno(),
                render.RAM_FD: self.memory,
            }
            if plan.machine.transport == "9p":
                fds[render.FILTER_FD] = memfd(passed, "filter", export_filter())
            argv = render.qemu(
                plan,
                parts.facts,
                str(parts.kernel.image),
                str(parts.base.path),
                self.empty,
                verbose=self._verbose,
                restored=restored,
            )
            process = await self.spawn("QEMU", argv, fds, "the virtual machine")
        crash_point("qemu-spawned")
        self.console.attach(console)
        stack.callback(self.console.log.close)
        self._monitor = await stack.enter_async_context(Monitor.connect(qmp, process))
        crash_point("monitor-connected")

    async def spawn(
        self,
        name: str,
        argv: tuple[str, ...],
        fds: dict[int, int],
        what: str,
        *,
        files: bool = False,
    ) -> Process:
        """Start a process that the machine cannot live without. files: see `Helpers.spawn`."""
        process = await self._helpers.spawn(name, argv, fds=fds, files=files)
        self.logs[name] = process
        self.why_gone.watch(process, what, serves=name != "QEMU")
        return process

    async def serial_channel(self, stack: contextlib.AsyncExitStack) -> Channel:
        """The channel over the serial port, which every guest starts on."""
        assert self._serial is not None
        return await self.channel(stack, self._serial)

    async def channel(self, stack: contextlib.AsyncExitStack, end: socket.socket) -> Channel:
        """A channel to the guest; when it ends, the machine counts as gone."""
        handlers: dict[str, Handler] = {"ready": self._on_ready}
        handlers |= dict.fromkeys(("exited", "agent", "heartbeat"), _ignore)
        channel = await stack.enter_async_context(await Channel.start(end, handlers))
        watch = asyncio.create_task(self._watch(channel), name="watch-channel")
        stack.callback(watch.cancel)
        crash_point("channel-started")
        return channel

    async def ready(self) -> None:
        """Wait until a guest that boots says that it is ready."""
        await self.why_gone.guard(self._ready)
        crash_point("guest-ready")

    async def make_jails(self, channel: Channel) -> None:
        """Have the guest make its agents' jails, as far as that can be without a workspace."""
        for agent in self.plan.agents:
            await self.why_gone.guard(channel.call("jail", agent.jail))
        crash_point("jails-made")

    def _on_ready(self, params: dict[str, object]) -> None:
        if params.get("version") != render.PROTOCOL_VERSION:
            raise ChannelError("the guest speaks another version of the protocol.")
        if not self._ready.done():
            self._ready.set_result(None)

    async def _watch(self, channel: Channel) -> None:
        reason = await channel.wait_closed()
        if isinstance(reason, SandboxGoneError):
            # QEMU's end closes the channel, too; its own reason says more and is on its way.
            await self.why_gone.settle(LAST_WORDS - SETTLING)
        self.why_gone.set(reason)

    def all_logs(self) -> dict[str, bytes]:
        """What the console and every process have said, by name."""
        logs = {"console": self.console.log, **{n: p.log for n, p in self.logs.items()}}
        return {name: log.content() for name, log in logs.items()}


def _ignore(_params: dict[str, object]) -> None:
    """Before a Sandbox listens, no command runs, and no agent is up."""
