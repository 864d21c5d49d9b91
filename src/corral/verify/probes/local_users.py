"""The host's side: the run folder, sockets, and other local users."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import types
from pathlib import Path
from typing import cast

from corral_guest import wire

from ...keeper.door import SOCKET
from ...keeper.keeper import Keeper
from ...keeper.messages import Hello
from ...keeper.server import Server
from ..judging import breach_if, tried_if
from ..model import NotTried
from ..processes import Helper, descendants
from ..scenes import Ground, Inside
from .host import HOST

probe = HOST.probe

NOBODY = 65534


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
            *(sys.executable, "-P", "-c", code),
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
