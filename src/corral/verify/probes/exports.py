"""Files: what is shared read-only stays so, what is not shared is not there."""

from __future__ import annotations

import os
import secrets
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
    shared = (scene.spec.workspace.path, *(share.source for share in scene.spec.shares))
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
    with open({scene.inside(scratch)!r}) as file:
        if file.read() != "scratch":
            raise OSError(errno.EIO, "other content")
attempt("read", read)
""")
    finally:
        scratch.unlink()
    succeeded(outcome)
    return "the jail reads what the host wrote"
