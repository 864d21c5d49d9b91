"""Programs for the guest: what serves attacks there, and what attacks have in common.

An attack is Python source that records each attempt in `outcome`: "done", or the errno's name. It
runs in a process of its own. Standard library only, and of that what the guest's own root has.
"""

from __future__ import annotations

# What every attack may use.
PRELUDE = """
import ctypes, errno, json, os, select, signal, socket, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
outcome = {}

def attempt(name, action, *arguments):
    try:
        action(*arguments)
        outcome[name] = "done"
    except OSError as error:
        outcome[name] = errno.errorcode.get(error.errno, str(error.errno or error))

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
    "What action records in a child that has this id and nothing of root."
    def become():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        action()
    return in_child(become, 60)

def in_child(action, seconds):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            os.setpgid(0, 0)
            outcome.clear()
            action()
            answer = outcome
        except BaseException as error:
            answer = {"broken": f"{type(error).__name__}: {error}"}
        view = memoryview(json.dumps(answer).encode() + b"\\n")
        while view:
            view = view[os.write(write, view):]
        os._exit(0)
    os.close(write)
    data, end = b"", time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([read], [], [], max(0, end - time.monotonic()))
        piece = os.read(read, 65536) if ready else b""
        data += piece
        if not piece or piece.endswith(b"\\n"):   # what it has started may go on
            break
    os.close(read)
    for target in (-pid, pid):
        try:
            os.kill(target, signal.SIGKILL)
        except OSError:
            pass
    os.waitpid(pid, 0)
    if not ready:
        return {"broken": f"it did not end within {seconds} seconds"}
    return json.loads(data) if data.endswith(b"\\n") else {"broken": "its process was ended"}
"""

# Attempts on a file tree that has `file`, `other`, `folder/`, `program`.
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
    place = libc.mmap(None, ctypes.c_size_t(4096), 3, 1, fd, ctypes.c_long(0))
    if place == ctypes.c_void_p(-1).value:
        os.close(fd)
        check(-1, path)
    ctypes.memmove(place, b"MMAP", 4)
    check(libc.msync(ctypes.c_void_p(place), ctypes.c_size_t(4096), 4))
    os.close(fd)

def reopened(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        put(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)

def by_handle(base, path, flags):
    "name_to_handle_at(2) and open_by_handle_at(2)."
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

def content(base):
    f = f"{base}/file"
    attempt("write", put, f, os.O_WRONLY)
    attempt("append", put, f, os.O_WRONLY | os.O_APPEND)
    attempt("truncate on open", put, f, os.O_WRONLY | os.O_TRUNC)
    attempt("truncate", os.truncate, f, 1)
    attempt("map shared", map_shared, f)
    attempt("reopen by /proc", reopened, f)

def names(base):
    f = f"{base}/file"
    attempt("create", put, f"{base}/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    attempt("mkdir", os.mkdir, f"{base}/newfolder")
    attempt("symlink", os.symlink, "file", f"{base}/newlink")
    attempt("hard link", os.link, f, f"{base}/hard")
    attempt("fifo", os.mkfifo, f"{base}/fifo")
    attempt("rename", os.rename, f"{base}/other", f"{base}/renamed")
    attempt("rename over", os.rename, f"{base}/renamed" if
            os.path.exists(f"{base}/renamed") else f"{base}/other", f)
    attempt("unlink", os.unlink, f"{base}/program")
    attempt("rmdir", os.rmdir, f"{base}/folder")

def metadata(base):
    f = f"{base}/file"
    attempt("chmod", os.chmod, f, 0o777)
    attempt("chown", os.chown, f, os.getuid(), os.getgid())
    attempt("utime", os.utime, f, (1, 1))
"""

# Reads one JSON line a program, answers one line with what it recorded.
SERVE = """
def serve():
    waiting = b""
    while True:
        while b"\\n" not in waiting:
            piece = os.read(0, 65536)
            if not piece:
                return
            waiting += piece
        line, _, waiting = waiting.partition(b"\\n")
        request = json.loads(line)
        def run():
            exec(compile(request["code"], "attack", "exec"), globals())
        answer = in_child(run, request["seconds"])
        view = memoryview(json.dumps(answer).encode() + b"\\n")
        while view:
            view = view[os.write(1, view):]
serve()
"""

PROGRAM = PRELUDE + WRITES + SERVE

# What should be every sandbox's own.
IDENTITY = """
with open("/proc/sys/kernel/random/boot_id") as file:
    outcome["boot id"] = file.read().strip()
outcome["random"] = os.urandom(32).hex()
outcome["host name"] = os.uname().nodename
try:
    with open("/etc/machine-id") as file:
        outcome["machine id"] = file.read().strip()
except OSError:
    pass
"""
