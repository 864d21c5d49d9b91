"""Control groups in a real kernel: the guest's, which has cgroup v2 whatever the host has."""

from __future__ import annotations

from pathlib import Path

from corral.proc import groups
from tests.support.sandboxes import guest_root, sandbox_on, succeeded

# The guest's own interpreter has little of the standard library; the toolbox's has all.
ENTER = """
import os
from corral_guest import linux
os.makedirs("/agents/1/root/run/groups")
linux.mount("/sys/fs/cgroup", "/agents/1/root/run/groups", None, linux.MS_BIND)
open("/proc/self/oom_score_adj", "w").write("0")  # the supervisor's is -1000
os.chroot("/agents/1/root")
os.chdir("/")
os.execv("/usr/bin/python3", ["python3", "-c", {code!r}])
"""
CODE = """
import os, resource, signal, sys
base = "/run/groups/box"
os.mkdir(base)
open(base + "/../cgroup.subtree_control", "w").write("+pids +memory +cpu")
open(base + "/cgroup.procs", "w").write("0")
limits = [("pids.max", "5"), ("memory.max", str(64 << 20)), ("memory.oom.group", "1"),
          ("cpu.max", "50000 100000")]
group = Group(base, "demo", ("cpu", "memory", "pids"), limits)
group.make()
print("enabled:", *sorted(open(base + "/cgroup.subtree_control").read().split()), flush=True)
ready, go = os.pipe()
child = os.fork()
if child == 0:
    os.read(ready, 1)
    made = 0
    try:
        while made < 20:
            if os.fork() == 0:
                signal.pause()
            made += 1
    except BlockingIOError:
        print("forked:", made, flush=True)
    held = bytearray(b"x") * (200 << 20)
    print("held", flush=True)
group.add(child)
os.write(go, b"x")
_, status = os.waitpid(child, 0)
print("ended by:", signal.Signals(os.WTERMSIG(status)).name)
events = open(str(group.folder) + "/memory.events").read()
print("killed as one:", "oom_group_kill 1" in events)
while "populated 1" in open(str(group.folder) + "/cgroup.events").read():
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        pass
group.remove()
print("left:", *[name for name in os.listdir(base) if name.startswith("corral-")])
"""

SOURCE = Path(groups.__file__).read_text()


async def test_a_group_bounds_processes_and_memory_and_is_removed(project: Path) -> None:
    async with sandbox_on(project) as sandbox:
        output = succeeded(await guest_root(sandbox, ENTER.format(code=SOURCE + CODE)))
    assert output.splitlines() == [
        "enabled: cpu memory pids",
        "forked: 4",
        "ended by: SIGKILL",
        "killed as one: True",
        "left: corral-main",
    ]
