"""What an agent reaches from its jail, and the guest's root from outside it: no network, no host.

Each attack is made as the user's own agent and as root in the jail (run.user = "root"). There is no
seccomp profile here: it would refuse most attempts, and what is below it has to hold, too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from corral.sandbox import Sandbox
from tests.security.attacks import from_guest_root, from_jail, refused
from tests.support.sandboxes import guest_root, python, sandbox_on, shell, succeeded

USERS = ["own", "root"] if os.getuid() else ["root"]


@pytest.fixture(scope="module", params=USERS)
async def sandbox(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sandbox]:
    overrides = {"run.user": "root"} if request.param == "root" else {}
    # Over vsock, so that the guest has the family that jails must not reach.
    overrides = {**overrides, "machine.carrier": "vsock", "run.seccomp": "none"}
    async with sandbox_on(tmp_path_factory.mktemp("jail"), overrides) as running:
        yield running


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What a service on the host's own loopback is to a guest."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


CONNECTS = """
def connect(family, kind, address):
    with socket.socket(family, kind) as s:
        s.settimeout(5)
        s.connect(address)
        s.send(b"x")
V4, V6 = socket.AF_INET, socket.AF_INET6
for name, family, host in (
    ("loopback", V4, "127.0.0.1"), ("slirp's host", V4, "10.0.2.2"), ("private", V4, "192.168.1.1"),
    ("metadata", V4, "169.254.169.254"), ("docker", V4, "172.17.0.1"), ("public", V4, "192.0.2.1"),
    ("broadcast", V4, "255.255.255.255"), ("loopback 6", V6, "::1"), ("link-local", V6, "fe80::1"),
    ("public 6", V6, "2001:db8::1"), ("mapped", V6, "::ffff:127.0.0.1"),
):
    attempt("tcp " + name, connect, family, socket.SOCK_STREAM, (host, PORT))
    if "loopback" not in name and name != "mapped":
        attempt("udp " + name, connect, family, socket.SOCK_DGRAM, (host, PORT))
attempt("abstract socket", connect, socket.AF_UNIX, socket.SOCK_STREAM, "\\0/tmp/.X11-unix/X0")
"""
# Nobody listens on the guest's own loopback; there is no way to anywhere else.
UNREACHABLE = ("ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "EACCES", "EINVAL")


async def test_the_only_network_device_is_loopback(sandbox: Sandbox) -> None:
    devices = (
        "print(sorted(line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line))"
    )
    assert succeeded(await python(sandbox, devices)) == "['lo']\n"
    assert succeeded(await guest_root(sandbox, devices)) == "['lo']\n"
    text = "import os; print(os.listdir('/sys/class/net'), os.listdir('/sys/block'))"
    assert succeeded(await guest_root(sandbox, text)) == "['lo'] []\n"


async def test_no_address_can_be_reached(sandbox: Sandbox, listener: socket.socket) -> None:
    code = f"PORT = {listener.getsockname()[1]}\n" + CONNECTS
    for outcome in (await from_jail(sandbox, code), await from_guest_root(sandbox, code)):
        assert len(outcome) == 20
        refused(outcome, *UNREACHABLE)
        assert outcome["tcp public"] == outcome["udp private"] == "ENETUNREACH"
    with pytest.raises(BlockingIOError):
        listener.accept()
    with socket.create_connection(listener.getsockname()):
        pass  # it was there to be reached


async def test_a_jail_has_no_vsock_no_io_uring_and_no_raw_way_out(sandbox: Sandbox) -> None:
    outcome = await from_jail(
        sandbox,
        """
attempt("vsock stream", socket.socket, 40, socket.SOCK_STREAM)
attempt("vsock datagram", socket.socket, 40, socket.SOCK_DGRAM)
attempt("vsock seqpacket", socket.socket, 40, socket.SOCK_SEQPACKET)
attempt("vsock pair", lambda: socket.socketpair(40, socket.SOCK_STREAM))
attempt("vsock, high bits set", syscall, 41, 40 | 1 << 32, 1, 0)
attempt("vsock device", os.open, "/dev/vsock", os.O_RDWR)
attempt("io_uring", syscall, 425, 8, bytes(120))
""",
    )
    assert outcome.pop("io_uring") == "ENOSYS"
    assert outcome.pop("vsock device") == "ENOENT"
    assert outcome.pop("vsock pair") in ("EAFNOSUPPORT", "ENOTSUP")
    refused(outcome, "EAFNOSUPPORT")
    # Not for want of the family: outside the jail it is there, and leads nowhere unproven.
    outside = await from_guest_root(
        sandbox,
        """
s = socket.socket(40, socket.SOCK_STREAM)
s.settimeout(5)
for cid in (0, 1, 2, 3):
    attempt(f"cid {cid}", s.connect, (cid, 1024))
""",
    )
    assert "done" not in outside.values(), outside


FOREIGN_CALL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def child(how):
    pid = os.fork()
    if pid == 0:
        if how == "x32":
            os._exit(7 if libc.syscall(ctypes.c_long(0x40000000 | 39)) > 0 else 8)
        libc.mmap.restype = ctypes.c_void_p
        place = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
        # mov eax, 20 (getpid of the 32-bit table); int 0x80; ret
        ctypes.memmove(place, bytes.fromhex("b814000000cd80c3"), 8)
        os._exit(7 if ctypes.CFUNCTYPE(ctypes.c_int)(place)() > 0 else 8)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(child("32-bit"), child("x32"))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only there are other call tables")
async def test_other_system_call_tables_end_a_jailed_process(sandbox: Sandbox) -> None:
    assert succeeded(await python(sandbox, FOREIGN_CALL)) == "-31 -31\n"  # SIGSYS
    thirty_two, _x32 = succeeded(await guest_root(sandbox, FOREIGN_CALL)).split()
    assert thirty_two == "7", "the attack works where there is no filter"


INJECT = """
def wait(pid):
    check(libc.waitpid(pid, None, 0x40000000))   # __WALL

def registers(pid):
    place = (ctypes.c_ulonglong * 27)()
    check(libc.ptrace(12, pid, None, place))
    return place

def inject(pid, *call):
    "Make a stopped process that waits in a system call make another one, x86_64."
    check(libc.ptrace(16, pid, None, None))
    wait(pid)
    try:
        saved, place = registers(pid), registers(pid)
        place[15] = (1 << 64) - 1                       # orig_rax: nothing to restart
        place[10], place[14], place[13], place[12] = call   # rax, rdi, rsi, rdx
        place[16] -= 2                                  # rip, back to `syscall`
        check(libc.ptrace(13, pid, None, place))
        check(libc.ptrace(9, pid, None, None))          # one step
        wait(pid)
        result = ctypes.c_longlong(registers(pid)[10]).value
        check(libc.ptrace(13, pid, None, saved))
        if result < 0:
            raise OSError(-result, os.strerror(-result))
    finally:
        libc.ptrace(17, pid, None, None)
"""


async def test_every_process_of_a_jail_is_filtered(sandbox: Sandbox) -> None:
    modes = succeeded(await shell(sandbox, "grep -h '^Seccomp:' /proc/[0-9]*/status"))
    assert len(modes.splitlines()) >= 3
    assert set(modes.splitlines()) == {"Seccomp:\t2"}
    if os.uname().machine != "x86_64":
        return
    outcome = await from_jail(
        sandbox,
        INJECT
        + """
attempt("family", inject, 1, 41, 2, 1, 0)
attempt("vsock", inject, 1, 41, 40, 1, 0)
""",
    )
    # The first process does nothing and belongs to the agent, so it may be traced; for nothing.
    assert outcome == {"family": "EPERM", "vsock": "EPERM"}


async def test_the_process_that_starts_commands_is_out_of_reach(sandbox: Sandbox) -> None:
    """It is forked from the supervisor, whose memory it has: nobody in a jail may look in."""
    outcome = await from_jail(
        sandbox,
        """
pid = os.getppid()
while open(f"/proc/{pid}/stat").read().split(") ")[1].split()[1] not in ("0", "1"):
    pid = int(open(f"/proc/{pid}/stat").read().split(") ")[1].split()[1])
attempt("ptrace", lambda: check(libc.ptrace(16, pid, None, None)))
attempt("seize", lambda: check(libc.ptrace(0x4206, pid, None, None)))
for name in ("mem", "environ", "maps", "fd", "root", "cwd", "auxv", "syscall"):
    def look():
        path = f"/proc/{pid}/{name}"
        os.listdir(path) if name in ("fd", "root", "cwd") else open(path, "rb").read(1)
    attempt(name, look)
buffer = ctypes.create_string_buffer(64)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
remote = (ctypes.c_void_p * 2)(0x400000, 64)
attempt("process_vm_readv",
        lambda: check(libc.process_vm_readv(pid, vector, 1, remote, 1, 0)))
def steal():
    syscall(438, os.pidfd_open(pid), 3, 0)
attempt("pidfd_getfd", steal)
""",
    )
    assert len(outcome) == 12
    refused(outcome, "EPERM", "EACCES")


async def test_a_jail_sees_and_signals_no_process_but_its_own(sandbox: Sandbox) -> None:
    outcome = await from_jail(
        sandbox,
        """
import signal
names = {open(f"/proc/{p}/comm").read().strip() for p in os.listdir("/proc") if p.isdigit()}
outcome["names"] = ",".join(sorted(names))
attempt("the first process", os.kill, 1, signal.SIGKILL)
attempt("the first process again", os.kill, 1, 0)
root = os.listdir("/proc/1/root")
outcome["root"] = "own" if not {"agents", "toolbox"} & set(root) else "the guest's"
for path in ("/proc/1/root/agents", "/agents", "/toolbox", "/corral", "/proc/1/cwd/agents"):
    attempt(path, os.listdir, path)
""",
    )
    assert set(outcome.pop("names").split(",")) <= {"pause", "python3", "corral", "sh"}
    assert outcome.pop("root") == "own"
    # Sent and without effect: a namespace's first process is immune (pid_namespaces(7)).
    assert outcome.pop("the first process") == "done"
    assert outcome.pop("the first process again") == "done"
    refused(outcome, "ENOENT", "EACCES")
    assert succeeded(await shell(sandbox, "echo alive")) == "alive\n"


ESCAPES = """
def into_a_namespace():
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(0x10000000 | 0x20000))
    with open("/proc/self/setgroups", "w") as file:
        file.write("deny")
    for name, own in (("uid_map", uid), ("gid_map", gid)):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(f"0 {own} 1")

def attacks():
    os.makedirs("/tmp/m", exist_ok=True)
    for tag in ("toolbox", "agent1", "agent2"):
        attempt("virtiofs " + tag, mount, tag, "/tmp/m", "virtiofs")
        attempt("9p " + tag, mount, tag, "/tmp/m", "9p", 0, "trans=virtio")
    attempt("device files", mount, "dev", "/tmp/m", "devtmpfs")
    attempt("kernel debugging", mount, "debug", "/tmp/m", "debugfs")
    attempt("initial root", mount, "rootfs", "/tmp/m", "rootfs")
    attempt("firmware", mount, "sys", "/tmp/m", "sysfs")
    attempt("secret", os.open, "/tmp/m/firmware/qemu_fw_cfg/raw", os.O_RDONLY)
    attempt("secret in /sys", os.stat, "/sys/firmware")
    attempt("char device", os.mknod, "/tmp/mem", 0o020666, os.makedev(1, 1))
    attempt("port device", os.mknod, "/tmp/port", 0o020666, os.makedev(247, 1))
    attempt("load a module", syscall, 175, b"", 0, b"")
    attempt("set the clock", syscall, 227, 0, struct.pack("qq", 1, 0))
    attempt("set the host name of all", lambda: open("/proc/1/root/proc/sys/kernel/hostname2", "w"))
    for path, text in (("kernel/core_pattern", "|/tmp/x"), ("kernel/modprobe", "/tmp/x"),
                       ("vm/overcommit_memory", "1"), ("kernel/sysrq", "1"),
                       ("fs/protected_symlinks", "0")):
        def put():
            with open("/proc/sys/" + path, "w") as file:
                file.write(text)
        attempt(path, put)
    def trigger():
        with open("/proc/sysrq-trigger", "w") as file:
            file.write("c")
    attempt("sysrq", trigger)
    attempt("kernel memory", os.open, "/proc/kcore", os.O_RDONLY)
    attempt("kernel log", os.open, "/proc/kmsg", os.O_RDONLY)
    handle = ctypes.create_string_buffer(struct.pack("Ii", 8, 1) + bytes(16))
    folder = os.open("/", os.O_RDONLY)
    attempt("handle", lambda: check(libc.open_by_handle_at(folder, handle, 0)))
"""
REFUSALS = ("EPERM", "EACCES", "ENODEV", "ENOENT", "EROFS", "ENOSYS", "EINVAL", "ENOTDIR")


@pytest.mark.parametrize("where", ["jail", "a user namespace of its own"])
async def test_capabilities_in_a_jail_lead_nowhere(sandbox: Sandbox, where: str) -> None:
    step = "" if where == "jail" else "into_a_namespace()\n"
    outcome = await from_jail(sandbox, ESCAPES + step + "attacks()\n")
    assert len(outcome) == 26
    # Root of a network namespace may see the guest's /sys through it. What counts there is root's.
    assert outcome.pop("firmware") in ("done", *REFUSALS)
    refused(outcome, *REFUSALS)


async def test_a_jail_cannot_change_its_own_limits(sandbox: Sandbox) -> None:
    outcome = await from_jail(
        sandbox,
        """
os.makedirs("/tmp/cg", exist_ok=True)
def put(name, text):
    with open("/tmp/cg/" + name, "w") as file:
        file.write(text)
attempt("mount", mount, "cgroup2", "/tmp/cg", "cgroup2")
if outcome["mount"] == "done":   # root of the jail may see its own part of the tree
    outcome.clear()
    for name, text in (("cgroup.kill", "1"), ("memory.max", "max"), ("pids.max", "max"),
                       ("cgroup.procs", "1"), ("cgroup.subtree_control", "+pids")):
        attempt(name, put, name, text)
    attempt("group", os.mkdir, "/tmp/cg/more")
""",
    )
    refused(outcome, "EPERM", "EACCES", "ENOENT", "EROFS", "EBUSY")


async def test_a_terminal_cannot_be_typed_into_from_the_jail(sandbox: Sandbox) -> None:
    """TIOCSTI and TIOCLINUX work on a terminal of the jail's own at most."""
    execution = await sandbox.exec(
        [
            "python3",
            "-c",
            "import fcntl, os\n"
            "print(os.ttyname(0), os.stat('/dev/console').st_rdev if os.path.exists('/dev/console')"
            " else 'none')\n"
            "for d in ('/dev/tty0', '/dev/tty1', '/dev/ttyS0', '/dev/hvc0', '/dev/vport1p1'):\n"
            "    print(os.path.exists(d))\n",
        ],
        terminal=(24, 80),
    )
    text = b""
    while piece := await execution.stdout.read():
        text += piece
    assert await execution.wait() == 0, text
    first, *exist = text.decode().split("\r\n")[:-1]
    assert first.startswith("/dev/pts/")
    assert exist == ["False"] * 5


async def test_the_guest_root_shell_exists(sandbox: Sandbox) -> None:
    """The control of all the above: agent 0 is root, with every capability, in no namespace."""
    text = "print(open('/proc/self/status').read()); import os; os.listdir('/agents/1/export')"
    status = succeeded(await guest_root(sandbox, text))
    assert "Uid:\t0\t0\t0\t0" in status and "Seccomp:\t0" in status
    assert int(status.split("CapEff:\t")[1].split()[0], 16) >= 0x1FFFFFFFFF


async def test_powering_off_ends_a_jail_and_not_the_machine(sandbox: Sandbox) -> None:
    """The last test here. Root of a PID namespace may end that namespace (reboot(2)), no more."""
    code = "import ctypes; print(ctypes.CDLL(None).reboot(0x4321fedc))"
    result = await python(sandbox, code)
    assert result.stdout == "-1\n" or result.status == 137
    assert succeeded(await guest_root(sandbox, "print('alive')")) == "alive\n"
