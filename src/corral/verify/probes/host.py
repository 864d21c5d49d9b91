"""The host's side: helper processes, what they hold, what is left of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import ProcessError
from ..judging import breach_if, tried_if
from ..processes import Helper, helpers, start_time
from ..registry import Registry
from ..scenes import CANARY, Inside

HOST = Registry("host")
probe = HOST.probe

NAMESPACES = ("user", "pid", "net", "ipc", "mnt", "uts", "cgroup")
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
    shared = [scene.spec.workspace.path, *(share.source for share in scene.spec.shares)]
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
    writable = [scene.inside(scene.workspace), "/dev/"]  # where the export has it
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
