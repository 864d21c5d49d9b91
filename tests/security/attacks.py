"""Attacks as programs for the guest: what each attempt came to, by name, as JSON.

A program ends with `report()`, which prints {attempt: "done" or the name of the errno}. An attack
that fails must fail for the right reason, so tests compare errnos, and run the same attempts where
they are allowed.
"""

from __future__ import annotations

import json
from pathlib import Path

from corral.sandbox import Sandbox
from tests.support.sandboxes import Result, guest_root, python, succeeded

PRELUDE = """
import ctypes, errno, json, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
outcome = {}

def attempt(name, action, *arguments):
    try:
        action(*arguments)
        outcome[name] = "done"
    except OSError as error:
        outcome[name] = errno.errorcode.get(error.errno, str(error.errno))

def check(result, what=""):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result

def syscall(number, *arguments):
    converted = [a if isinstance(a, bytes) or a is None else ctypes.c_long(a) for a in arguments]
    return check(libc.syscall(ctypes.c_long(number), *converted))

def mount(source, target, kind, flags=0, data=None):
    names = [n.encode() if n is not None else None for n in (source, target, kind, data)]
    check(libc.mount(names[0], names[1], names[2], ctypes.c_ulong(flags), names[3]), target)

def as_user(uid, action):
    "Run action in a child with this id, keeping nothing of root; returns what it recorded."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            outcome.clear()
            action()
            os.write(write, json.dumps(outcome).encode())
        except BaseException as error:
            os.write(write, json.dumps({"broken": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text)

def report():
    print(json.dumps(outcome))
"""

# What can be tried on a file tree that has `file`, `other`, `folder/`, `program`.
WRITES = """
def put(path, flags, data=b"changed"):
    fd = os.open(path, flags, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)

def map_shared(path):
    fd = os.open(path, os.O_RDWR)
    libc.mmap.restype = ctypes.c_void_p
    place = libc.mmap(None, ctypes.c_size_t(4096), 3, 1, fd, ctypes.c_long(0))  # shared, writable
    if place == ctypes.c_void_p(-1).value:
        os.close(fd)
        check(-1, path)
    ctypes.memmove(place, b"MMAP", 4)
    check(libc.msync(ctypes.c_void_p(place), ctypes.c_size_t(4096), 4))
    os.close(fd)

def temporary(folder, name):
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o644)
    try:
        os.link(f"/proc/self/fd/{fd}", f"{folder}/{name}", follow_symlinks=True)
    finally:
        os.close(fd)

def by_handle(base, path, flags):
    "name_to_handle_at and open_by_handle_at, x86_64."
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount_id = ctypes.c_int()
    check(libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount_id), 0), path)
    folder = os.open(base, os.O_RDONLY)
    try:
        fd = check(libc.open_by_handle_at(folder, handle, flags), path)
        try:
            os.write(fd, b"handle")
        finally:
            os.close(fd)
    finally:
        os.close(folder)

def writes(base):
    f = f"{base}/file"
    attempt("write", put, f, os.O_WRONLY)
    attempt("append", put, f, os.O_WRONLY | os.O_APPEND)
    attempt("truncate on open", put, f, os.O_WRONLY | os.O_TRUNC)
    attempt("truncate", os.truncate, f, 1)
    attempt("map shared", map_shared, f)
    attempt("create", put, f"{base}/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    attempt("mkdir", os.mkdir, f"{base}/newfolder")
    attempt("symlink", os.symlink, "file", f"{base}/newlink")
    attempt("hard link", os.link, f, f"{base}/hard")
    attempt("fifo", os.mkfifo, f"{base}/fifo")
    attempt("temporary file", temporary, base, "linked")
    attempt("chmod", os.chmod, f, 0o777)
    attempt("chown", os.chown, f, os.getuid(), os.getgid())
    attempt("utime", os.utime, f, (1, 1))
    attempt("rename", os.rename, f"{base}/other", f"{base}/renamed")
    attempt("rename over", os.rename, f"{base}/renamed" if
            os.path.exists(f"{base}/renamed") else f"{base}/other", f)
    attempt("unlink", os.unlink, f"{base}/program")
    attempt("rmdir", os.rmdir, f"{base}/folder")
"""


async def from_guest_root(sandbox: Sandbox, code: str, **options: object) -> dict[str, str]:
    """The outcome of attempts made as the guest's root, outside every jail."""
    return _outcome(await guest_root(sandbox, PRELUDE + code + "\nreport()", **options))


async def from_jail(sandbox: Sandbox, code: str, **options: object) -> dict[str, str]:
    """The outcome of attempts made in the agent's jail."""
    return _outcome(await python(sandbox, PRELUDE + code + "\nreport()", **options))


def _outcome(result: Result) -> dict[str, str]:
    outcome = json.loads(succeeded(result).splitlines()[-1])
    assert isinstance(outcome, dict) and outcome, "the attack did not even run"
    return outcome


def tree(folder: Path) -> None:
    """What WRITES works on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("file", "other", "program"):
        (folder / name).write_text(f"{name}\n")
    (folder / "folder").mkdir()


def state(folder: Path) -> dict[str, object]:
    """Everything about a folder that an attack could change."""
    found: dict[str, object] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (
            status.st_mode,
            status.st_uid,
            status.st_ino,
            status.st_nlink,
            status.st_mtime_ns,
            status.st_ctime_ns,
            content,
        )
    return found


def refused(outcome: dict[str, str], *errnos: str) -> None:
    """Every attempt was made, and failed with one of these errnos."""
    wrong = {name: how for name, how in outcome.items() if how not in errnos}
    assert not wrong, f"not refused with {errnos}: {wrong}"
