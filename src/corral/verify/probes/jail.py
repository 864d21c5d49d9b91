"""The jail in the guest: what an agent could try there to become the guest's root."""

from __future__ import annotations

import platform

from ..judging import breach_if, refused, runnable, tried_if
from ..model import NotTried
from ..registry import Registry
from ..scenes import Inside

JAIL = Registry("jail")
probe = JAIL.probe

REFUSALS = ("EPERM", "EACCES", "ENODEV", "ENOENT", "EROFS", "ENOSYS", "EINVAL", "ENOTDIR", "ESRCH")

# A user namespace of its own, with all capabilities there.
OWN_NAMESPACE = """
def own_namespace():
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(0x10000000 | 0x20000))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
"""


async def in_both(scene: Inside, code: str, at_least: int) -> str:
    """The attack from the jail, and with all capabilities of a user namespace there."""
    plain = await scene.jail(f"{code}\nattack()")
    seen = refused(plain, *REFUSALS, at_least=at_least)
    inner = await scene.jail(
        f"{OWN_NAMESPACE}{code}\n"
        "try:\n    own_namespace()\n"
        "except OSError as error:\n    outcome['namespace'] = errno.errorcode[error.errno]\n"
        "else:\n    attack()"
    )
    if "namespace" in inner:  # they cannot be made here at all
        return f"{seen}; user namespaces cannot be made there"
    return f"{seen}; as root of a namespace: {refused(inner, *REFUSALS, at_least=at_least)}"


@probe(
    "guest-root-is-root",
    "jail",
    "The control: outside the jail root has every capability and no filter, so attacks mean it.",
    scene="any",
)
async def guest_root(scene: Inside) -> str:
    found = await scene.root("outcome['status'] = open('/proc/self/status').read()")
    runnable(found)
    status = dict(line.split(":\t", 1) for line in found["status"].splitlines() if ":\t" in line)
    full = int(status["CapEff"], 16) >= 0x1FFFFFFFFF and status["Seccomp"] == "0"
    tried_if(full and status["Uid"].split()[0] == "0", "it has not")
    return "uid 0, every capability, no filter"


@probe(
    "filter-of-every-process",
    "filter",
    "A process of the jail runs without the filter, or may gain privileges.",
    scene="any",
)
async def filtered(scene: Inside) -> str:
    found = await scene.jail("""
for pid in os.listdir("/proc"):
    if pid.isdigit():
        with open(f"/proc/{pid}/status") as file:
            lines = [l.split() for l in file if l.startswith(("Seccomp:", "NoNewPrivs:"))]
        outcome[pid] = " ".join(f"{name}{value}" for name, value in sorted(lines))
""")
    runnable(found)
    wrong = {pid: how for pid, how in found.items() if how != "NoNewPrivs:1 Seccomp:2"}
    breach_if(wrong, f"not filtered: {wrong}")
    return f"{len(found)} processes, all filtered and without new privileges"


@probe(
    "vsock-family",
    "filter",
    "The jail makes AF_VSOCK sockets, by every kind and by high bits of the number.",
    scene="any",
)
async def vsock_family(scene: Inside) -> str:
    outcome = await scene.jail("""
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    attempt(f"kind {kind}", socket.socket, 40, kind)
attempt("pair", lambda: socket.socketpair(40, socket.SOCK_STREAM))
attempt("high bits", syscall, 41 if os.uname().machine == "x86_64" else 198, 40 | 1 << 32, 1, 0)
attempt("device", os.open, "/dev/vsock", os.O_RDWR)
""")
    return refused(outcome, "EAFNOSUPPORT", "ENOENT", "EOPNOTSUPP", "ENOTSUP", at_least=6)


@probe(
    "io-uring",
    "filter",
    "The jail sets up io_uring, whose operations no filter sees.",
    scene="any",
)
async def io_uring(scene: Inside) -> str:
    outcome = await scene.jail("""
for entries in (1, 8, 4096):
    attempt(f"{entries} entries", syscall, 425, entries, bytes(120))
""")
    return refused(outcome, "ENOSYS", "EPERM", at_least=3)


# Numbers of x86_64 and aarch64; arguments with which none does harm where it is not refused.
REFUSED_CALLS = """
column = 0 if os.uname().machine == "x86_64" else 1
for name, numbers, arguments in (
    ("mount", (165, 40), (-1, -1, -1, 0, 0)), ("umount2", (166, 39), (-1, 0)),
    ("pivot_root", (155, 41), (-1, -1)), ("fsopen", (430, 430), (-1, 0)),
    ("open_tree", (428, 428), (-1, -1, 0)), ("setns", (308, 268), (-1, 0)),
    ("unshare", (272, 97), (0x10000000,)), ("bpf", (321, 280), (-1, -1, 0)),
    ("perf_event_open", (298, 241), (-1, 0, 0, 0, 0)), ("userfaultfd", (323, 282), (-1,)),
    ("keyctl", (250, 219), (-1, 0, 0, 0, 0)), ("add_key", (248, 217), (-1, -1, -1, 0, 0)),
    ("open_by_handle_at", (304, 265), (-1, -1, 0)), ("kcmp", (312, 272), (-1, -1, 99, 0, 0)),
    ("process_vm_readv", (310, 270), (-1, -1, 0, -1, 0, 0)), ("attach", (101, 117), (16, -1, 0, 0)),
    ("seize", (101, 117), (0x4206, -1, 0, 0)), ("init_module", (175, 105), (-1, 0, -1)),
    ("kexec_load", (246, 104), (0, 99, -1, 0)), ("pidfd_getfd", (438, 438), (-1, 0, 0)),
):
    attempt(name, syscall, numbers[column], *arguments)
"""


@probe(
    "refused-calls",
    "filter",
    "Calls that the default profile refuses are made: mounts, namespaces, tracing, keys, bpf.",
    scene="any",
)
async def refused_calls(scene: Inside) -> str:
    run = scene.spec.run
    tried_if((run.seccomp, run.seccomp_mode) == ("default", "errno"), "it has another profile")
    found, control = await scene.jail(REFUSED_CALLS), await scene.root(REFUSED_CALLS)
    runnable(control)
    others = [name for name, how in control.items() if how != "EPERM"]
    tried_if(len(others) >= 15, f"the guest's root gets EPERM for most, too: {dict(control)}")
    return refused(found, "EPERM", at_least=20)


FOREIGN = """
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
for how in ("32-bit", "x32"):
    outcome[how] = str(child(how))
"""


@probe(
    "foreign-system-calls",
    "filter",
    "System calls of the 32-bit and x32 tables, whose numbers mean something else, are made.",
    scene="any",
)
async def foreign_calls(scene: Inside) -> str:
    if platform.machine() != "x86_64":
        raise NotTried("only x86_64 has other tables")
    found, control = await scene.jail(FOREIGN), await scene.root(FOREIGN)
    runnable(found)
    breach_if("7" in found.values(), f"they work in the jail: {dict(found)}")
    tried_if(control.get("32-bit") == "7", "they do not work outside the jail either")
    tried_if(set(found.values()) == {"-31"}, f"they ended otherwise: {dict(found)}")  # SIGSYS
    return "each ends its process; outside the jail they work"


@probe(
    "starter-of-commands",
    "jail",
    "What starts commands, which has the supervisor's memory, is traced, read and signalled.",
    scene="any",
    cites=("CVE-2019-5736",),
)
async def starter(scene: Inside) -> str:
    outcome = await scene.jail("""
pid = os.getppid()
while open(f"/proc/{pid}/stat").read().split(") ")[1].split()[1] not in ("0", "1"):
    pid = int(open(f"/proc/{pid}/stat").read().split(") ")[1].split()[1])
attempt("ptrace", lambda: check(libc.ptrace(16, pid, None, None)))
attempt("seize", lambda: check(libc.ptrace(0x4206, pid, None, None)))
for name in ("mem", "environ", "maps", "fd", "root", "cwd", "auxv"):
    def look():
        path = f"/proc/{pid}/{name}"
        os.listdir(path) if name in ("fd", "root", "cwd") else open(path, "rb").read(1)
    attempt(name, look)
attempt("its program", lambda: os.close(os.open(f"/proc/{pid}/exe", os.O_WRONLY)))
buffer = ctypes.create_string_buffer(64)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
remote = (ctypes.c_void_p * 2)(0x400000, 64)
attempt("its memory", lambda: check(libc.process_vm_readv(pid, vector, 1, remote, 1, 0)))
attempt("its descriptors", lambda: syscall(438, os.pidfd_open(pid), 3, 0))
""")
    return refused(outcome, "EPERM", "EACCES", "ETXTBSY", at_least=12)


@probe(
    "leaked-descriptors",
    "jail",
    "A descriptor or working folder that was left open leads out of the jail.",
    scene="any",
    cites=("CVE-2024-21626",),
)
async def descriptors(scene: Inside) -> str:
    execution = await scene.jail("""
inner = ("pipe:", "socket:", "/dev/null", "/dev/pts/", "anon_inode:")
for pid in ("self", "1"):
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        continue
    for name in names:
        try:
            leads = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if not leads.startswith(inner) and not leads.startswith("/proc/"):
            outcome[f"{pid}/{name}"] = leads
    outcome[f"{pid}/cwd"] = os.readlink(f"/proc/{pid}/cwd")
def climb(number):
    os.stat(f"/proc/self/fd/{number}/../../../toolbox")
for number in range(3, 64):
    try:
        climb(number)
        outcome[f"climb {number}"] = "done"
    except OSError:
        pass
""")
    runnable(execution)
    folders = {name: to for name, to in execution.items() if not name.endswith("/cwd")}
    breach_if(folders, f"open in the jail: {folders}")
    return f"none; working folders: {', '.join(sorted(set(execution.values())))}"


@probe(
    "guests-folders",
    "jail",
    "The folders and processes of the guest and of other agents are looked for.",
    scene="any",
)
async def folders(scene: Inside) -> str:
    outcome = await scene.jail("""
for path in ("/agents", "/toolbox", "/corral", "/proc/1/root/agents", "/proc/1/cwd/agents"):
    attempt(path, os.listdir, path)
names = {open(f"/proc/{p}/comm").read().strip() for p in os.listdir("/proc") if p.isdigit()}
for name in names & {"kthreadd", "supervisor", "virtiofsd"}:
    outcome[name] = "done"
""")
    return refused(outcome, "ENOENT", "EACCES", at_least=5)


@probe(
    "terminal-injection",
    "jail",
    "Characters are typed into a terminal outside the jail (TIOCSTI, TIOCLINUX).",
    scene="any",
    cites=("CVE-2017-5226",),
)
async def terminal(scene: Inside) -> str:
    outcome = await scene.jail("""
import fcntl
for path in ("/dev/tty", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/ttyS0", "/dev/hvc0"):
    def type_into():
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(fd, 0x5412, b"x")   # TIOCSTI
    attempt(path, type_into)
for number in (0, 1, 2):
    attempt(f"descriptor {number}", fcntl.ioctl, number, 0x5412, b"x")
""")
    return refused(outcome, "ENXIO", "ENOENT", "ENOTTY", "EACCES", "EPERM", "EIO", at_least=9)


@probe(
    "abstract-sockets",
    "jail",
    "Abstract sockets of the guest, which have no file, are connected to from the jail.",
    scene="any",
    cites=("CVE-2020-15257",),
)
async def abstract_sockets(scene: Inside) -> str:
    name = "corral-verify-abstract"
    listening = await scene.root(f"""
server = socket.socket(socket.AF_UNIX)
server.bind("\\0{name}")
server.listen()
with socket.socket(socket.AF_UNIX) as client:
    attempt("control", client.connect, "\\0{name}")
pid = os.fork()
if pid == 0:   # goes on listening
    os.setsid()
    signal.alarm(20)
    signal.pause()
""")
    tried_if(listening.get("control") == "done", "it cannot be connected to in the guest either")
    outcome = await scene.jail(f"""
def connect(name):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(name)
attempt("the guest's", connect, "\\0{name}")
attempt("X11", connect, "\\0/tmp/.X11-unix/X0")
""")
    return refused(outcome, "ECONNREFUSED", "ENOENT", "EPERM", at_least=2)


@probe(
    "power-off",
    "jail",
    "The jail powers the machine off.",
    scene="any",
    last=True,
)
async def power_off(scene: Inside) -> str:
    # In a child of a PID namespace of its own root could end that namespace (reboot(2)), no more.
    try:
        outcome = await scene.jail("attempt('power off', lambda: check(libc.reboot(0x4321fedc)))")
    except NotTried:
        how = "the jail has ended"
    else:
        how = ", ".join(outcome.values())
    alive = await scene.root("outcome['alive'] = 'yes'")
    runnable(alive)
    breach_if(alive.get("alive") != "yes", "the machine is off")
    return f"the machine goes on ({how})"
