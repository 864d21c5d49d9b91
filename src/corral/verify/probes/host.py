"""The host's side: helper processes, the run folder, sockets, other local users."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from corral_guest import wire

from ...errors import ProcessError
from ...keeper.door import SOCKET
from ...keeper.keeper import Keeper
from ...keeper.messages import Hello
from ...keeper.server import Server
from ..judging import breach_if, tried_if
from ..model import NotTried
from ..processes import Helper, descendants, helpers, start_time
from ..registry import Registry
from ..scenes import CANARY, Ground, Inside

HOST = Registry("host")
probe = HOST.probe

NAMESPACES = ("user", "pid", "net", "ipc", "mnt", "uts", "cgroup")
NOBODY = 65534
# What a helper may have in its environment: of bubblewrap and the loader.
VARIABLES = {"PATH", "LANG", "PWD", "LD_LIBRARY_PATH"}


def each(scene: Inside) -> Iterator[Helper]:
    """QEMU and the file servers. Raises NotTried when none is found."""
    found = helpers(scene.sandbox.machine.pid)
    tried_if(found, "no helper process could be found")
    yield from found


@probe(
    "helper-namespaces",
    "confined",
    "A helper shares a namespace with the host: its network, processes, files or users.",
    scene="any",
)
async def namespaces(scene: Inside) -> str:
    count = 0
    for helper in each(scene):
        ours = {name: Path(f"/proc/self/ns/{name}").readlink() for name in NAMESPACES}
        shared = [name for name in NAMESPACES if helper.namespace(name) == ours[name]]
        if not helper.serves_network:
            breach_if(shared, f"{helper.name} shares: {', '.join(shared)}")
        else:
            breach_if(set(shared) - {"net"}, f"{helper.name} shares: {', '.join(shared)}")
        count += 1
    return f"{count} processes, {len(NAMESPACES)} namespaces each"


@probe(
    "helper-network",
    "confined",
    "A helper has a network device, or listens on a network.",
    scene="any",
)
async def network(scene: Inside) -> str:
    count = 0
    for helper in each(scene):
        if helper.serves_network:
            continue
        devices = helper.read("net/dev").splitlines()[2:]
        names = {line.split(":")[0].strip() for line in devices}
        breach_if(names != {"lo"}, f"{helper.name} has {', '.join(sorted(names))}")
        for table in ("tcp", "tcp6", "udp", "udp6", "raw", "packet"):
            rows = helper.read(f"net/{table}").splitlines()[1:]
            breach_if(rows, f"{helper.name} has sockets ({table})")
        count += 1
    return f"{count} processes with loopback only, and no socket there"


@probe(
    "helper-filter",
    "confined",
    "A helper has no system call filter, may gain privileges, or has capabilities.",
    scene="any",
    cites=("CVE-2015-3456",),
)
async def filtered(scene: Inside) -> str:
    count = 0
    for helper in each(scene):
        status = helper.status()
        if not helper.serves_network:
            breach_if(status["Seccomp"] != "2", f"{helper.name} is not filtered")
        breach_if(status["NoNewPrivs"] != "1", f"{helper.name} may gain privileges")
        if helper.name == "QEMU":
            held = int(status["CapEff"], 16) | int(status["CapPrm"], 16)
            breach_if(held, f"{helper.name} has capabilities: {held:x}")
        count += 1
    return f"{count} processes; QEMU without a capability"


@probe(
    "helper-ids",
    "confined",
    "A helper's user namespace has more ids of the host than the user's own.",
    scene="any",
)
async def ids(scene: Inside) -> str:
    count = 0
    for helper in each(scene):
        for kind in ("uid_map", "gid_map"):
            rows = [line.split() for line in helper.read(kind).splitlines()]
            breach_if([row for row in rows if row[2] != "1"], f"{helper.name}: {kind} {rows}")
        count += 1
    return f"{count} processes with one id each"


@probe(
    "helper-environment",
    "environment",
    "A helper has variables of the user, a secret among them.",
    scene="any",
)
async def environment(scene: Inside) -> str:
    count = 0
    for helper in each(scene):
        variables = helper.environment()
        breach_if(CANARY in variables, f"{helper.name} has the user's variables")
        breach_if(scene.canary in variables.values(), f"{helper.name} has the user's values")
        strange = variables.keys() - VARIABLES
        breach_if(strange, f"{helper.name} has {', '.join(sorted(strange))}")
        count += 1
    tried_if(os.environ.get(CANARY) == scene.canary, "the host has no such variable either")
    return f"{count} processes with {', '.join(sorted(VARIABLES))} at most"


@probe(
    "helper-files",
    "confined",
    "A helper sees files of the host that it has no use for: /etc, the home, logs.",
    scene="any",
)
async def files(scene: Inside) -> str:
    count, home = 0, scene.facts.user.home.lstrip("/")
    shared = [str(scene.workspace), *(share.source for share in scene.spec.shares)]
    paths = ["etc/shadow", "etc/sudoers", "var/log", "boot", "root/.ssh", "run/user"]
    paths += [f"{home}/{name}" for name in (".ssh", ".profile", ".bash_history", ".aws")]
    paths = [p for p in paths if not any(f"/{p}".startswith(folder) for folder in shared)]
    tried_if([p for p in paths if os.path.exists(f"/{p}")], "this host has none of them")
    for helper in each(scene):
        root = helper.path / "root"
        tried_if(root.is_dir(), f"the root of {helper.name} cannot be looked into")
        seen = [path for path in paths if os.path.exists(root / path)]
        breach_if(seen, f"{helper.name} sees /{', /'.join(seen)}")
        count += 1
    return f"{len(paths)} paths in {count} processes"


@probe(
    "helper-mounts",
    "confined",
    "A helper has something of the host writable that is not shared so, or gets later mounts.",
    scene="any",
)
async def mounts(scene: Inside) -> str:
    writable = [str(scene.workspace), "/dev/"]
    writable += [share.source for share in scene.spec.shares if share.writable]
    writable += [share.target for share in scene.spec.shares if share.writable]
    count = 0
    for helper in each(scene):
        for line in helper.read("mountinfo").splitlines():
            words, _, kind = line.partition(" - ")
            fields = words.split()
            breach_if("shared:" in words, f"{helper.name} shares its mounts with the host")
            breach_if("master:" in words and helper.name != "QEMU", f"{helper.name} gets mounts")
            mine = kind.split()[0] in ("proc", "tmpfs", "devpts", "mqueue")
            if fields[5].split(",")[0] == "rw" and not mine:
                place = fields[4].removeprefix("/export")
                good = place.startswith(tuple(writable)) or helper.serves_network
                breach_if(not good, f"{helper.name} may write to {place}")
            count += 1
    return f"{count} mounts"


@probe(
    "helper-descriptors",
    "confined",
    "A helper has a descriptor open that leads to something of the host.",
    scene="any",
    cites=("CVE-2024-21626",),
)
async def descriptors(scene: Inside) -> str:
    count = 0
    allowed = (
        "/dev/null",
        "/dev/kvm",
        "/memfd:",
        "/proc",
        "/dev/vhost-vsock",
        "/usr/",
        "/dev/ptmx",
    )
    for helper in each(scene):
        inner = (str(scene.workspace), *(share.source for share in scene.spec.shares), "/export")
        for leads in helper.descriptors():
            good = not leads.startswith("/") or leads.startswith((*allowed, *inner)) or leads == "/"
            breach_if(not good and helper.name == "QEMU", f"{helper.name} has {leads} open")
            count += 1
    return f"{count} descriptors"


@probe(
    "guest-memory-has-no-name",
    "confined",
    "The guest's memory is a file that others could open, or that a crash leaves behind.",
    scene="any",
)
async def memory_name(scene: Inside) -> str:
    descriptor = scene.sandbox.machine.memory
    leads = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    breach_if(not leads.startswith("/memfd:"), f"it is {leads}")
    breach_if(os.fstat(descriptor).st_nlink, "it has a name")
    return "a memfd, without a name"


@probe(
    "monitor-of-qemu",
    "confined",
    "QEMU's monitor opens files of the host, starts programs and makes network devices.",
    scene="any",
)
async def monitor(scene: Inside) -> str:
    mark = f"corral-verify-{os.getpid()}"
    attempts: list[tuple[str, dict[str, object]]] = [
        ("netdev_add", {"type": "tap", "id": "t"}),
        ("migrate", {"uri": f"exec:touch /tmp/{mark}"}),
    ]
    for place in ("/etc", "/usr", scene.facts.user.home):
        backend = {"type": "file", "data": {"out": f"{place}/{mark}"}}
        attempts.append(("chardev-add", {"id": f"x{len(attempts)}", "backend": backend}))
    refusals = []
    for command, arguments in attempts:
        try:
            await scene.sandbox.machine.monitor.execute(command, arguments)
        except ProcessError as error:
            refusals.append(error.message)
    made = [p for p in ("/etc", "/usr", "/tmp", scene.facts.user.home) if Path(p, mark).exists()]
    breach_if(made, f"QEMU made a file in {', '.join(made)}")
    breach_if(len(refusals) < 4, "the monitor did it")  # migrate may fail after it was accepted
    return f"{len(refusals)} of {len(attempts)} refused, nothing made"


@probe(
    "run-folder-modes",
    "local-users",
    "The folder of a running sandbox, or one above it, is open to other local users.",
    scene="any",
)
async def run_folder(scene: Inside) -> str:
    folder = scene.sandbox.folder
    checked = [folder.parent, folder, *folder.rglob("*")]
    for path in checked:
        status = path.lstat()
        breach_if(status.st_uid != os.getuid(), f"{path} is another user's")
        empty = stat.S_ISREG(status.st_mode) and status.st_size == 0
        opened = status.st_mode & 0o077 and not empty
        breach_if(opened, f"{path} has the mode {stat.S_IMODE(status.st_mode):o}")
    return f"{len(checked)} paths, all of this user alone"


@probe(
    "run-folder-of-another",
    "local-users",
    "A run folder that is open, a link, or another user's is used all the same.",
    scene="host",
)
async def run_root(scene: Ground) -> str:
    code = "from corral.paths import run_root; print(run_root())"
    refusals = 0
    for how in ("private", "open", "link"):
        runtime = scene.folder("runtime")
        runtime.chmod(0o700)
        if how == "open":
            (runtime / "corral").mkdir()
            (runtime / "corral").chmod(0o755)
        elif how == "link":
            scene_folder = scene.folder("elsewhere")
            scene_folder.chmod(0o700)
            (runtime / "corral").symlink_to(scene_folder)
        done = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code),
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _out, err = await done.communicate()
        if how == "private":
            tried_if(done.returncode == 0, "a private one is refused, too")
        else:
            breach_if(done.returncode == 0, f"a run folder that is {how} was used")
            tried_if(b"HostError" in err, "it failed for another reason")
            refusals += 1
    return f"{refusals} refused; a private one is used"


@probe(
    "other-user",
    "local-users",
    "A process of another user lists the run folder and connects to what is in it.",
    scene="any",
)
async def other_user(scene: Inside) -> str:
    if os.getuid() != 0:
        raise NotTried("only root can be another user; the modes are looked at by another probe")
    folder = scene.sandbox.folder
    places = [str(path) for path in (folder, *folder.rglob("*"))]
    code = f"""
outcome = []
def attempt(action):
    try:
        action()
        outcome.append("done")
    except OSError as error:
        outcome.append(type(error).__name__)
for path in {places!r}:
    attempt(lambda: os.stat(path + "/."))
    attempt(lambda: open(path).close())
    attempt(lambda: socket.socket(socket.AF_UNIX).connect(path))
attempt(lambda: os.listdir({str(folder.parent)!r}))
attempt(lambda: os.readlink("/proc/{scene.sandbox.machine.pid}/exe"))
print(" ".join(outcome))
"""
    words = (await _said(code, NOBODY)).split()
    tried_if("PermissionError" in words, f"another user cannot run Python here: {' '.join(words)}")
    breach_if("done" in words, "another user came through")
    return f"{len(words)} attempts: PermissionError {words.count('PermissionError')}"


@probe(
    "nothing-listens",
    "local-users",
    "A process of the sandbox listens where other local users or the network can connect.",
    scene="any",
)
async def listens(scene: Inside) -> str:
    root = scene.sandbox.folder.parent
    unix = _listening_paths()
    inodes, inet, count = set(), _inet_listeners(), 0
    for pid in (os.getpid(), *descendants(scene.sandbox.machine.pid)):
        for leads in Helper(pid, "").descriptors():
            if leads.startswith("socket:["):
                inodes.add(leads[8:-1])
        count += 1
    published = {str(port.port) for port in scene.plan.network.publish}
    published |= {str(port) for port in scene.ports()}
    found = [where for inode, where in inet.items() if inode in inodes]
    found = [where for where in found if where.rpartition(":")[2] not in published]
    breach_if(found, f"it listens on {', '.join(found)}")
    paths = [path for inode, path in unix.items() if inode in inodes and path]
    outside = [path for path in paths if not Path(path).is_relative_to(root)]
    breach_if(outside, f"it listens at {', '.join(outside)}")
    return f"{count} processes; {len(paths)} sockets, all in the private run folder"


def _inet_listeners() -> dict[str, str]:
    """Inodes of sockets that listen in this network namespace, and where."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # TCP_LISTEN
                address, _, port = fields[1].partition(":")
                found[fields[9]] = f"{address}:{int(port, 16)}"
    return found


def _listening_paths() -> dict[str, str]:
    """Inodes of Unix sockets that listen, and their paths ("@..." without a file)."""
    found = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[3], 16) & 0x10000:  # __SO_ACCEPTCON, linux/net.h
            found[fields[6]] = fields[7] if len(fields) > 7 else ""
    return found


@probe(
    "keeper-of-another",
    "local-users",
    "Another user connects to a keeper's socket that was opened to all, and asks it.",
    scene="host",
)
async def keeper_of_another(scene: Ground) -> str:
    if os.getuid() != 0:
        raise NotTried("only root can be another user; the modes are looked at by another probe")
    hello = Hello(
        version=1, name="verify", state="running", accel="", carrier="", user="", workdir="/"
    )
    idle = types.SimpleNamespace(run=lambda: asyncio.sleep(0))
    keeper = types.SimpleNamespace(name="verify", state="running", syncing=idle, sessions=None)
    server = Server(cast(Keeper, keeper), lambda: hello)
    folder = scene.folder("keeper")
    path = folder / SOCKET
    asked = bytes([wire.CONTROL, 0, 0, 0]) + bytes(4) + len(_HELLO).to_bytes(4, "big") + _HELLO
    code = f"""
s = socket.socket(socket.AF_UNIX)
s.settimeout(10)
s.connect({str(path)!r})
try:
    s.sendall({asked!r})
    print("heard", len(s.recv(100)))
except OSError as error:
    print("heard 0", error)
"""
    async with server.listen(folder):
        scene.scratch.chmod(0o755)
        path.chmod(0o777)
        try:
            ours, theirs = await _said(code), await _said(code, NOBODY)
        finally:
            scene.scratch.chmod(0o700)
    tried_if(ours.startswith("heard") and not ours.startswith("heard 0"), f"nor is root: {ours}")
    tried_if(theirs.startswith("heard"), f"another user cannot run Python here: {theirs}")
    breach_if(not theirs.startswith("heard 0"), "it is served")
    return "it is hung up on; this user is answered"


_HELLO = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"version": 1}}
).encode()


async def _said(code: str, uid: int | None = None) -> str:
    """The first line that a Python program prints, as another user if one is named."""
    # The interpreter is started as this user: another may not be able to read it.
    begin = "import os, socket\n"
    become = f"os.setgroups([])\nos.setgid({uid})\nos.setuid({uid})\n" if uid else ""
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", begin + become + code),
        cwd="/",
        env={},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await done.communicate()
    lines = (out or err).decode(errors="replace").strip().splitlines()
    return lines[0] if out and lines else (lines or ["nothing"])[-1]


@probe(
    "nothing-is-left",
    "confined",
    "Something of the sandbox is left when it has ended: a process, its folder, a mount.",
    scene="ended",
)
async def nothing_left(scene: Inside) -> str:
    left = [pid for pid in scene.processes if _alive(pid, scene.processes[pid])]
    breach_if(left, f"{len(left)} processes live on")
    breach_if(scene.run_folder.exists(), "its run folder is there")
    mounts = Path("/proc/self/mountinfo").read_text()
    breach_if(scene.run_folder.name in mounts, "a mount of it is there")
    tried_if(scene.processes, "its processes were not known")
    return f"{len(scene.processes)} processes, the folder and all mounts are gone"


def _alive(pid: int, started: str) -> bool:
    return start_time(pid) == started
