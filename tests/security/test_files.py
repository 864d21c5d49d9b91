"""What a guest gets of the host's files: only what is shared, and read-only stays read-only."""

from __future__ import annotations

import ctypes
import os
import random
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.plan.model import AGENT_UID_BASE, NOBODY
from corral.sandbox import Sandbox
from tests.security.attacks import (
    ALL_WRITES,
    WRITES,
    from_guest_root,
    from_jail,
    refused,
    state,
    tree,
)
from tests.support.sandboxes import guest_root, python, sandbox_on, shell, succeeded

AGENT = AGENT_UID_BASE + 1
SECRET = "the host's secret, in no share"
HOME = str(Path.home())


class Setting:
    """A sandbox on `workspace` with the share `shared` (read-only) and the tool folder `tool`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.workspace = base / "workspace"
        self.shared = base / "shared"
        self.tool = base / "tool"
        self.outside = base / "outside"
        for folder in (self.workspace, self.shared, self.tool, self.outside):
            tree(folder)
        (self.outside / "secret").write_text(SECRET)
        self.sandbox: Sandbox

    def exported(self, path: Path) -> str:
        """Where guest root sees a workspace path."""
        return f"/agents/1/export{path}"


@pytest.fixture(scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    found = Setting(tmp_path_factory.mktemp("files"))
    overrides = {
        "share": [f"{found.shared}:/mnt/shared", f"{found.outside / 'folder'}:/mnt/writable:rw"],
        "run.tools": [str(found.tool)],
        "workspace.mask": [".env"],
    }
    (found.workspace / ".env").write_text(SECRET)
    async with sandbox_on(found.workspace, overrides) as found.sandbox:
        yield found


@pytest.mark.parametrize("uid", [0, NOBODY, AGENT], ids=["root", "owner", "agent"])
async def test_guest_root_cannot_write_to_a_read_only_share_mounted_elsewhere(
    setting: Setting, uid: int
) -> None:
    before = state(setting.shared), state(setting.tool)
    outcome = await from_guest_root(
        setting.sandbox,
        WRITES
        + f"""
place = "/tmp/again-{uid}"
os.makedirs(place)
mount("toolbox", place, "virtiofs")
mount("toolbox", place, None, 32)   # MS_REMOUNT, writable
for base in ("/mnt/shared", {str(setting.tool)!r}):
    found = as_user({uid}, lambda: writes(place + base))
    outcome.update({{base + " " + name: how for name, how in found.items()}})
""",
    )
    assert len(outcome) == 2 * ALL_WRITES, outcome
    # The owner's id is the only one that means anything to the server; others fail earlier (with
    # EIO where virtiofsd itself forbids them, for the host's root).
    others = () if uid == NOBODY else ("EINVAL", "EPERM", "EACCES", "EIO")
    refused(outcome, "EROFS", "ENOTSUP", *others)
    assert (state(setting.shared), state(setting.tool)) == before


async def test_the_same_attempts_succeed_where_writing_is_allowed(setting: Setting) -> None:
    outcome = await from_guest_root(
        setting.sandbox,
        WRITES
        + f"""
outcome.update(as_user({AGENT}, lambda: writes({setting.exported(setting.workspace)!r})))
""",
    )
    assert outcome.pop("temporary file") in ("done", "ENOTSUP")  # the C daemon has no O_TMPFILE
    assert set(outcome.values()) == {"done"}, outcome
    assert len(outcome) == ALL_WRITES - 1
    assert not (setting.workspace / "program").exists(), "the control must have had an effect"


async def test_handles_do_not_open_read_only_files_for_writing(setting: Setting) -> None:
    outcome = await from_guest_root(
        setting.sandbox,
        WRITES
        + """
attempt("share", by_handle, "/toolbox/mnt/shared", "/toolbox/mnt/shared/file", os.O_RDWR)
attempt("programs", by_handle, "/toolbox/usr/bin", "/toolbox/usr/bin/arch", os.O_RDWR)
attempt("read", by_handle, "/toolbox/usr/bin", "/toolbox/usr/bin/arch", os.O_RDONLY)
""",
    )
    assert outcome.pop("read") in ("EBADF", "EOPNOTSUPP", "ESTALE")  # EBADF: opened, for reading
    refused(outcome, "EROFS", "EACCES", "EOPNOTSUPP", "ESTALE")
    assert (setting.shared / "file").read_text() == "file\n"


async def test_a_jail_cannot_make_a_read_only_share_writable(setting: Setting) -> None:
    before = state(setting.shared)
    outcome = await from_jail(
        setting.sandbox,
        WRITES
        + """
for flags, name in (
    (32, "remount"), (32 | 4096, "remount of the bind"), (32 | 4096 | 6, "the same, nosuid")
):
    attempt(name, mount, "none", "/mnt/shared", None, flags)
attempt("mount the tag", mount, "toolbox", "/tmp", "virtiofs")
attempt("mount another agent's tag", mount, "agent2", "/tmp", "virtiofs")
found = {}
saved = dict(outcome)
outcome.clear()
writes("/mnt/shared")
found = dict(outcome)
outcome.clear()
outcome.update(saved)
outcome.update({"write: " + name: how for name, how in found.items()})
""",
    )
    assert len(outcome) == ALL_WRITES + 5
    refused(outcome, "EROFS", "EPERM", "EACCES", "EINVAL", "EBUSY", "ENODEV", "ENOTSUP")
    # Root may take mounts of its own jail away; below is its own copy, not the host's.
    await from_jail(
        setting.sandbox,
        WRITES
        + """
attempt("own mounts", lambda: check(libc.unshare(0x20000)))
attempt("unmount", lambda: check(libc.umount2(b"/mnt/shared", 2)))
writes("/mnt/shared")
""",
    )
    assert state(setting.shared) == before


async def test_programs_can_be_replaced_in_the_sandbox_and_stay_as_they_are_on_the_host(
    setting: Setting,
) -> None:
    before = os.stat("/usr/bin/arch")
    text = "echo replaced > /usr/bin/arch && cat /usr/bin/arch"
    if os.getuid() == 0:  # its root; an ordinary user may not, even in its own copy
        assert succeeded(await shell(setting.sandbox, text)) == "replaced\n"
    else:
        assert (await shell(setting.sandbox, text)).status != 0
    outcome = await from_guest_root(
        setting.sandbox,
        f"""
def change():
    attempt("write", lambda: os.close(os.open("/toolbox/usr/bin/arch", os.O_WRONLY)))
    attempt("unlink", os.unlink, "/toolbox/usr/bin/arch")
    attempt("create", lambda: os.close(os.open("/toolbox/usr/bin/planted", 0o101)))
outcome.update(as_user({NOBODY}, change))
""",
    )
    refused(outcome, "EROFS", "EACCES")
    after = os.stat("/usr/bin/arch")
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


async def test_no_set_id_file_and_no_device_reaches_the_host(setting: Setting) -> None:
    code = f"""
import stat as s
base = BASE
def make(name, flags, mode):
    os.close(os.open(f"{{base}}/{{name}}", flags, mode))
def plain(name):
    make(name, os.O_CREAT | os.O_WRONLY, 0o755)
    return f"{{base}}/{{name}}"
def all_of_it():
    os.umask(0)
    for bits in (0o4755, 0o2755, 0o6755, 0o7777):
        attempt(f"chmod {{bits:o}}", os.chmod, plain(f"chmod{{bits:o}}"), bits)
        fd = os.open(plain(f"fchmod{{bits:o}}"), os.O_RDWR)
        attempt(f"fchmod {{bits:o}}", os.fchmod, fd, bits)
        os.close(fd)
        # fchmodat2 is younger than some kernels: then it is not an attack.
        at = plain(f"at{{bits:o}}").encode()
        attempt(f"fchmodat2 {{bits:o}}", syscall, 452, -100, at, bits, 0)
        attempt(f"open {{bits:o}}", make, f"open{{bits:o}}", os.O_CREAT | os.O_WRONLY, bits)
        attempt(f"creat {{bits:o}}", syscall, 85, f"{{base}}/creat{{bits:o}}".encode(), bits)
        attempt(f"mknod {{bits:o}}", os.mknod, f"{{base}}/node{{bits:o}}", s.S_IFREG | bits)
    os.mkdir(f"{{base}}/inner")
    attempt("chmod folder", os.chmod, f"{{base}}/inner", 0o6755)
    def unnamed():
        fd = os.open(base, os.O_TMPFILE | os.O_RDWR, 0o6755)
        os.link(f"/proc/self/fd/{{fd}}", f"{{base}}/unnamed", follow_symlinks=True)
    attempt("O_TMPFILE", unnamed)
    attempt("character device", os.mknod, f"{{base}}/mem", s.S_IFCHR | 0o666, os.makedev(1, 1))
    attempt("block device", os.mknod, f"{{base}}/disk", s.S_IFBLK | 0o666, os.makedev(254, 0))
    attempt("fifo 6755", os.mknod, f"{{base}}/fifo6755", s.S_IFIFO | 0o6755)
    # cap_setuid+ep for version 2, and for version 3 with the agent's id as the namespace's root.
    capability = struct.pack("<IIIII", 0x02000001, 0x80, 0, 0, 0)
    path = plain("capable")
    attempt("capability", os.setxattr, path, "security.capability", capability)
    scoped = struct.pack("<IIIIII", 0x03000001, 0x80, 0, 0, 0, {AGENT})
    attempt("scoped capability", os.setxattr, path, "security.capability", scoped)
    attempt("other attribute", os.setxattr, path, "user.note", b"x")
"""
    for who, base in (("jail", setting.workspace / "jail"), ("guest", setting.workspace / "guest")):
        base.mkdir()
        if who == "jail":
            text = code.replace("BASE", repr(str(base))) + "all_of_it()"
            outcome = await from_jail(setting.sandbox, text)
        else:
            text = code.replace("BASE", repr(setting.exported(base)))
            text += f"outcome.update(as_user({AGENT}, all_of_it))"
            outcome = await from_guest_root(setting.sandbox, text)
        assert "broken" not in outcome, outcome
        assert len(outcome) == 32
        tried = {name: how for name, how in outcome.items() if how == "done"}
        # An open or mknod may succeed when a kernel on the way has dropped the bits.
        assert all(name.split()[0] in ("open", "creat", "mknod", "fifo") for name in tried), tried
        found = [path for path in base.rglob("*") if path.lstat().st_mode & 0o6000]
        assert not found, f"set-id files on the host: {found}"
        devices = [
            path
            for path in base.rglob("*")
            if stat.S_ISCHR(path.lstat().st_mode) or stat.S_ISBLK(path.lstat().st_mode)
        ]
        assert not devices
        assert (base / "capable").exists(), "the attack must have been made"
        assert "security.capability" not in os.listxattr(base / "capable")


async def test_fifos_and_sockets_are_only_files_of_the_workspace(setting: Setting) -> None:
    """A guest can make them, like anybody; they connect nothing with the host."""
    succeeded(
        await python(
            setting.sandbox,
            "import os, socket; os.mkfifo('pipe'); s = socket.socket(socket.AF_UNIX);"
            "s.bind('socket'); s.listen(); os.chmod('socket', 0o777)",
        )
    )
    import socket

    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(str(setting.workspace / "socket"))
    with pytest.raises(OSError, match="No such device"):
        os.open(setting.workspace / "pipe", os.O_WRONLY | os.O_NONBLOCK)  # the guest has no reader
    for name in ("pipe", "socket"):
        (setting.workspace / name).unlink()


async def test_links_out_of_a_share_lead_nowhere_on_the_host(setting: Setting) -> None:
    planted = setting.workspace / "links"
    planted.mkdir()
    secret = setting.outside / "secret"
    up = "../" * 30
    targets = {
        "absolute": str(secret),
        "relative": "../../outside/secret",
        "deep": up + str(secret).lstrip("/"),
        "shadow": "/etc/shadow",
        "processes": "/proc/1/root" + str(secret),
        "folder": str(setting.outside),
    }
    for name, target in targets.items():
        (planted / f"host-{name}").symlink_to(target)
    assert (planted / "host-absolute").read_text() == SECRET, "it does lead there on the host"
    code = f"""
names = {list(targets.items())!r}
for name, target in names:
    os.symlink(target, f"{{base}}/{{who}}-{{name}}")
for maker in ("host", who):
    for name, target in names:
        path = f"{{base}}/{{maker}}-{{name}}"
        attempt(f"read {{maker}} {{name}}", lambda: os.read(os.open(path, os.O_RDONLY), 1000))
        attempt(f"below {{maker}} {{name}}", lambda: os.listdir(path + "/."))
        attempt(f"write {{maker}} {{name}}", lambda: os.open(path + "/x", os.O_CREAT | os.O_WRONLY))
for path in ("{up}{str(secret).lstrip("/")}", "..//outside/secret", "../../outside/secret"):
    attempt("read " + path, lambda: os.read(os.open(f"{{base}}/{{path}}", os.O_RDONLY), 1000))
"""
    jail = await from_jail(setting.sandbox, f"who, base = 'jail', {str(planted)!r}\n" + code)
    # /etc/shadow, /proc/1/root are the jail's own, and not to be had there either.
    refused(jail, "ENOENT", "EACCES", "ENOTDIR")
    base = setting.exported(planted)
    guest = await from_guest_root(
        setting.sandbox,
        f"who, base = 'guest', {base!r}\n"
        f"def links():\n{_indented(code)}\noutcome.update(as_user({AGENT}, links))",
    )
    refused(guest, "ENOENT", "EACCES", "ENOTDIR")
    assert len(jail) == len(guest) == 39


def _indented(code: str) -> str:
    return "\n".join("    " + line for line in code.splitlines())


async def test_swapping_folders_and_links_during_access_never_leads_out(setting: Setting) -> None:
    """Both sides exchange a folder and a link to the host's secret as fast as they can."""
    place = setting.workspace / "race"
    (place / "swap").mkdir(parents=True)
    (place / "swap" / "secret").write_text("harmless")
    (place / "link").symlink_to(setting.outside)
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        libc = ctypes.CDLL(None, use_errno=True)
        one, other = os.fsencode(place / "swap"), os.fsencode(place / "link")
        while not stop.is_set():
            # renameat2(2) with RENAME_EXCHANGE: there is never neither.
            swaps += libc.renameat2(-100, one, -100, other, 2) == 0
            if swaps % 16 == 0:  # so that the two do not fall into step
                time.sleep(random.random() / 200)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        found = await from_guest_root(
            setting.sandbox,
            f"""
import collections, time
base = {setting.exported(place)!r}
seen = collections.Counter()
def race():
    end = time.monotonic() + 4
    while time.monotonic() < end:
        try:
            fd = os.open(base + "/swap/secret", os.O_RDONLY)
            seen[os.read(fd, 100).decode()] += 1
            os.close(fd)
        except OSError as error:
            seen[errno.errorcode[error.errno]] += 1
        try:
            os.close(os.open(base + "/swap/planted", os.O_CREAT | os.O_WRONLY, 0o600))
            seen["created"] += 1
        except OSError as error:
            seen[errno.errorcode[error.errno]] += 1
        if os.urandom(1)[0] & 1:
            continue
        try:   # the guest's own exchange, too
            check(libc.renameat2(-100, (base + "/swap").encode(), -100,
                                 (base + "/link").encode(), 2))
            seen["exchanged"] += 1
        except OSError as error:
            seen[errno.errorcode[error.errno]] += 1
    for name, count in seen.items():
        outcome[name] = str(count)
outcome.update(as_user({AGENT}, race))
""",
        )
    finally:
        stop.set()
        thread.join()
    assert swaps > 1000
    assert SECRET not in found
    assert int(found.get("harmless", 0)) > 10, f"the race was never won nor run: {found}"
    assert sum(int(n) for name, n in found.items() if name in ("ENOENT", "ELOOP", "ESTALE")) > 10
    assert not (setting.outside / "planted").exists()


async def test_nothing_else_of_the_host_is_there(setting: Setting) -> None:
    (setting.base / "marker").touch()
    code = f"""
for name, path in (("shadow", "/etc/shadow"), ("gshadow", "/etc/gshadow"),
                   ("sudoers", "/etc/sudoers"),
                   ("host keys", "/etc/ssh"), ("private keys", "/etc/ssl/private"),
                   ("ssh", {HOME!r} + "/.ssh"), ("profile", {HOME!r} + "/.profile"),
                   ("root's", "/root/.bashrc"), ("logs", "/var/log"), ("sys", "/sys/class"),
                   ("runtime", "/run/user"), ("docker", "/var/run/docker.sock"),
                   ("sibling", {str(setting.outside)!r} + "/secret"),
                   ("parent", {str(setting.base)!r} + "/marker"),
                   ("corral's state", {os.environ["CORRAL_STATE_DIR"]!r})):
    attempt(name, os.stat, prefix + path)
"""
    refused(await from_jail(setting.sandbox, "prefix = ''\n" + code), "ENOENT", "EACCES")
    for prefix in ("/toolbox", "/agents/1/export"):
        guest = await from_guest_root(
            setting.sandbox, f"prefix = {prefix!r}\n" + code + "attempt('usr', os.stat, prefix)"
        )
        assert guest.pop("usr") == "done"
        refused(guest, "ENOENT", "EACCES")


async def test_nothing_can_be_written_beside_the_shares(setting: Setting) -> None:
    """What holds the shares together is the host's memory: filling it would starve the host."""
    parent = setting.exported(setting.base)
    outcome = await from_guest_root(
        setting.sandbox,
        WRITES
        + f"""
def beside(*folders):
    for folder in folders:
        attempt("file in " + folder, put, folder + "/planted", os.O_WRONLY | os.O_CREAT)
        attempt("folder in " + folder, os.mkdir, folder + "/plantedfolder")
    attempt("rename", os.rename, folders[-1], folders[-1] + ".away")
outcome.update(as_user({AGENT}, lambda: beside(
    "/agents/1/export", "/agents/1/export/mnt",
    {setting.exported(setting.base.parent)!r}, {parent!r}
)))
outcome.update(as_user({NOBODY}, lambda: beside("/toolbox", "/toolbox/etc", "/toolbox/mnt")))
""",
    )
    assert len(outcome) == 2 * (4 + 3) + 1
    refused(outcome, "EROFS")


async def test_a_masked_file_stays_masked(setting: Setting) -> None:
    masked = setting.workspace / ".env"
    result = await shell(setting.sandbox, "cat .env; stat -c %s .env")
    assert succeeded(result) == "0\n"
    outcome = await from_jail(
        setting.sandbox,
        """
attempt("write", lambda: os.close(os.open(".env", os.O_WRONLY)))
attempt("unlink", os.unlink, ".env")
attempt("rename", os.rename, ".env", "env")
attempt("link", os.link, ".env", "env")
""",
    )
    refused(outcome, "EROFS", "EBUSY", "EXDEV", "EACCES", "EPERM")
    assert masked.read_text() == SECRET


async def test_no_variable_of_the_host_is_in_the_guest(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "CORRAL", "PWD", "SHLVL", "_"}
    inside = {
        line.partition("=")[0]
        for line in succeeded(await shell(setting.sandbox, "env")).splitlines()
    }
    assert inside - names == {name for name in os.environ if name.startswith("LC_")}
    text = succeeded(
        await guest_root(
            setting.sandbox,
            "import os\n"
            "print(open('/proc/cmdline').read())\n"
            "print(open('/proc/1/environ').read())\n"
            "print(open('/proc/1/cmdline').read())",
        )
    )
    private = {v for k, v in os.environ.items() if len(v) > 12 and k not in ("PATH", "LANG")}
    assert not [value for value in private if value in text]
    assert HOME not in text or HOME == "/"
