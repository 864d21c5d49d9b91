"""Files: what has rights of its own, what git obeys, what is copied out of a sandbox."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from ..judging import breach_if, refused, runnable, tried_if
from ..model import Breach
from ..scenes import Staged
from .exports import EXPORTS

probe = EXPORTS.probe


async def by_both(scene: Staged, name: str, code: str) -> list[tuple[Path, dict[str, str]]]:
    """Run `attack(base)` in two folders of the workspace: in the jail, and by root as the agent."""
    found = []
    for who in ("jail", "root"):
        folder = scene.workspace / f"{name}-{who}"
        folder.mkdir()
        if who == "jail":
            outcome = await scene.jail(f"{code}\nattack({str(folder)!r})")
        else:
            base = scene.exported(folder)
            outcome = await scene.root(
                f"{code}\noutcome.update(as_user({scene.agent_id}, lambda: attack({base!r})))"
            )
        runnable(outcome)
        found.append((folder, outcome))
    return found


SET_ID = """
def attack(base):
    os.umask(0)
    def plain(name):
        os.close(os.open(f"{base}/{name}", os.O_CREAT | os.O_WRONLY, 0o755))
        return f"{base}/{name}"
    for bits in (0o4755, 0o2755, 0o6755):
        attempt(f"chmod {bits:o}", os.chmod, plain(f"chmod{bits:o}"), bits)
        fd = os.open(plain(f"fchmod{bits:o}"), os.O_RDWR)
        attempt(f"fchmod {bits:o}", os.fchmod, fd, bits)
        at = plain(f"at{bits:o}").encode()
        attempt(f"fchmodat2 {bits:o}", syscall, 452, -100, at, bits, 0)
        attempt(f"create {bits:o}", lambda: os.close(
            os.open(f"{base}/open{bits:o}", os.O_CREAT | os.O_WRONLY, bits)))
        attempt(f"node {bits:o}", os.mknod, f"{base}/node{bits:o}", stat.S_IFREG | bits)
    os.mkdir(f"{base}/inner")
    attempt("chmod folder", os.chmod, f"{base}/inner", 0o6755)
"""


@probe(
    "set-id-files",
    "inert",
    "Set-id programs are made in the workspace by chmod, open and mknod.",
    scene="staged",
    cites=("CVE-2022-0358",),
)
async def set_id(scene: Staged) -> str:
    tried = 0
    for folder, outcome in await by_both(scene, "set-id", SET_ID):
        made = [path for path in folder.rglob("*") if path.lstat().st_mode & 0o6000]
        breach_if(made, f"set-id files on the host: {len(made)}, {made[:1]}")
        tried_if((folder / "chmod4755").exists(), "nothing was made on the host")
        changed = [n for n, how in outcome.items() if how == "done" and "chmod" in n]
        breach_if(changed, f"went through: {', '.join(changed)}")
        tried += len(outcome)
    return f"{tried} attempts, no set-id file on the host"


DEVICES = """
def attack(base):
    attempt("memory", os.mknod, f"{base}/mem", stat.S_IFCHR | 0o666, os.makedev(1, 1))
    attempt("null", os.mknod, f"{base}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    attempt("disk", os.mknod, f"{base}/disk", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    attempt("loop", os.mknod, f"{base}/loop", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    attempt("whiteout", os.mknod, f"{base}/whiteout", stat.S_IFCHR, 0)
    os.close(os.open(f"{base}/plain", os.O_CREAT, 0o600))
"""


@probe(
    "device-nodes",
    "inert",
    "Device nodes, of memory and disks, are made in the workspace.",
    scene="staged",
    cites=("CVE-2020-35517",),
)
async def devices(scene: Staged) -> str:
    tried = 0
    for folder, outcome in await by_both(scene, "devices", DEVICES):
        made = [p.name for p in folder.iterdir() if not stat.S_ISREG(p.lstat().st_mode)]
        breach_if(made, f"device nodes on the host: {made}")
        tried_if((folder / "plain").exists(), "nothing was made on the host")
        outcome.pop("whiteout")  # overlayfs makes it of nothing where there is an overlay
        refused(outcome, "EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "EIO", at_least=4)
        tried += len(outcome)
    return f"{tried} refused, none on the host"


CAPABILITIES = """
def attack(base):
    path = f"{base}/program"
    os.close(os.open(path, os.O_CREAT, 0o755))
    # cap_setuid+ep, for version 2 and for version 3 with the agent as the namespace's root
    two = struct.pack("<IIIII", 0x02000001, 0x80, 0, 0, 0)
    three = struct.pack("<IIIIII", 0x03000001, 0x80, 0, 0, 0, os.getuid())
    attempt("version 2", os.setxattr, path, "security.capability", two)
    attempt("version 3", os.setxattr, path, "security.capability", three)
    attempt("trusted", os.setxattr, path, "trusted.overlay.opaque", b"y")
"""


@probe(
    "file-capabilities",
    "inert",
    "A program of the workspace is given file capabilities.",
    scene="staged",
    cites=("CVE-2021-20263",),
)
async def capabilities(scene: Staged) -> str:
    tried = 0
    for folder, outcome in await by_both(scene, "capabilities", CAPABILITIES):
        names = os.listxattr(folder / "program")
        found = [name for name in names if name.startswith(("security.cap", "trusted"))]
        breach_if(found, f"attributes on the host: {found}")
        tried += len(outcome)
        refused(outcome, "EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "EIO", "EINVAL", at_least=3)
    return f"{tried} refused, none on the host"


@probe(
    "pipes-and-sockets",
    "inert",
    "A pipe and a socket in the workspace connect a process of the guest with one of the host.",
    scene="staged",
)
async def pipes_and_sockets(scene: Staged) -> str:
    outcome = await scene.jail(f"""
os.chdir({str(scene.workspace)!r})
os.mkfifo("pipe")
listening = socket.socket(socket.AF_UNIX)
listening.bind("socket")
listening.listen()
os.chmod("socket", 0o777)
pid = os.fork()   # stays, with both ends open
if pid == 0:
    os.setsid()
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    signal.alarm(15)
    signal.pause()
outcome["made"] = "yes"
""")
    runnable(outcome)
    pipe, place = scene.workspace / "pipe", scene.workspace / "socket"
    tried_if(pipe.exists() and place.exists(), "they could not be made")
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(place))
        except ConnectionRefusedError:
            pass
        else:
            raise Breach("a socket of the guest accepts a connection of the host")
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:  # ENXIO: nobody reads
        return "neither has another end"
    finally:
        pipe.unlink()
        place.unlink()
    raise Breach("a pipe has a reader in the guest")


GIT = """
def attack(base):
    git = base + "/.git"
    def put(path, flags):
        os.close(os.open(path, flags, 0o755))
    attempt("config", put, git + "/config", os.O_WRONLY)
    attempt("a hook", put, git + "/hooks/pre-commit", os.O_WRONLY)
    attempt("a new hook", put, git + "/hooks/post-checkout", os.O_WRONLY | os.O_CREAT)
    attempt("unlink", os.unlink, git + "/config")
    attempt("rename over", os.rename, git + "/HEAD", git + "/config")
    attempt("rename hooks", os.rename, git + "/hooks", git + "/hooks.old")
    attempt("rename .git", os.rename, git, base + "/.git.old")
    attempt("corral.toml", put, base + "/corral.toml", os.O_WRONLY)
    attempt("rename corral.toml", os.rename, base + "/corral.toml", base + "/old.toml")
"""


@probe(
    "git-hooks-and-config",
    "repository",
    "Hooks, configuration and corral.toml of the workspace are written, replaced and moved away.",
    scene="staged",
    cites=("CVE-2025-59536", "CVE-2025-54135"),
)
async def git(scene: Staged) -> str:
    names = (".git/config", ".git/hooks/pre-commit", "corral.toml")
    before = [(scene.workspace / name).read_bytes() for name in names]
    jail = await scene.jail(f"{GIT}\nattack({str(scene.workspace)!r})")
    base = scene.exported(scene.workspace)
    root = await scene.root(
        f"{GIT}\noutcome.update(as_user({scene.agent_id}, lambda: attack({base!r})))"
    )
    try:
        after = [(scene.workspace / name).read_bytes() for name in names]
    except OSError as error:
        raise Breach(f"{error.filename} is gone") from error
    breach_if(after != before, "what git on the host obeys has changed")
    refusals = ("EROFS", "EBUSY", "EACCES", "EPERM", "EXDEV", "EIO")
    return " and ".join(refused(found, *refusals, at_least=9) for found in (jail, root))
