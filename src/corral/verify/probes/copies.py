"""Files: what has rights of its own, what git obeys, what is copied out of a sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from corral_guest import tar
from corral_guest.tar import Entry

from ...errors import ChannelError, CorralError, UnsafeArchiveError
from ...sandbox.files import Executor, Files
from ..judging import breach_if, refused, runnable, tried_if
from ..model import Breach
from ..scenes import Ground, Inside, Staged
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


# Archives and listings of a guest that was taken over.


class _Answer:
    """A stream that ends after its bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, limit: int = 1 << 16) -> bytes:
        piece, self._data = self._data[:limit], self._data[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)

    async def end(self) -> None:
        await asyncio.sleep(0)

    def reset(self, reason: str = "") -> None:
        self._data = b""


class Liar:
    """What answers in place of a guest's built-in: the same bytes to everything."""

    def __init__(self, answer: bytes) -> None:
        self.stdin, self.stdout, self.stderr = _Answer(b""), _Answer(answer), _Answer(b"")

    async def exec(self, argv: Sequence[str], **_options: Any) -> Liar:
        return self

    async def wait(self) -> int:
        return 0

    async def signal(self, number: int, *, group: bool = False) -> None:
        await asyncio.sleep(0)


def lying(answer: bytes) -> Files:
    """Files of a guest that answers so."""
    return Files(cast(Executor, Liar(answer)))


def archive(*entries: Entry) -> bytes:
    """An archive of the guest's own writer, whatever is in it, with files full of x."""
    parts = []
    for entry in entries:
        data = b"x" * entry.size if entry.kind == tar.FILE else b""
        parts.append(tar.header(entry) + data + tar.padding(len(data)))
    return b"".join(parts) + tar.END


FOLDER = Entry(b"x", tar.FOLDER, 0o755)


async def hostile(scene: Ground, what: str, *attacks: bytes) -> str:
    """Each archive is refused, and makes nothing; an honest one arrives."""
    base = scene.folder(what)
    place = base / "place"
    place.mkdir()
    (base / "secret").write_text("kept")
    for attack in attacks:
        try:
            await lying(attack).download("/tmp/x", place / "x")
        except UnsafeArchiveError:
            pass
        except CorralError as error:
            tried_if(False, f"refused for another reason: {error}")
        else:
            raise Breach("the archive was unpacked")
        found = sorted(str(path.relative_to(base)) for path in base.rglob("*"))
        breach_if(found != ["place", "secret"], f"left on the host: {found}")
    good = archive(FOLDER, Entry(b"x/f", tar.FILE, 0o644, 3))
    await lying(good).download("/tmp/x", place / "x")
    tried_if((place / "x" / "f").read_bytes() == b"xxx", "an honest archive does not arrive either")
    return f"{len(attacks)} refused; an honest archive arrives"


@probe(
    "archive-traversal",
    "archives",
    "An archive names absolute paths and paths that climb out of its target.",
    scene="host",
    cites=("CVE-2007-4559",),
)
async def archive_traversal(scene: Ground) -> str:
    elsewhere = scene.folder("elsewhere") / "attack"
    said = await hostile(
        scene,
        "traversal",
        archive(Entry(bytes(elsewhere), tar.FILE, 0o644)),
        archive(FOLDER, Entry(b"x/../../attack", tar.FILE, 0o644)),
        archive(Entry(b"../attack", tar.FILE, 0o644)),
        archive(Entry(b"attack", tar.FILE, 0o644)),
    )
    breach_if(elsewhere.exists(), f"made on the host: {elsewhere}")
    return said


@probe(
    "archive-links",
    "archives",
    "An archive makes links that lead out, and writes through its own links.",
    scene="host",
    cites=("CVE-2019-1002101", "CVE-2019-11249"),
)
async def archive_links(scene: Ground) -> str:
    return await hostile(
        scene,
        "links",
        archive(FOLDER, Entry(b"x/l", tar.LINK, 0o777, target=b"../../secret")),
        archive(
            FOLDER,
            Entry(b"x/l", tar.LINK, 0o777, target=b"."),
            Entry(b"x/l/f", tar.FILE, 0o644),
        ),
        archive(
            FOLDER,
            Entry(b"x/d", tar.FOLDER, 0o755),
            Entry(b"x/d/u", tar.LINK, 0o777, target=b".."),
            Entry(b"x/o", tar.LINK, 0o777, target=b"d/u/../secret"),
        ),
        archive(FOLDER, Entry(b"x/h", tar.HARD_LINK, 0o644, target=b"/etc/passwd")),
    )


@probe(
    "archive-set-id-and-names",
    "archives",
    "An archive holds a set-id file, a name twice, a name too long, a tree too deep.",
    scene="host",
)
async def archive_odd(scene: Ground) -> str:
    return await hostile(
        scene,
        "odd",
        archive(Entry(b"x", tar.FILE, 0o6755, 4)),
        archive(FOLDER, Entry(b"x/f", tar.FILE, 0o644), Entry(b"x/f", tar.LINK, 0, target=b"x")),
        archive(FOLDER, Entry(b"x/" + b"n" * 300, tar.FILE, 0o644)),
        archive(Entry(b"/".join([b"x"] * 250), tar.FOLDER, 0o755)),
    )


@probe(
    "archive-bomb",
    "bounded",
    "An archive announces a petabyte, and one never ends.",
    scene="host",
)
async def archive_bomb(scene: Ground) -> str:
    endless = tar.header(FOLDER) * 300_000
    return await hostile(scene, "bomb", tar.header(Entry(b"x", tar.FILE, 0o644, 1 << 50)), endless)


@probe(
    "hostile-listing",
    "archives",
    "A listing of a folder holds paths, NUL bytes, negative sizes and deep JSON.",
    scene="host",
)
async def hostile_listing(scene: Ground) -> str:
    def listing(**changes: object) -> bytes:
        plain = {"name": "n", "kind": "file", "mode": 0, "size": 0, "time": 0, "target": ""}
        return json.dumps({**plain, **changes}).encode() + b"\n"

    answers = [
        *(listing(name=name) for name in ("../up", "..", "a\0b", "a/b")),
        *(listing(size=-1), listing(more=1), listing() * 2, b"\xff\n", b"[" * 60_000),
    ]
    for answer in answers:
        try:
            await lying(answer).list("/tmp")
        except ChannelError:
            continue
        raise Breach(f"taken for a listing: {answer[:60]!r}")
    tried_if(await lying(listing()).list("/tmp"), "an honest listing is refused, too")
    return f"{len(answers)} refused; an honest one is read"


@probe(
    "copy-works-as-the-agent",
    "archives",
    "What copies files in the guest has other rights than the agent's own commands.",
    scene="any",
)
async def copy_rights(scene: Inside) -> str:
    files = Files(scene.sandbox)
    ours = _status((await files.read("/proc/self/status")).decode())
    theirs = _status(
        (await scene.jail("outcome['text'] = open('/proc/self/status').read()")).get("text", "")
    )
    tried_if("CapEff" in theirs, "the jail's own status could not be read")
    names = ("Uid", "Gid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    other = [name for name in names if ours.get(name) != theirs.get(name)]
    breach_if(other, f"they differ in {', '.join(other)}")
    for path in ("/agents", "/toolbox", "/corral"):
        breach_if(await files.exists(path), f"{path} of the guest is there")
    return "the same ids, capabilities and filter"


def _status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
