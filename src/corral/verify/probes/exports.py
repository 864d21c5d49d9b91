"""Files: what is shared read-only stays so, what is not shared is not there."""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import threading
from pathlib import Path

from ...plan.model import NOBODY
from ..judging import Outcome, breach_if, refused, runnable, succeeded, tried_if
from ..model import Breach
from ..registry import Registry
from ..scenes import Inside, Staged, state

EXPORTS = Registry("exports")
probe = EXPORTS.probe

# How a server, or the kernel of the guest, refuses what is read-only or another's.
READ_ONLY = ("EROFS", "EPERM", "EACCES", "ENOTSUP", "EIO", "EINVAL", "EXDEV")
NOT_THERE = ("ENOENT", "EACCES", "ENOTDIR")


async def unchanged(scene: Staged, outcome: Outcome, at_least: int) -> str:
    """Refused, nothing changed on the host, and possible where it is allowed."""
    seen = refused(outcome, *READ_ONLY, at_least=at_least)
    return f"{seen}; the same succeeds in the workspace"


async def control(scene: Staged, attacks: str, optional: tuple[str, ...] = ()) -> None:
    """The attacks succeed on a folder of the workspace, by the agent's id."""
    from ..scenes import tree

    folder = scene.workspace / f"control-{attacks}-{secrets.token_hex(3)}"
    tree(folder)
    base = scene.exported(folder)
    code = f"outcome.update(as_user({scene.agent_id}, lambda: {attacks}({base!r})))"
    outcome = await scene.root(code)
    runnable(outcome)
    succeeded({name: how for name, how in outcome.items() if name not in optional})


def guarded(scene: Staged) -> tuple[dict[str, object], dict[str, object]]:
    """What must stay as it is."""
    return state(scene.shared), state(scene.tool)


async def from_jail(scene: Staged, attacks: str, at_least: int) -> str:
    before = guarded(scene)
    outcome = await scene.jail(
        f"{attacks}('/mnt/shared')\n"
        f"found = {{'share: ' + n: h for n, h in outcome.items()}}\noutcome.clear()\n"
        f"{attacks}({str(scene.tool)!r})\n"
        "outcome.update(found)"
    )
    breach_if(guarded(scene) != before, "a read-only share has changed on the host")
    # What is laid over the programs in the guest takes changes for its own; the host's stay.
    kept = {name: how for name, how in outcome.items() if name.startswith("share")}
    runnable(outcome)
    await control(scene, attacks)
    return await unchanged(scene, kept, at_least)


@probe(
    "share-content-from-jail",
    "read-only",
    "Files of a read-only share are written, truncated, mapped and reopened from the jail.",
    scene="staged",
    cites=("CVE-2019-5736",),
)
async def content_from_jail(scene: Staged) -> str:
    return await from_jail(scene, "content", 6)


@probe(
    "share-names-from-jail",
    "read-only",
    "Names in a read-only share are made, renamed, linked and removed from the jail.",
    scene="staged",
)
async def names_from_jail(scene: Staged) -> str:
    return await from_jail(scene, "names", 9)


@probe(
    "share-metadata-from-jail",
    "read-only",
    "Modes, owners and times of a read-only share are changed from the jail.",
    scene="staged",
)
async def metadata_from_jail(scene: Staged) -> str:
    return await from_jail(scene, "metadata", 3)


@probe(
    "share-remount-from-jail",
    "read-only",
    "The jail remounts a read-only share writable, unmounts it, and binds it elsewhere.",
    scene="staged",
)
async def remount_from_jail(scene: Staged) -> str:
    before = guarded(scene)
    outcome = await scene.jail("""
REMOUNT, BIND = 32, 4096
for name, flags in (("remount", REMOUNT), ("remount of the bind", REMOUNT | BIND),
                    ("the same, nosuid", REMOUNT | BIND | 2), ("nodev", REMOUNT | BIND | 6)):
    attempt(name, mount, "none", "/mnt/shared", None, flags)
""")
    seen = refused(outcome, "EPERM", "EACCES", "EINVAL", "EROFS", "EBUSY", at_least=4)
    # In namespaces of its own a process may do to its mounts what it likes; below is the host's.
    inner = await scene.jail("""
attempt("namespace", lambda: check(libc.unshare(0x10000000 | 0x20000)))
attempt("unmount", lambda: check(libc.umount2(b"/mnt/shared", 2)))
os.makedirs("/tmp/elsewhere", exist_ok=True)
attempt("bind", mount, "/mnt/shared", "/tmp/elsewhere", None, 4096)
attempt("remount there", mount, "none", "/tmp/elsewhere", None, 32 | 4096)
for base in ("/mnt/shared", "/tmp/elsewhere"):
    content(base)
""")
    runnable(inner)
    breach_if(guarded(scene) != before, "a read-only share has changed on the host")
    return seen


@probe(
    "share-second-mount-by-root",
    "read-only",
    "The guest's root mounts the export a second time, writable, and writes with every id.",
    scene="staged",
)
async def second_mount(scene: Staged) -> str:
    before = guarded(scene)
    tried = 0
    for uid in (0, NOBODY, scene.agent_id):
        place = f"/tmp/again-{uid}"
        outcome = await scene.root(f"""
os.makedirs({place!r})
mount("toolbox", {place!r}, "virtiofs")
mount("toolbox", {place!r}, None, 32)   # MS_REMOUNT, writable
for base in ("/mnt/shared", {str(scene.tool)!r}):
    def writes():
        for kind in (content, names, metadata):
            kind({place!r} + base)
    found = as_user({uid}, writes)
    outcome.update({{base + " " + name: how for name, how in found.items()}})
""")
        breach_if(guarded(scene) != before, f"a read-only share has changed on the host (id {uid})")
        refused(outcome, *READ_ONLY, at_least=36)
        tried += len(outcome)
    for attacks in ("content", "names", "metadata"):
        await control(scene, f"{attacks}")
    return f"{tried} attempts with three ids refused; the same succeeds in the workspace"


@probe(
    "share-file-handles",
    "read-only",
    "Read-only files are opened for writing by file handles, past their names.",
    scene="staged",
)
async def file_handles(scene: Staged) -> str:
    outcome = await scene.root("""
attempt("share", by_handle, "/toolbox/mnt/shared", "/toolbox/mnt/shared/file", os.O_RDWR)
attempt("programs", by_handle, "/toolbox/usr/bin", "/toolbox/usr/bin/env", os.O_RDWR)
""")
    seen = refused(outcome, "EROFS", "EACCES", "EOPNOTSUPP", "ESTALE", at_least=2)
    breach_if((scene.shared / "file").read_text() != "file\n", "the shared file has changed")
    return seen


@probe(
    "programs-stay",
    "read-only",
    "The guest's root opens the host's programs for writing, below its own overlay.",
    scene="any",
)
async def programs_stay(scene: Inside) -> str:
    tried = 0
    for uid in (0, NOBODY):
        outcome = await scene.root(f"""
def change():
    base = "/toolbox/usr/bin"
    attempt("write", lambda: os.close(os.open(base + "/env", os.O_WRONLY)))
    attempt("create", lambda: os.close(os.open(base + "/corral-verify", 0o101, 0o600)))
    attempt("link", os.link, base + "/env", base + "/corral-verify-link")
    attempt("mode", os.chmod, base + "/env", 0o755)
outcome.update(as_user({uid}, change))
""")
        refused(outcome, *READ_ONLY, at_least=4)
        tried += len(outcome)
    for name in ("corral-verify", "corral-verify-link"):
        breach_if(Path("/usr/bin", name).exists(), f"/usr/bin/{name} is on the host")
    return f"{tried} refused with two ids"


@probe(
    "nothing-beside-shares",
    "read-only",
    "Files are made beside the shares, in the folders that join them, which are host memory.",
    scene="staged",
)
async def nothing_beside(scene: Staged) -> str:
    outcome = await scene.root(f"""
def beside(*folders):
    for folder in folders:
        attempt("file in " + folder, put, folder + "/planted", os.O_WRONLY | os.O_CREAT)
        attempt("folder in " + folder, os.mkdir, folder + "/plantedfolder")
found = as_user({scene.agent_id}, lambda: beside(
    "/agents/1/export", {scene.exported(scene.workspace.parent)!r}))
found.update(as_user({NOBODY}, lambda: beside("/toolbox", "/toolbox/etc", "/toolbox/mnt")))
outcome.update(found)
""")
    seen = refused(outcome, "EROFS", "EACCES", "EPERM", at_least=10)
    breach_if((scene.workspace.parent / "planted").exists(), "a file appeared beside the workspace")
    return seen


LINKS = """
def links(who, base, targets):
    for name, target in targets:
        os.symlink(target, f"{base}/{who}-{name}")
    for name, target in targets:
        path = f"{base}/{who}-{name}"
        attempt(f"read {name}", lambda: os.read(os.open(path, os.O_RDONLY), 1000))
        attempt(f"list {name}", lambda: os.listdir(path + "/."))
        attempt(f"make {name}", lambda: os.open(path + "/planted", os.O_CREAT | os.O_WRONLY))
"""


@probe(
    "links-out",
    "paths",
    "Symbolic links to files of the host are followed, absolute, relative and through /proc.",
    scene="staged",
    cites=("CVE-2026-39861", "CVE-2016-9602"),
)
async def links_out(scene: Staged) -> str:
    secret = str(scene.outside / "secret")
    targets = [
        ("absolute", secret),
        ("relative", "../../outside/secret"),
        ("deep", "../" * 30 + secret.lstrip("/")),
        ("process", "/proc/1/root" + secret),
        ("shadow", "/etc/shadow"),
        ("folder", str(scene.outside)),
    ]
    place = scene.workspace / "links"
    place.mkdir()
    jail = await scene.jail(LINKS + f"links('jail', {str(place)!r}, {targets!r})")
    base = scene.exported(place)
    root = await scene.root(
        LINKS
        + f"outcome.update(as_user({scene.agent_id}, lambda: links('root', {base!r}, {targets!r})))"
    )
    leads = (place / "jail-absolute").read_text() == scene.secret
    breach_if((scene.outside / "planted").exists(), "a file was made outside the shares")
    tried_if(leads, "the link does not lead to the secret on the host either")
    return " and ".join(refused(found, *NOT_THERE, at_least=18) for found in (jail, root))


@probe(
    "dot-dot",
    "paths",
    "Paths climb out of the export by “..”, from a folder and from a descriptor.",
    scene="staged",
)
async def dot_dot(scene: Staged) -> str:
    up, secret = "../" * 30, str(scene.outside / "secret").lstrip("/")
    code = f"""
paths = [{up!r} + {secret!r}, "../outside/secret", "../../outside/secret",
         "folder/../../outside/secret"]
for path in paths:
    attempt(path, lambda: os.read(os.open(BASE + "/" + path, os.O_RDONLY), 1000))
folder = os.open(BASE, os.O_RDONLY)
for path in paths:
    attempt("at " + path, lambda: os.read(os.open(path, os.O_RDONLY, dir_fd=folder), 1000))
"""
    jail = await scene.jail(f"BASE = {str(scene.workspace)!r}\n{code}")
    root = await scene.root(f"BASE = {scene.exported(scene.workspace)!r}\n{code}")
    return " and ".join(refused(found, *NOT_THERE, at_least=8) for found in (jail, root))


@probe(
    "link-race",
    "paths",
    "A folder and a link to the host are exchanged, on both sides, while the guest opens files.",
    scene="staged",
    cites=("CVE-2018-15664", "CVE-2021-30465"),
)
async def link_race(scene: Staged) -> str:
    place = scene.workspace / "race"
    (place / "swap").mkdir(parents=True)
    (place / "swap" / "secret").write_text("harmless")
    (place / "link").symlink_to(scene.outside)
    stop = threading.Event()
    one, other = os.fsencode(place / "swap"), os.fsencode(place / "link")

    def swap() -> int:
        libc, swaps = ctypes.CDLL(None, use_errno=True), 0
        while not stop.is_set():
            # renameat2(2) with RENAME_EXCHANGE: there is always one of both.
            swaps += libc.renameat2(-100, one, -100, other, 2) == 0
        return swaps

    swapping = asyncio.create_task(asyncio.to_thread(swap), name="swap")
    try:
        found = await scene.root(
            f"base = {scene.exported(place)!r}\n{RACE}"
            f"outcome.update(as_user({scene.agent_id}, race))"
        )
    finally:
        stop.set()
        swaps = await swapping
    runnable(found)
    breach_if(scene.secret in found, "the guest read a file outside the shares")
    breach_if((scene.outside / "planted").exists(), "the guest made a file outside the shares")
    opened, lost = int(found.pop("harmless", 0)), sum(map(int, found.values()))
    tried_if(swaps > 100 and opened > 0 and lost > 0, "the race was not run")
    return f"{swaps} exchanges; {opened} opens reached the folder, {lost} nothing, none the host"


RACE = """
def race():
    seen, began = {}, time.monotonic()
    def count(name):
        seen[name] = seen.get(name, 0) + 1
    def enough():   # a while, and on a busy host until both have happened, in bounded time
        both = seen.get("harmless", 0) > 2 and sum(seen.values()) - seen.get("harmless", 0) > 2
        return time.monotonic() - began > (1.2 if both else 12)
    while not enough():
        try:
            fd = os.open(base + "/swap/secret", os.O_RDONLY)
            count(os.read(fd, 100).decode())
            os.close(fd)
            os.close(os.open(base + "/swap/planted", os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            count(errno.errorcode[error.errno])
        try:   # the guest's own exchange, too
            check(libc.renameat2(-100, (base + "/swap").encode(), -100,
                                 (base + "/link").encode(), 2))
        except OSError as error:
            count(errno.errorcode[error.errno])
    for name, times in seen.items():
        outcome[name] = str(times)
"""


@probe(
    "hard-link-across-shares",
    "paths",
    "A file of one share is linked into another, where it could be written.",
    scene="staged",
)
async def hard_links(scene: Staged) -> str:
    outcome = await scene.jail(f"""
attempt("into the workspace", os.link, "/mnt/shared/file", {str(scene.workspace)!r} + "/planted")
attempt("into a writable share", os.link, "/mnt/shared/file", "/mnt/writable/planted")
attempt("a program", os.link, "/usr/bin/env", "/mnt/writable/planted-program")
attempt("rename", os.rename, "/mnt/shared/other", "/mnt/writable/planted-other")
""")
    return refused(outcome, "EXDEV", "EROFS", "EPERM", "EACCES", at_least=4)


@probe(
    "masked-file",
    "unshared",
    "A masked file is read, written, moved and linked.",
    scene="staged",
)
async def masked_file(scene: Staged) -> str:
    outcome = await scene.jail(f"""
os.chdir({str(scene.workspace)!r})
with open(".env", "rb") as file:
    content = file.read()
attempt("write", lambda: os.close(os.open(".env", os.O_WRONLY)))
attempt("unlink", os.unlink, ".env")
attempt("rename", os.rename, ".env", "env")
attempt("link", os.link, ".env", "env")
if content:
    outcome["read"] = "done"
""")
    seen = refused(outcome, "EROFS", "EBUSY", "EXDEV", "EACCES", "EPERM", at_least=4)
    breach_if((scene.workspace / ".env").read_text() != scene.secret, "the masked file has changed")
    return f"{seen}; its content is not there"


@probe(
    "home-and-keys",
    "unshared",
    "The home's files, SSH keys, /etc's secrets, logs and /root are looked for.",
    scene="any",
)
async def home_and_keys(scene: Inside) -> str:
    home = scene.facts.user.home
    paths = [
        *("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh", "/etc/ssl/private"),
        *(f"{home}/{name}" for name in (".ssh", ".aws", ".netrc", ".profile", ".bash_history")),
        *("/root/.ssh", "/root/.bashrc", "/var/log", "/boot", "/run/user", "/sys/class"),
    ]
    shared = (str(scene.workspace), *(share.source for share in scene.spec.shares))
    paths = [p for p in dict.fromkeys(paths) if not p.startswith(shared)]
    tried_if([path for path in paths if os.path.exists(path)], "this host has none of them")
    jail = await scene.jail(f"for path in {paths!r}: attempt(path, os.stat, path)")
    seen = [refused(jail, *NOT_THERE, at_least=len(paths))]
    for export in ("/toolbox", "/agents/1/export"):
        code = f"for path in {paths!r}: attempt(path, os.stat, {export!r} + path)"
        seen.append(refused(await scene.root(code), *NOT_THERE, at_least=len(paths)))
    return f"{len(paths)} paths, in the jail and in both exports: {seen[0]}"


@probe(
    "sockets-of-the-host",
    "unshared",
    "Sockets of the host are looked for: Docker, D-Bus, SSH and GPG agents, X11, corral's own.",
    scene="any",
    cites=("CVE-2020-15257",),
)
async def sockets_of_the_host(scene: Inside) -> str:
    variables = ("SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "GPG_AGENT_INFO")
    paths = ["/var/run/docker.sock", "/run/docker.sock", "/run/dbus/system_bus_socket"]
    paths += ["/tmp/.X11-unix/X0", "/run/systemd/private", "/run/containerd/containerd.sock"]
    paths += [
        os.environ[name].removeprefix("unix:path=").partition(",")[0]
        for name in variables
        if os.environ.get(name, "").removeprefix("unix:path=").startswith("/")
    ]
    paths += [str(scene.sandbox.folder), str(scene.sandbox.folder.parent)]
    code = f"for path in {paths!r}: attempt(path, os.stat, PREFIX + path)"
    seen = refused(await scene.jail(f"PREFIX = ''\n{code}"), *NOT_THERE, at_least=len(paths))
    for prefix in ("/toolbox", "/agents/1/export"):
        refused(await scene.root(f"PREFIX = {prefix!r}\n{code}"), *NOT_THERE, at_least=len(paths))
    return f"in the jail and in both exports: {seen}"


@probe(
    "neighbours-of-the-workspace",
    "unshared",
    "The folders above the workspace and beside it are listed and read.",
    scene="staged",
)
async def neighbours(scene: Staged) -> str:
    base, secret = scene.workspace.parent, scene.outside / "secret"
    code = f"""
attempt("secret", os.stat, PREFIX + {str(secret)!r})
attempt("folder", os.listdir, PREFIX + {str(secret.parent)!r})
names = sorted(os.listdir(PREFIX + {str(base)!r}))
if "outside" in names:
    outcome["listed"] = "done"
"""
    jail = refused(await scene.jail(f"PREFIX = ''\n{code}"), *NOT_THERE, at_least=2)
    prefix = scene.exported("")
    refused(await scene.root(f"PREFIX = {prefix!r}\n{code}"), *NOT_THERE, at_least=2)
    return f"in the jail and in the export: {jail}"


@probe(
    "other-agents-id",
    "paths",
    "A process with the id of another agent enters the workspace and writes there.",
    scene="any",
)
async def other_agents_id(scene: Inside) -> str:
    base = scene.exported(scene.workspace)
    other = scene.agent_id + 1
    outcome = await scene.root(f"""
def intrude():
    attempt("create", lambda: os.close(os.open({base!r} + "/.corral-verify", 0o101, 0o600)))
    attempt("enter", os.listdir, {base!r})
outcome.update(as_user({other}, intrude))
""")
    made = scene.workspace / ".corral-verify"
    if made.exists():
        made.unlink()
        raise Breach("another agent's id made a file in the workspace")
    return refused(outcome, "EACCES", "EPERM", "EROFS", "EIO", at_least=2)


@probe(
    "workspace-is-the-hosts",
    "paths",
    "A scratch file of the host appears in the workspace and nowhere else (the control).",
    scene="any",
)
async def workspace_control(scene: Inside) -> str:
    scratch = scene.workspace / f".corral-verify-{os.getpid()}"
    try:
        scratch.write_text("scratch")
    except OSError as error:
        tried_if(False, f"no scratch file can be made in the workspace: {error.strerror}")
    try:
        outcome = await scene.jail(f"""
def read():
    with open({str(scratch)!r}) as file:
        if file.read() != "scratch":
            raise OSError(errno.EIO, "other content")
attempt("read", read)
""")
    finally:
        scratch.unlink()
    succeeded(outcome)
    return "the jail reads what the host wrote"
