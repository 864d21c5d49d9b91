"""What a guest can use up: its own, and nothing of the host's."""

from __future__ import annotations

import asyncio
import resource
import shutil
from pathlib import Path

from ..judging import breach_if, runnable, succeeded, tried_if
from ..processes import helpers
from ..registry import Registry
from ..scenes import Inside, Staged

LIMITS = Registry("limits")
probe = LIMITS.probe

MIB = 1 << 20


@probe(
    "descriptor-exhaustion",
    "bounded",
    "The guest opens files until its file server has no descriptor left.",
    scene="staged",
    cites=("CVE-2020-10717",),
)
async def descriptors(scene: Staged) -> str:
    many = scene.workspace / "many"
    many.mkdir()
    for number in range(300):
        (many / f"f{number}").touch()
    servers = [
        helper
        for helper in helpers(scene.sandbox.machine.pid)
        if helper.name != "QEMU" and str(scene.workspace) in helper.read("mountinfo")
    ]
    tried_if(servers, "its file server could not be found")
    before = {h.pid: resource.prlimit(h.pid, resource.RLIMIT_NOFILE) for h in servers}
    for helper in servers:  # low here: a guest needs long to reach the real limit
        resource.prlimit(helper.pid, resource.RLIMIT_NOFILE, (120, before[helper.pid][1]))
    try:
        outcome = await scene.root(f"""
opened = []
for number in range(300):
    path = f"{scene.exported(many)}/f{{number}}"
    attempt(str(number), lambda: opened.append(os.open(path, os.O_RDONLY)))
outcome["other"] = str(len(os.listdir("/toolbox/mnt/shared")))
""")
        runnable(outcome)
        out = [how for how in outcome.values() if how in ("ENFILE", "EMFILE")]
        tried_if(out, "the limit was not reached")
        breach_if(outcome["other"] != "4", "the other export does not answer")
        breach_if((many / "f299").read_bytes() != b"", "the host does not answer")
    finally:
        for helper in servers:
            resource.prlimit(helper.pid, resource.RLIMIT_NOFILE, before[helper.pid])
    again = await scene.jail(f"attempt('again', os.stat, {str(many / 'f299')!r})")
    succeeded(again)
    return f"{len(out)} opens refused; the other export and the host go on, and so does it"


@probe(
    "memory-of-the-host",
    "bounded",
    "The guest fills memory; what QEMU takes of the host stays within the machine's size.",
    scene="any",
)
async def memory(scene: Inside) -> str:
    found = await scene.root("""
with open("/proc/meminfo") as file:
    free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
size = min(64, free // 4096)   # MiB, a quarter of what is free
held = bytearray(os.urandom(1 << 20) * size)
outcome["filled"] = str(size)
""")
    runnable(found)
    machine = scene.plan.machine.memory
    qemu = [h for h in helpers(scene.sandbox.machine.pid) if h.name == "QEMU"]
    tried_if(qemu, "QEMU could not be found")
    resident = int(qemu[0].status()["VmRSS"].split()[0]) << 10
    most = machine + 500 * MIB  # QEMU itself, TCG's translations among it
    breach_if(resident > most, f"QEMU takes {resident >> 20} MiB for {machine >> 20} MiB")
    return f"{found['filled']} MiB filled; QEMU {resident >> 20} MiB, machine {machine >> 20} MiB"


@probe(
    "processes-of-the-host",
    "bounded",
    "The guest starts many processes; the host gets none of them.",
    scene="any",
)
async def processes(scene: Inside) -> str:
    before = len(_children(scene))
    waiting = asyncio.create_task(
        scene.root("""
pids = []
for _ in range(60):
    pid = os.fork()
    if pid == 0:
        time.sleep(20)
        os._exit(0)
    pids.append(pid)
outcome["started"] = str(len(pids))
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""),
        name="fork",
    )
    found = await waiting
    runnable(found)
    after = len(_children(scene))
    breach_if(after > before + 5, f"the host has {after - before} processes more")
    return f"{found['started']} started; the host has {before} for this sandbox, before and after"


def _children(scene: Inside) -> list[int]:
    from ..processes import descendants

    return descendants(scene.sandbox.machine.pid)


@probe(
    "output-nobody-reads",
    "bounded",
    "A command writes without end while nobody reads; the host would have to keep it.",
    scene="any",
)
async def output(scene: Inside) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    endless = ["sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done"]
    execution = await scene.sandbox.exec(endless)
    try:
        await execution.stdout.read()
        await asyncio.sleep(1.0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        breach_if(grown > 32 << 10, f"corral has grown by {grown >> 10} MiB")
    finally:
        await execution.signal(9, group=True)
        execution.stdout.reset("not wanted")
        await execution.wait()
    return f"it waits for its reader; corral has grown by {grown >> 10} MiB"


@probe(
    "disk-of-the-host",
    "bounded",
    "What a jail writes to /tmp and over its programs takes room on the host's disks.",
    scene="any",
)
async def disk(scene: Inside) -> str:
    before = _free(scene)
    found = await scene.jail("""
with open("/tmp/fill", "wb") as file:
    for _ in range(24):
        file.write(os.urandom(1 << 20))
outcome["written"] = str(os.path.getsize("/tmp/fill") >> 20)
os.unlink("/tmp/fill")
""")
    runnable(found)
    here = [path for path in ("/tmp/fill", "/usr/fill") if Path(path).exists()]
    breach_if(here, f"it is on the host: {here}")
    lost = before - _free(scene)
    tried_if(lost < 512 * MIB, "others fill this disk meanwhile")
    return f"{found['written']} MiB written, into the machine's own memory"


def _free(scene: Inside) -> int:
    return shutil.disk_usage(scene.scratch).free
