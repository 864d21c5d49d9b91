"""Hosts that lack something, and guests that panic, hang, lie, flood or leave.

Each ends in one clear error, in bounded time and memory, and leaves nothing. The hosts are made in
namespaces of the test's own, the guests by another program as PID 1 or by the guest's root.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from corral import paths
from corral.errors import BootError, ChannelError, CorralError, SandboxGoneError
from corral.events import silent
from corral.images import ensure_kernel
from corral.proc.log import LOG_BYTES
from corral.sandbox import Sandbox, start
from tests.support import leftovers
from tests.support.faults import Run, assert_nothing_left, with_init
from tests.support.namespaces import where
from tests.support.sandboxes import guest_root, plan_for, run, sandbox_on, shell

MIB = 1 << 20


def fails(folder: Path, *options: str, prefix: Sequence[str] = (), **environment: object) -> str:
    """What a run that must fail writes on standard error: one error, no traceback."""
    extra = {name: str(value) for name, value in environment.items()}
    failed = Run(
        folder, ("true",), options=options, prefix=prefix, environment=extra, as_json=False
    )
    status = failed.end_plainly()
    assert status == 125, (status, failed.stderr)
    assert failed.stderr.startswith("corral: error: "), failed.stderr
    assert "Traceback" not in failed.stderr and "internal error" not in failed.stderr
    assert_nothing_left()
    return failed.stderr


# Hosts


def test_no_user_namespaces_and_which_setting_forbids_them(project: Path) -> None:
    limit = "/proc/sys/user/max_user_namespaces"
    error = fails(project, prefix=where(f"open({limit!r}, 'w').write('0')", user_namespace=True))
    assert "user.max_user_namespaces is 0" in error
    assert "sysctl -w user.max_user_namespaces=" in error


def test_no_kvm_where_it_is_asked_for(project: Path) -> None:
    error = fails(project, "--accel", "kvm", prefix=where("", bwrap=("--dev", "/dev")))
    assert "KVM is asked for and cannot be used: there is no usable /dev/kvm" in error
    assert "Leave --accel out" in error


def test_a_home_that_cannot_be_written(project: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    unset = {"XDG_CACHE_HOME": "", "CORRAL_CACHE_DIR": ""}
    error = fails(project, prefix=where(f"read_only({str(home)!r})"), HOME=home, **unset)
    assert f"cannot make {home}/.cache/corral: Read-only file system" in error
    assert "CORRAL_CACHE_DIR" in error


def test_a_cache_on_a_full_disk(project: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    setup = f"mount('tmpfs', {str(cache)!r}, 'tmpfs', 0, 'size=1m,mode=700')"
    error = fails(project, prefix=where(setup), CORRAL_CACHE_DIR=cache)
    assert re.search(rf"needs \d+ MiB in {cache}/\S+; 1 MiB are free", error)
    assert "Free some space" in error


def test_no_room_for_a_run_folder(project: Path, tmp_path: Path) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    setup = f"mount('tmpfs', {str(runtime)!r}, 'tmpfs', 0, 'nr_inodes=3,mode=700')"
    error = fails(project, prefix=where(setup), XDG_RUNTIME_DIR=runtime)
    assert f"cannot make a run folder in {runtime}/corral: No space left on device" in error
    assert "set XDG_RUNTIME_DIR" in error


def test_a_full_workspace_is_the_commands_error_and_a_read_only_cache_is_enough(
    project: Path,
) -> None:
    """ENOSPC reaches the command as on the host; corral needs to write nothing itself."""
    ensure_everything(project)
    setup = (
        f"mount('tmpfs', {str(project)!r}, 'tmpfs', 0, 'size=1m,mode=700')\n"
        f"os.chdir({str(project)!r})\n"
        f"read_only({str(paths.cache_dir())!r})"
    )
    script = "dd if=/dev/zero of=big bs=64k count=64; echo $?; rm big; echo kept > small; cat small"
    full = Run(project, ("sh", "-c", script), prefix=where(setup), as_json=False)
    assert full.process.stdout is not None
    output = full.process.stdout.read().decode().split()
    assert full.process.wait(60) == 0, full.stderr
    assert output == ["1", "kept"], "the command went on, with what it freed"
    assert "No space left on device" in full.stderr
    assert_nothing_left()


def ensure_everything(project: Path) -> None:
    """Have the kernel, the base image and the tools in the cache."""
    plan_for(project)


# Kernels


def kernel_tree(folder: Path, without: str = "") -> Path:
    """The guest kernel as a user would name it: an image, lib/modules beside it, all links."""
    kernel = ensure_kernel(wanted=None, modules=("virtiofs", "overlay"), report=silent)
    name = f"lib/modules/{kernel.release}"
    found = next(p for p in kernel.modules[0].parents if p.name == kernel.release)
    modules = folder / name
    for parent, _folders, files in os.walk(found):
        target = modules / Path(parent).relative_to(found)
        target.mkdir(parents=True)
        for file in files:
            if not without or not file.startswith(f"{without}.ko"):
                (target / file).symlink_to(Path(parent, file))
    shutil.copy(kernel.image, folder / "vmlinux")
    return folder / "vmlinux"


def test_a_kernel_without_a_module_that_is_needed(project: Path, tmp_path: Path) -> None:
    kernel = kernel_tree(tmp_path, without="virtiofs")
    error = fails(project, "--kernel", str(kernel))
    assert re.search(r"the guest kernel \S+ has no module virtiofs", error)
    assert "Name another kernel" in error


def test_a_kernel_that_does_not_run(project: Path, tmp_path: Path) -> None:
    """It says that it is one and has its modules, and the code in it is overwritten."""
    kernel = kernel_tree(tmp_path)
    content = bytearray(kernel.read_bytes())
    start_of_text = 2 * MIB
    content[start_of_text : start_of_text + 4 * MIB] = b"\x0f\x0b" * 2 * MIB
    kernel.write_bytes(content)
    error = fails(project, "--kernel", str(kernel))
    assert "the guest did not come up" in error


# Guests that do not come up

PORT = """
import os
from corral_guest import boot, carrier, linux, wire
boot.mount_kernel_filesystems(); boot.move_root(); boot.load_modules()
port = carrier.serial()
channel = wire.Connection()
def tell(**params):
    channel.send_message(wire.notification("ready", params))
    while channel.pending_output:
        channel.write_to(lambda view: os.write(port, view[:32768]))
"""


async def boot_failure(folder: Path, init: str, *, seconds: float = 60) -> BootError:
    """How a start fails whose guest runs `init` in place of the supervisor."""
    workspace = folder / "workspace"
    workspace.mkdir()
    plan, parts = plan_for(workspace, {"machine.cold": True})
    with pytest.raises(BootError) as caught:
        async with start(plan, with_init(parts, init, folder), silent, boot_timeout=seconds):
            raise AssertionError("it came up")
    assert caught.value.hint
    return caught.value


async def test_a_guest_that_hangs_is_given_up_and_the_error_says_what_was_awaited(
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    error = await boot_failure(tmp_path, "import signal\nsignal.pause()", seconds=3)
    assert error.message == (
        "the guest was not up after 3 seconds; corral waited for the guest to say that it is ready."
    ), "and not that QEMU ended, which it did because of this"
    assert error.hint is not None and "--console" in error.hint
    assert time.monotonic() - began < 15


async def test_a_supervisor_that_fails_is_told_in_its_own_words(tmp_path: Path) -> None:
    init = """
from corral_guest import linux, supervisor
def load_module(path):
    raise OSError(8, "Exec format error", path)
linux.load_module = load_module
supervisor.main()
"""
    error = await boot_failure(tmp_path, init)
    assert error.message.startswith(
        "the guest did not come up: the guest's supervisor failed: OSError: [Errno 8] Exec format"
    )
    assert "/modules/00-" in error.message, "which one"


async def test_a_first_process_that_dies_is_not_called_a_lack_of_memory(tmp_path: Path) -> None:
    error = await boot_failure(tmp_path, "import os\nos.write(1, b'the end\\n')\nos._exit(3)")
    assert error.message == (
        "the guest did not come up: the guest's first process was killed or failed."
    )
    assert error.detail is not None and "the end" in error.detail
    assert "Call Trace" not in error.detail


async def test_a_guest_of_another_version_is_refused(tmp_path: Path) -> None:
    init = f"{PORT}tell(version=99)\nimport signal\nsignal.pause()"
    error = await boot_failure(tmp_path, init)
    assert "speaks another version of the protocol" in error.message


async def test_a_guest_that_sends_garbage_is_refused(tmp_path: Path) -> None:
    error = await boot_failure(tmp_path, f"{PORT}while True: os.write(port, os.urandom(4096))")
    assert error.message.startswith("the guest did not come up: the guest broke the protocol: ")


async def test_a_flood_of_valid_messages_takes_no_memory_and_no_time(tmp_path: Path) -> None:
    before = psutil.Process().memory_info().rss
    init = f"{PORT}while True: tell(version=wire.VERSION, padding='x' * 100000)"
    error = await boot_failure(tmp_path, init, seconds=15)
    assert "was not up after 15 seconds" in error.message
    assert psutil.Process().memory_info().rss - before < 32 * MIB


# Guests that end while a command runs


@pytest.mark.parametrize(
    ("code", "message", "evidence"),
    [
        (
            "open('/proc/sysrq-trigger', 'w').write('c')",
            "the guest's kernel panicked.",
            "sysrq triggered crash",
        ),
        (
            """
import ctypes, os, struct
libc = ctypes.CDLL(None)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace(16, 1, None, None); os.waitpid(1, 0x40000000)  # attach
registers = ctypes.create_string_buffer(216)
libc.ptrace(12, 1, None, registers)
struct.pack_into("qQ", registers, 15 * 8, -1, 0)  # no system call under way; rip: nowhere
libc.ptrace(13, 1, None, registers)
libc.ptrace(17, 1, None, None)  # detach
import signal; signal.pause()
""",
            "the guest's first process was killed or failed.",
            "Attempted to kill init",
        ),
        (
            "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)",
            "the guest switched itself off.",
            "reboot: Power down",
        ),
    ],
    ids=["panic", "pid 1 crashes", "power off"],
)
async def test_a_guest_that_ends_during_a_command_says_why(
    tmp_path: Path, code: str, message: str, evidence: str
) -> None:
    error = await gone(tmp_path, code)
    assert type(error) is SandboxGoneError
    assert error.message == message
    assert error.detail is not None and evidence in error.detail
    assert (tmp_path / "workspace" / "kept").read_text() == "1\n", "nothing lost"


async def test_a_guest_that_closes_the_channel_ends_the_run(tmp_path: Path) -> None:
    """Over vsock a guest can: its root takes the supervisor's socket and shuts it down."""
    code = """
import ctypes, os, socket
libc, first = ctypes.CDLL(None), os.pidfd_open(1)
for name in os.listdir("/proc/1/fd"):
    if "socket" in os.readlink(f"/proc/1/fd/{name}"):
        taken = socket.socket(fileno=libc.syscall(438, first, int(name), 0))  # pidfd_getfd
        if taken.family == socket.AF_VSOCK:
            taken.shutdown(socket.SHUT_RDWR)
        taken.detach()
import signal; signal.pause()
"""
    error = await gone(tmp_path, code, {"machine.carrier": "vsock"})
    assert isinstance(error, SandboxGoneError | ChannelError)
    assert error.message in ("the guest closed the channel.", "the guest switched itself off.")


async def gone(folder: Path, code: str, overrides: dict[str, object] | None = None) -> CorralError:
    """How a sandbox fails in which a command runs while the guest's root runs `code`."""
    workspace = folder / "workspace"
    workspace.mkdir()
    began = 0.0
    with pytest.raises(CorralError) as caught:
        async with sandbox_on(workspace, overrides) as sandbox:
            command = asyncio.ensure_future(shell(sandbox, "echo 1 > kept; exec sleep 1000"))
            kept = workspace / "kept"
            while not kept.exists() or not kept.stat().st_size:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.02)
            began = time.monotonic()
            attack = asyncio.ensure_future(guest_root(sandbox, code))
            try:
                await command
            finally:
                attack.cancel()
    assert time.monotonic() - began < 20
    assert caught.value.hint
    return caught.value


# A guest that goes on: what it can take, and what its helpers hold


@pytest.fixture(scope="module")
def left_open() -> Iterator[str]:
    """What corral's caller has left open for every careless child, as /proc shows it."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    yield leftovers.descriptors(os.getpid())[read]
    os.close(read)
    os.close(write)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(
    tmp_path_factory: pytest.TempPathFactory, left_open: str
) -> AsyncIterator[Sandbox]:
    async with sandbox_on(tmp_path_factory.mktemp("workspace")) as started:
        yield started


async def test_a_flood_of_the_console_is_bounded_and_disturbs_nobody(sandbox: Sandbox) -> None:
    before = psutil.Process().memory_info().rss
    code = """
import os, time
fd, end, data = os.open("/dev/ttyS0", os.O_WRONLY), time.monotonic() + 4, b"flood " * 512
while time.monotonic() < end: os.write(fd, data)
print("done")
"""
    flood = asyncio.ensure_future(guest_root(sandbox, code))
    for _ in range(3):
        assert (await run(sandbox, "echo", "well")).stdout == "well\n"
    assert (await flood).stdout == "done\n"
    assert psutil.Process().memory_info().rss - before < 8 * MIB + 2 * LOG_BYTES


# What each opens for itself, besides the sockets it was given: see the counts below.
OWN = {
    "qemu-system": r"anon_inode:.*|/dev/(null|kvm|urandom)|/memfd:corral-ram \(deleted\)",
    "virtiofsd": r"anon_inode:.*|/.*|pipe:.*",  # files of its export; a pipe to its child
}
# QEMU: monitor, channel, console; for each of two exports its connection and a way back for the
# server. A server: its listener, its connection, and perhaps the other end of that way.
SOCKETS = {"qemu-system": (7, 7), "virtiofsd": (0, 3)}


@pytest.mark.parametrize("name", OWN)
async def test_helpers_hold_nothing_but_what_they_were_given(
    sandbox: Sandbox, left_open: str, name: str
) -> None:
    found = leftovers.running(name)
    assert found
    for process in found:
        held = leftovers.descriptors(process.pid)
        assert held.pop(1) == held.pop(2), "its log"
        ours = {*leftovers.descriptors(os.getpid()).values()} - {os.devnull}
        # Many are of one name; the guest's memory is QEMU's and corral's.
        ours = {what for what in ours if not what.startswith(("anon_inode:", "/memfd:corral-ram"))}
        assert left_open in ours
        assert ours.isdisjoint(held.values()), held
        sockets = [what for what in held.values() if what.startswith("socket:")]
        least, most = SOCKETS[name]
        assert least <= len(sockets) <= most, held
        others = [what for what in held.values() if what not in sockets]
        assert all(re.fullmatch(OWN[name], what) for what in others), held


async def test_the_environment_of_helpers_is_built_from_nothing(sandbox: Sandbox) -> None:
    for name in (*OWN, "warden.py"):
        for process in leftovers.running(name):
            assert set(process.environ()) <= {"PATH", "LANG", "LC_CTYPE", "PWD"}
