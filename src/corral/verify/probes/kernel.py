"""The jail in the guest: what its kernel offers, mounts, settings, modules, handles of files."""

from __future__ import annotations

from ..judging import refused
from ..scenes import Inside
from .jail import JAIL, in_both

probe = JAIL.probe


@probe(
    "mounting-exports",
    "jail",
    "Exports, kernel file systems and the first root are mounted in the jail.",
    scene="any",
)
async def mounting(scene: Inside) -> str:
    return await in_both(scene, MOUNTS, 10)


MOUNTS = """
def attack():
    os.makedirs("/tmp/m", exist_ok=True)
    for tag in ("toolbox", "agent1", "agent2"):
        attempt("virtiofs " + tag, mount, tag, "/tmp/m", "virtiofs")
        attempt("9p " + tag, mount, tag, "/tmp/m", "9p", 0, "trans=virtio")
    for kind in ("devtmpfs", "debugfs", "rootfs", "tracefs"):
        attempt(kind, mount, kind, "/tmp/m", kind)
"""


@probe(
    "cgroup-release-agent",
    "jail",
    "A control group with a release agent is mounted, to have the kernel start a program.",
    scene="any",
    cites=("CVE-2022-0492",),
)
async def release_agent(scene: Inside) -> str:
    return await in_both(
        scene,
        """
def attack():
    os.makedirs("/tmp/cg", exist_ok=True)
    for options in ("memory", "rdma", "pids", "none,name=x"):
        attempt("cgroup " + options, mount, "cgroup", "/tmp/cg", "cgroup", 0, options)
    attempt("release agent", os.open, "/tmp/cg/release_agent", os.O_WRONLY)
""",
        5,
    )


@probe(
    "own-limits",
    "bounded",
    "The jail changes the limits of its own control group.",
    scene="any",
)
async def own_limits(scene: Inside) -> str:
    outcome = await scene.jail("""
os.makedirs("/tmp/cg2", exist_ok=True)
def put(name, text):
    fd = os.open("/tmp/cg2/" + name, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
attempt("mount", mount, "cgroup2", "/tmp/cg2", "cgroup2")
if outcome["mount"] == "done":   # root of the jail may see its own part of the tree
    outcome.clear()
    for name, text in (("cgroup.kill", "1"), ("memory.max", "max"), ("pids.max", "max"),
                       ("cgroup.procs", "1"), ("cgroup.subtree_control", "+pids")):
        attempt(name, put, name, text)
attempt("there already", os.listdir, "/sys/fs/cgroup")
""")
    refusals = ("EPERM", "EACCES", "ENOENT", "EROFS", "EBUSY", "ENODEV", "EINVAL")
    return refused(outcome, *refusals, at_least=2)


@probe(
    "kernel-settings",
    "jail",
    "Settings of the guest's kernel that start programs or weaken it are written.",
    scene="any",
)
async def settings(scene: Inside) -> str:
    return await in_both(
        scene,
        """
def put(path, text):
    with open(path, "w") as file:
        file.write(text)
def attack():
    for path, text in (("kernel/core_pattern", "|/tmp/x"), ("kernel/modprobe", "/tmp/x"),
                       ("vm/overcommit_memory", "1"), ("fs/protected_symlinks", "0")):
        attempt(path, put, "/proc/sys/" + path, text)
    attempt("sysrq", put, "/proc/sysrq-trigger", "h")
    attempt("uevent helper", put, "/sys/kernel/uevent_helper", "/tmp/x")
""",
        6,
    )


@probe(
    "kernel-memory-and-modules",
    "jail",
    "Modules are loaded, kernel memory, ports, logs and another kernel are asked for.",
    scene="any",
)
async def modules(scene: Inside) -> str:
    return await in_both(
        scene,
        """
def attack():
    for path in ("/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/port", "/dev/kmsg"):
        attempt(path, os.open, path, os.O_RDONLY)
    intel = os.uname().machine == "x86_64"
    attempt("module", syscall, 175 if intel else 105, b"", 0, b"")
    attempt("module of a file", syscall, 313 if intel else 273, 0, b"", 0)
    attempt("kexec", syscall, 246 if intel else 104, 0, 0, None, 0)
    attempt("clock", syscall, 227 if intel else 112, 0, struct.pack("qq", 1, 0))
    attempt("memory device", os.mknod, "/tmp/mem", 0o020666, os.makedev(1, 1))
    attempt("port of the channel", os.mknod, "/tmp/port", 0o020666, os.makedev(247, 1))
""",
        11,
    )


@probe(
    "open-by-handle",
    "jail",
    "The folder above the jail is opened by a file handle, by guessing inode numbers.",
    scene="any",
)
async def open_by_handle(scene: Inside) -> str:
    return await in_both(
        scene,
        """
def attack():
    folder = os.open("/", os.O_RDONLY)
    for inode in (1, 2, 3):
        handle = ctypes.create_string_buffer(struct.pack("Ii", 8, 1) + struct.pack("II", inode, 0))
        attempt(f"inode {inode}", lambda: check(libc.open_by_handle_at(folder, handle, 0)))
""",
        3,
    )
