"""Two agents of one machine: what a victim has, and what is tried to get at it. For the guest.

Both run the same: each has everything under the same names, with a text of its own. So what an
attacker finds under a name, or anywhere, is its own text (the control: that means works), another's
(a breach), or nothing.
"""

from __future__ import annotations

# What both programs use. x86_64 and aarch64 have System V's calls in libc.
COMMON = """
import ctypes, errno, glob, json, os, re, select, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.mq_open.restype = ctypes.c_int
KEY, PORT, NAME = 0x7777, 7777, b"/mine"
FOLDERS = [os.getcwd(), os.environ["HOME"], "/tmp", "/var/tmp", "/dev/shm", "/run"]
CALLS = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}[os.uname().machine]

AIO = {"x86_64": (206, 207), "aarch64": (0, 1)}[os.uname().machine]

def check(result, what=""):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result

def call(number, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    libc.syscall.restype = ctypes.c_long
    return check(libc.syscall(ctypes.c_long(number), *words))
"""

VICTIM = (
    COMMON
    + r"""
MINE = int(sys.argv[1])
SECRET = (f"secret-of-{MINE}-" * 3).encode()

def serve(listener):
    while True:
        client, _ = listener.accept()
        client.sendall(SECRET)
        client.close()

def listen(family, address):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(50)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()

for folder in FOLDERS:
    if os.access(folder, os.W_OK):
        with open(folder + "/mine", "wb") as file:
            file.write(SECRET)
        os.chmod(folder + "/mine", 0o666)
held = open("/tmp/mine", "rb")
shm = check(libc.shmget(KEY, 4096, 0o1666))
place = libc.shmat(shm, None, 0)
ctypes.memmove(place, SECRET, len(SECRET))
sem = check(libc.semget(KEY, 1, 0o1666))
check(libc.semctl(sem, 0, 16, ctypes.c_int(MINE)))          # SETVAL
queue = check(libc.msgget(KEY, 0o1666))
check(libc.msgsnd(queue, struct.pack("l", 1) + SECRET, len(SECRET), 0))
mq = check(libc.mq_open(NAME, os.O_CREAT | os.O_RDWR | os.O_NONBLOCK, 0o666, None))
check(libc.mq_send(mq, SECRET, len(SECRET), 0))
call(CALLS[0], b"user", b"mine", SECRET, len(SECRET), -4)   # add_key, the user's key ring
call(CALLS[0], b"user", b"mine", SECRET, len(SECRET), -5)   # the user's session
listen(socket.AF_UNIX, "\0mine")
listen(socket.AF_UNIX, "/tmp/mine.sock")
os.chmod("/tmp/mine.sock", 0o777)
listen(socket.AF_INET, ("127.0.0.1", PORT))
libc.prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)         # PR_SET_PTRACER_ANY: no help of Yama's
print("up", flush=True)

def works():
    "What anybody who works does: processes, files, memory; and what it had is there."
    began = time.monotonic()
    for fd in os.openpty() + os.pipe():
        os.close(fd)
    context = ctypes.c_ulong()
    call(AIO[0], 512, ctypes.byref(context))                 # io_setup
    call(AIO[1], context.value)                              # io_destroy
    for _ in range(5):
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    for folder in FOLDERS:
        if os.access(folder, os.W_OK):
            with open(folder + "/work", "wb") as file:
                file.write(bytes(1 << 18))
            os.unlink(folder + "/work")
            assert open(folder + "/mine", "rb").read() == SECRET, folder
    memory = bytearray(8 << 20)
    memory[::4096] = b"x" * len(memory[::4096])
    assert ctypes.string_at(place, len(SECRET)) == SECRET
    assert libc.semctl(sem, 0, 12) == MINE                  # GETVAL
    with socket.create_connection(("127.0.0.1", PORT), 10) as client:
        assert client.recv(100) == SECRET
    return time.monotonic() - began

for _line in sys.stdin:
    try:
        print("works", works(), flush=True)
    except BaseException as error:
        print("broken", repr(error), flush=True)
"""
)

# Prints {means: the numbers of those whose texts were found, or the errno's name}.
REACH = (
    COMMON
    + r"""
found = {}
def tells(name, action):
    numbers, problem = set(), ""
    try:
        for data in action():
            numbers |= set(re.findall(rb"secret-of-(\d)-", data or b""))
    except OSError as error:
        problem = errno.errorcode.get(error.errno, str(error))
    found[name] = ",".join(sorted(n.decode() for n in numbers)) or problem

def quietly(action, *arguments):
    try:
        return action(*arguments)
    except OSError:
        return b""

def content(path):
    with open(path, "rb") as file:
        return file.read(1000)

def contents(paths):
    return [quietly(content, path) for path in paths]

def pids():
    return [name for name in os.listdir("/proc") if name.isdigit()]

for folder in FOLDERS:
    if os.access(folder, os.W_OK):
        tells("file in " + ("the workspace" if folder == FOLDERS[0] else "the home"
              if folder == FOLDERS[1] else folder), lambda: [content(folder + "/mine")])

def everywhere():
    "Every file of that name, wherever it is, also behind other processes' roots and folders."
    roots = ["/"] + [f"/proc/{pid}/{name}" for pid in pids() for name in ("root", "cwd")]
    for root in roots:
        for at, folders, files in os.walk(root):
            depth = at[len(root):].count("/")
            skipped = ("usr", "proc", "sys", "opt", "nix", "etc")
            folders[:] = [f for f in folders if depth < 6 and not (depth == 0 and f in skipped)]
            yield from contents(f"{at}/{file}" for file in files if file.startswith("mine"))
tells("every file", everywhere)
tells("paths of the guest", lambda: contents(
    f"{base}/agents/{n}/{part}" for base in ("", "/proc/1/root", "..", "/agent", "/proc/1/cwd")
    for n in (1, 2) for part in ("export/workspace/mine", "own/upper/mine", "root/tmp/mine")))
tells("environment", lambda: contents(f"/proc/{pid}/environ" for pid in pids()))
tells("descriptors", lambda: contents(
    path for pid in pids() for path in quietly(glob.glob, f"/proc/{pid}/fd/*")
    if quietly(os.readlink, path)[:1] in ("/", b"/") and "mine" in quietly(os.readlink, path)))

def memory_of(pid, read):
    total = 0
    for line in quietly(content_all, f"/proc/{pid}/maps").decode(errors="replace").splitlines():
        words = line.split()
        if not words[1].startswith("rw") or len(words) > 5 and words[5].startswith("/usr"):
            continue
        first, last = (int(word, 16) for word in words[0].split("-"))
        size = min(last - first, 4 << 20)
        total += size
        if total < 24 << 20:
            yield quietly(read, pid, first, size)

def content_all(path):
    with open(path, "rb") as file:
        return file.read()

def by_file(pid, address, size):
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)

def by_call(pid, address, size):
    buffer = ctypes.create_string_buffer(size)
    ours = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), size)
    theirs = (ctypes.c_void_p * 2)(address, size)
    check(libc.process_vm_readv(int(pid), ours, 1, theirs, 1, 0))
    return buffer.raw

others = [pid for pid in pids() if int(pid) not in (os.getpid(), os.getppid())]
for name, read in (("memory by file", by_file), ("memory by call", by_call)):
    tells(name, lambda: (piece for pid in others for piece in memory_of(pid, read)))

def shared(segment):
    place = check_pointer(libc.shmat(segment, None, 0o10000))
    return ctypes.string_at(place, 200)

def check_pointer(place):
    if place in (None, ctypes.c_void_p(-1).value):
        check(-1)
    return place

def message(queue):
    buffer = ctypes.create_string_buffer(300)
    check(libc.msgrcv(queue, buffer, 200, 0, 0o4000))
    check(libc.msgsnd(queue, buffer.raw[:8] + buffer.raw[8:].rstrip(b"\0"),
                      len(buffer.raw[8:].rstrip(b"\0")), 0))
    return buffer.raw

def semaphore(number):
    return b"secret-of-%d-" % check(libc.semctl(number, 0, 12))

tells("shared memory by key", lambda: [shared(check(libc.shmget(KEY, 0, 0)))])
tells("semaphore by key", lambda: [semaphore(check(libc.semget(KEY, 0, 0)))])
tells("message queue by key", lambda: [message(check(libc.msgget(KEY, 0)))])
for name, take in (("shared memory", shared), ("semaphore", semaphore), ("message queue", message)):
    tells(name + " by number", lambda: [quietly(take, number) for number in range(300)])

def posix():
    mq = check(libc.mq_open(NAME, os.O_RDWR | os.O_NONBLOCK))
    buffer, priority = ctypes.create_string_buffer(8192), ctypes.c_uint()
    size = check(libc.mq_receive(mq, buffer, 8192, ctypes.byref(priority)))
    check(libc.mq_send(mq, buffer.raw[:size], size, 0))
    return [buffer.raw]
tells("POSIX message queue", posix)

def hears(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(5)
        client.connect(address)
        return client.recv(200)
tells("abstract socket", lambda: [hears(socket.AF_UNIX, "\0mine")])
tells("path socket", lambda: [hears(socket.AF_UNIX, "/tmp/mine.sock")])
tells("every socket that is listed", lambda: [
    quietly(hears, socket.AF_UNIX, name.replace("@", "\0", 1))
    for name in re.findall(r"\s(\S*mine\S*)$", content_all("/proc/net/unix").decode(), re.M)])
tells("loopback", lambda: [hears(socket.AF_INET, ("127.0.0.1", PORT))])
tells("every address of loopback", lambda: [
    quietly(hears, socket.AF_INET, (f"127.0.0.{n}", PORT)) for n in range(1, 5)])

def key(number):
    buffer = ctypes.create_string_buffer(200)
    check(call(CALLS[2], 11, number, buffer, 200))          # KEYCTL_READ
    return buffer.raw
def search(ring):
    return key(call(CALLS[2], 10, ring, b"user", b"mine", 0))
for name, ring in (("the user's key ring", -4), ("the session's key ring", -5)):
    tells(name, lambda: [search(ring)])
tells("every key that is listed", lambda: [
    quietly(key, int(line.split()[0], 16)) for line in content_all("/proc/keys").splitlines()])
tells("key rings of every user", lambda: [
    quietly(lambda: search(call(CALLS[2], 22, uid, -2))) for uid in (0, 1000, 2001, 2002)])
print(json.dumps(found))
"""
)

# Signals, ptrace and namespaces, by every process number that there could be.
SIGNALS = r"""
reached = []
# A thread's number is taken for its process's.
known = {int(name) for pid in os.listdir("/proc") if pid.isdigit()
         for name in os.listdir(f"/proc/{pid}/task")}
for pid in range(2, 6000):
    try:
        os.kill(pid, 0)
        reached.append(pid)
    except ProcessLookupError:
        continue
    except PermissionError:
        reached.append(-pid)
outcome["signals to others"] = "none" if set(map(abs, reached)) <= known else "some"
outcome["signals to its own"] = "some" if [p for p in reached if p > 0] else "none"
for kind in ("net", "mnt", "pid", "ipc", "user", "cgroup"):
    own = os.readlink(f"/proc/self/ns/{kind}")
    seen = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            seen.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            pass
    outcome["namespaces of " + kind] = "own" if seen == {own} else f"others: {seen}"
"""

# As root of the jail: what mounts give. None of it, also in a namespace of its own.
MOUNTS = r"""
def into_a_namespace():
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(0x10000000 | 0x20000 | 0x02000000))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)

def put(path, text):
    with open(path, "w") as file:
        file.write(text)

def tries(where):
    os.makedirs("/tmp/m", exist_ok=True)
    for tag in ("agent1", "agent2", "toolbox"):
        attempt(f"{tag} {where}", mount, tag, "/tmp/m", "virtiofs")
    attempt(f"export of 2 {where}", mount, "/agents/2/export", "/tmp/m", None, 4096)
    attempt(f"overlay of 2 {where}", mount, "overlay", "/tmp/m", "overlay", 0,
            "lowerdir=/agents/2/own/upper:/agents/2/root")
    attempt(f"shared, to be written {where}", mount, "none", "/shared", None, 4096 | 32)
    os.makedirs("/tmp/cg", exist_ok=True)
    try:
        mount("cgroup2", "/tmp/cg", "cgroup2")
    except OSError:
        return
    names = os.listdir("/tmp/cg")
    outcome[f"groups of others {where}"] = "some" if [n for n in names if "agent" in n] else "EPERM"
    for path in ("cgroup.kill", "agent-2/cgroup.kill", "memory.max", "pids.max", "cgroup.procs",
                 "cgroup.subtree_control"):
        attempt(f"{path} {where}", put, f"/tmp/cg/{path}", "1")
    libc.umount2(b"/tmp/cg", 2)

tries("in the jail")
inner = in_child(lambda: (into_a_namespace(), tries("in its own namespace")), 30)
outcome.update(inner)
for path in ("/shared/f", "/shared/new"):
    attempt("write " + path, put, path, "changed")
attempt("remove /shared/f", os.unlink, "/shared/f")
attempt("read /shared/f", lambda: open("/shared/f").read())
"""
