"""A running QEMU: its monitor, its console, its devices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from ...errors import ProcessError
from ...proc import Log, Process, crash_point
from . import disk

T = TypeVar("T")

_SETTLE_TIME = 20.0  # seconds for QEMU to end a migration that is complete


class Monitor:
    """QEMU's monitor (QMP) over a socket pair."""

    def __init__(self, client: QMPClient, process: Process) -> None:
        self._client = client
        self._process = process
        self._port = 0
        self._plugging = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, sock: socket.socket, process: Process) -> AsyncIterator[Monitor]:
        """Greet QEMU; on leaving, quit it. Raises ProcessError when it has ended instead."""
        client = QMPClient("corral")
        client.logger.disabled = True
        try:
            await _or_ended(_greet(client, sock), process)
            yield cls(client, process)
        finally:
            with contextlib.suppress(QMPError, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(client.execute("quit"), 2)
            with contextlib.suppress(QMPError, OSError, EOFError, asyncio.TimeoutError):
                await asyncio.wait_for(client.disconnect(), 2)
            crash_point("qemu-quit")

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        """One command. Raises ProcessError with QEMU's words when it fails."""
        try:
            return await _or_ended(self._client.execute(command, arguments), self._process)
        except ExecuteError as error:
            raise ProcessError(f"QEMU refused {command}: {error}.") from error

    async def save(self, state: int) -> None:
        """Stop the machine and write its state, all but its memory, to the descriptor `state`.

        It stays stopped: what is in its memory is what the state belongs to. Raises ProcessError.
        """
        await self.execute("stop")
        await self._migrate("migrate", state)
        # "completed" is said before the migration's thread has left the run state alone: a `cont`
        # in between is undone, and the machine stands still for ever (migration_iteration_finish).
        limit = time.monotonic() + _SETTLE_TIME
        while (state_now := await self._run_state()) != "postmigrate":
            if time.monotonic() > limit:
                raise ProcessError(f"QEMU is {state_now} after it wrote the machine's state.")
            await asyncio.sleep(0.002)

    async def _run_state(self) -> str:
        found: Any = await self.execute("query-status")
        return str(found["status"])

    async def restore(self, state: int) -> None:
        """Read the state of a machine that was started to wait for it; it does not run yet.

        Its memory must be in place. Raises ProcessError.
        """
        await self._migrate("migrate-incoming", state)

    async def _migrate(self, command: str, state: int) -> None:
        """One migration (QEMU's docs/devel/migration.rst) that leaves shared memory where it is."""
        enabled = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
        await self.execute("migrate-set-capabilities", {"capabilities": enabled})
        await self._pass("state", state)
        with self._client.listener("MIGRATION") as events:
            await self.execute(command, {"uri": "fd:state"})
            while True:
                data: Any = (await _or_ended(events.get(), self._process))["data"]
                status = data["status"]
                if status == "completed":
                    return
                if status in ("failed", "cancelled"):
                    raise ProcessError(f"QEMU could not {command} the machine's state.")

    async def _pass(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor under a name; under `_plugging`, or before anybody plugs."""
        self._client.send_fd_scm(fd)
        await self.execute("getfd", {"fdname": name})

    async def plug(self, driver: str, name: str, backend: socket.socket, **options: object) -> None:
        """Hot-plug a vhost-user device on the next root port; QEMU gets `backend`, connected."""
        # A descriptor goes to whoever asks for it next.
        async with self._plugging:
            self._port += 1
            await self._pass(name, backend.fileno())
            await self.execute(
                "chardev-add",
                {
                    "id": name,
                    "backend": {
                        "type": "socket",
                        "data": {
                            "addr": {"type": "fd", "data": {"str": name}},
                            "server": False,
                        },
                    },
                },
            )
            await self.execute(
                "device_add",
                {
                    "driver": driver,
                    "id": f"{name}-device",
                    "chardev": name,
                    "bus": f"port{self._port}",
                    **options,
                },
            )

    async def carry_out(self, command: str, arguments: dict[str, object]) -> None:
        """One command; with a job-id, to the end of the job. Raises ProcessError when it fails."""
        job = arguments.get("job-id")
        if job is None:
            await self.execute(command, arguments)
            return
        with self._client.listener("JOB_STATUS_CHANGE") as events:
            await self.execute(command, arguments)
            change: Any = None
            while change is None or (change["id"], change["status"]) != (job, "concluded"):
                change = (await _or_ended(events.get(), self._process))["data"]
        jobs: Any = await self.execute("query-jobs")
        await self.execute("job-dismiss", {"id": job})
        why = next((each.get("error") for each in jobs if each["id"] == job), None)
        if why is not None:
            raise ProcessError(f"QEMU could not {command}: {why}.")

    async def plug_disk(self, fd: int, *, grow_to: int | None) -> None:
        """Hot-plug the disk in the qcow2 file `fd` on the next root port.

        grow_to: bytes that it gets first. Raises ProcessError.
        """
        async with self._plugging:
            self._port += 1
            self._client.send_fd_scm(fd)
            await self.execute("add-fd", {"fdset-id": disk.FDSET})
            for node in disk.nodes():
                await self.execute("blockdev-add", node)
            if grow_to is not None:
                await self.execute("block_resize", {"node-name": disk.NODE, "size": grow_to})
            await self.execute("device_add", disk.device(self._port))


async def _greet(client: QMPClient, sock: socket.socket) -> None:
    """Connect. Raises QMPError."""
    try:
        await client.connect(sock)
    except AssertionError as error:  # what the library does when QEMU ends just after its greeting
        raise QMPError("QEMU ended while it was greeted") from error


async def _or_ended(awaitable: Awaitable[T], process: Process) -> T:
    """The result of a monitor action; ProcessError if QEMU ends before it comes."""
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait((task, process.exited), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    except ExecuteError:
        raise
    except QMPError as error:
        await _settle(process)
        raise ProcessError(f"{process.explain()}.", detail=process.last_words()) from error
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, QMPError):
                await task
        elif not task.cancelled():
            task.exception()  # looked at: who waited may have been cancelled
    await _settle(process)
    raise ProcessError(f"{process.explain()}.", detail=process.last_words())


async def _settle(process: Process) -> None:
    """Give a process that broke off a moment to end and its last words to arrive."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(process.exited), 2)
        await asyncio.wait_for(process.log.ended.wait(), 1)


class Console:
    """The guest's serial console, kept as a bounded log."""

    def __init__(self, echo: int | None = None) -> None:
        self.log = Log(echo)

    def attach(self, sock: socket.socket) -> None:
        """Read from our end of the console's socket pair."""
        self.log.attach(sock.detach())
