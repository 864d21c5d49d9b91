"""The machine: a kernel of its own, the devices that were asked for, nothing of the host."""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path

from .. import inside
from ..judging import breach_if, refused, runnable, tried_if
from ..memory import without
from ..model import Breach, NotTried
from ..registry import Registry
from ..scenes import CANARY, Inside

VM = Registry("vm")
probe = VM.probe

# Vendor and device of what corral gives to a machine, as PCI names them.
DEVICES = {
    "8086:29c0": "host bridge",
    "8086:2918": "ISA bridge of q35",
    "8086:2922": "SATA of q35, without disks",
    "8086:2930": "SMBus of q35",
    "1b36:0008": "host bridge of aarch64's virt",
    "1b36:000c": "root port",
    "1af4:1003": "virtio console",
    "1af4:1043": "virtio console",
    "1af4:1002": "virtio balloon",
    "1af4:1045": "virtio balloon",
    "1af4:1053": "virtio vsock",
    "1af4:1009": "virtio 9p",
    "1af4:1049": "virtio 9p",
    "1af4:105a": "virtio file system",
}


@probe(
    "own-kernel",
    "own-machine",
    "The guest runs the host's kernel, as a container would.",
    scene="any",
)
async def own_kernel(scene: Inside) -> str:
    found = await scene.root("""
for name, path in (("boot", "/proc/sys/kernel/random/boot_id"), ("cpus", "/proc/cpuinfo")):
    with open(path) as file:
        outcome[name] = file.read().strip()
outcome["first"] = open("/proc/1/cmdline").read()
""")
    runnable(found)
    ours = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    breach_if(found["boot"] == ours, "the guest has the host's boot id")
    hypervisor = "hypervisor" in found["cpus"] or platform.machine() != "x86_64"
    tried_if(hypervisor, "the processor does not say that it is a virtual one")
    return "another boot id, on a virtual processor"


@probe(
    "no-network-device",
    "no-network",
    "The machine, and the jail, have a network device besides loopback.",
    scene="any",
)
async def no_network_device(scene: Inside) -> str:
    code = """
with open("/proc/net/dev") as file:
    outcome["devices"] = ",".join(sorted(l.split(":")[0].strip() for l in file if ":" in l))
"""
    for who, run in (("the guest", scene.root), ("the jail", scene.jail)):
        found = await run(code)
        runnable(found)
        breach_if(found["devices"] != "lo", f"{who} has {found['devices']}")
    return "lo in the guest, lo in the jail"


@probe(
    "devices-asked-for",
    "own-machine",
    "The machine has a device that nobody asked for: a disk, a network card, a USB controller.",
    scene="any",
    cites=("CVE-2015-3456",),
)
async def devices(scene: Inside) -> str:
    found = await scene.root("""
base = "/sys/bus/pci/devices"
for name in os.listdir(base):
    words = [open(f"{base}/{name}/{part}").read().strip()[2:] for part in ("vendor", "device")]
    outcome[name] = ":".join(words)
for name in os.listdir("/sys/block"):
    outcome["block " + name] = "disk"
""")
    runnable(found)
    disks = [name for name in found if name.startswith("block")]
    allowed = {*DEVICES, *(("1af4:1042", "1af4:1001") if scene.plan.disk else ())}
    strange = {how for name, how in found.items() if name not in disks} - allowed
    breach_if(strange, f"unknown devices: {', '.join(sorted(strange))}")
    breach_if(disks and not scene.plan.disk, f"there is a disk: {disks}")
    tried_if("1af4:105a" in found.values() or scene.plan.machine.transport == "9p", "no PCI bus")
    return f"{len(found)} devices, each of them known"


@probe(
    "other-exports",
    "own-machine",
    "The guest's root mounts exports by names that were not given to it.",
    scene="any",
)
async def other_exports(scene: Inside) -> str:
    outcome = await scene.root("""
os.makedirs("/tmp/tags", exist_ok=True)
for tag in ("agent2", "agent0", "root", "host", "home", "/", "share", "workspace", ""):
    attempt("virtiofs " + tag, mount, tag, "/tmp/tags", "virtiofs")
    attempt("9p " + tag, mount, tag, "/tmp/tags", "9p", 0, "trans=virtio")
""")
    return refused(outcome, "EINVAL", "ENODEV", "ENOENT", "EBUSY", "EPERM", at_least=18)


@probe(
    "kernel-command-line",
    "environment",
    "The kernel's command line and process 1 tell something of the host: a path, a variable.",
    scene="any",
)
async def command_line(scene: Inside) -> str:
    found = await scene.root("""
for path in ("/proc/cmdline", "/proc/1/cmdline", "/proc/1/environ"):
    with open(path) as file:
        outcome[path] = file.read()
""")
    runnable(found)
    text, home = "\n".join(found.values()), scene.facts.user.home
    private = {v for k, v in os.environ.items() if len(v) > 12 and k not in ("PATH", "LANG")}
    seen = [value for value in (*private, *([home] if len(home) > 1 else [])) if value in text]
    breach_if(seen, f"{len(seen)} values of the host are in it")
    return f"none of {len(private)} values of this host is in it"


@probe(
    "environment-of-the-host",
    "environment",
    "A variable that only the host has is looked for in every process of the guest.",
    scene="any",
)
async def environment(scene: Inside) -> str:
    found = await scene.root("""
for pid in os.listdir("/proc"):
    if pid.isdigit():
        for name in ("environ", "cmdline"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    outcome[pid + name] = file.read().decode("latin-1")
            except OSError:
                pass
""")
    jail = await scene.jail("outcome.update(os.environ)")
    runnable(found)
    runnable(jail)
    breach_if(scene.canary in str(found.values()), "it is in a process of the guest")
    breach_if(scene.canary in jail.values() or CANARY in jail, "it is in the jail's environment")
    tried_if("PATH" in jail and os.environ.get(CANARY) == scene.canary, "the host has none either")
    return f"not in {len(found)} records of processes, not in the jail's environment"


@probe(
    "memory-of-the-machine",
    "environment",
    "All memory of the guest is searched on the host for a variable that only the host has.",
    scene="any",
)
async def memory(scene: Inside) -> str:
    return await without(scene, "it", scene.canary)


@probe(
    "identity-of-the-host",
    "own-identity",
    "The guest has the host's name, its machine id or its boot id.",
    scene="any",
)
async def identity(scene: Inside) -> str:
    found = await scene.jail(inside.IDENTITY)
    runnable(found)
    ours = {platform.node()}
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        if Path(path).exists():
            ours.add(Path(path).read_text().strip())
    same = [name for name, value in found.items() if value in ours]
    breach_if(same, f"the same as the host's: {', '.join(same)}")
    return f"its own: {', '.join(name for name in found if name != 'random')}"


@probe(
    "restored-twice",
    "own-identity",
    "A second sandbox of the same template draws the same random bytes and has the same ids.",
    scene="staged",
)
async def restored_twice(scene: Inside) -> str:
    if scene.other is None:
        raise NotTried("there was no second sandbox in this run")
    ours = await scene.jail(inside.IDENTITY)
    try:
        theirs = await scene.other
    except asyncio.CancelledError:
        raise NotTried("the second sandbox did not start") from None
    runnable(ours)
    runnable(theirs)
    same = [name for name, value in ours.items() if theirs.get(name) == value]
    if same:
        raise Breach(f"the same in both: {', '.join(same)}")
    return f"different in both: {', '.join(ours)}"


@probe(
    "vsock-to-the-host",
    "own-machine",
    "The guest's root connects to the host's and other machines' ports by AF_VSOCK.",
    scene="any",
)
async def vsock(scene: Inside) -> str:
    outcome = await scene.root("""
def connect(cid, port):
    with socket.socket(40, socket.SOCK_STREAM) as s:
        s.settimeout(2)
        s.connect((cid, port))
for cid in (0, 1, 2, 3, 4):
    for port in (22, 80, 1024, 9999):
        attempt(f"{cid}:{port}", connect, cid, port)
""")
    refusals = ("EAFNOSUPPORT", "ENODEV", "ECONNRESET", "ECONNREFUSED", "ETIMEDOUT", "EINVAL")
    found = {n: "ETIMEDOUT" if "timed out" in how else how for n, how in outcome.items()}
    return refused(found, *refusals, "EHOSTUNREACH", "ENETUNREACH", "EPERM", at_least=20)
