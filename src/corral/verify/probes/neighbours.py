"""One agent against another in the same machine: both have the same, under the same names.

So what the first finds under a name is its own (the control: that means works), or the other's.
"""

from __future__ import annotations

from ..judging import breach_if, refused, runnable, succeeded, tried_if
from ..scenes import Networked
from .jail import JAIL, REFUSALS

probe = JAIL.probe

COMMON = """
KEY, PORT = 0x7333, 7333
libc.shmat.restype = ctypes.c_void_p
PLACES = ("/tmp/neighbour", "/dev/shm/neighbour", "/var/tmp/neighbour")

def text(data):
    words = [w for w in ("one", "two") if f"neighbour-{w}".encode() in (data or b"")]
    return ",".join(words)

def look(name, action):
    try:
        outcome[name] = ",".join(sorted({word for data in action() for word in text(data).split(",")
                                         if word}))
    except OSError as error:
        outcome[name] = errno.errorcode.get(error.errno, "error")

def quietly(action, *arguments):
    try:
        return action(*arguments)
    except OSError:
        return b""

def content(path):
    with open(path, "rb") as file:
        return file.read(100)
"""

# Each in a process of its own that stays for a minute.
SET_UP = (
    COMMON
    + """
MARK = b"neighbour-WHO"
def have():
    for path in PLACES:
        with open(path, "wb") as file:
            file.write(MARK)
        os.chmod(path, 0o666)
    shm = check(libc.shmget(KEY, 4096, 0o1666))
    ctypes.memmove(libc.shmat(shm, None, 0), MARK, len(MARK))
    queue = check(libc.msgget(KEY, 0o1666))
    check(libc.msgsnd(queue, struct.pack("l", 1) + MARK, len(MARK), 0))
    sem = check(libc.semget(KEY, 1, 0o1666))
    check(libc.semctl(sem, 0, 16, ctypes.c_int(3 if MARK.endswith(b"two") else 2)))

def serve():
    os.setsid()
    signal.alarm(60)
    libc.prctl(15, MARK, 0, 0, 0)
    listeners = [socket.socket(socket.AF_UNIX), socket.socket()]
    for listener, address in zip(listeners, ("\\0neighbour", ("127.0.0.1", PORT))):
        listener.bind(address)
        listener.listen(20)
    os.write(ready, b"x")
    while True:
        for listener in select.select(listeners, [], [])[0]:
            client, _ = listener.accept()
            client.send(MARK)
            client.close()

attempt("have", have)
wait, ready = os.pipe()
if os.fork() == 0:
    try:
        serve()
    finally:
        os._exit(1)
os.close(ready)
outcome["serve"] = "done" if os.read(wait, 1) else "it does not"
"""
)


async def both(scene: Networked) -> None:
    """Both agents have everything. Raises NotTried."""
    if not scene.neighbours:
        for runner, who in ((scene.jail, "one"), (scene.neighbour, "two")):
            succeeded(await runner(SET_UP.replace("WHO", who)), ("have", "serve"))
        scene.neighbours = True


async def own_only(scene: Networked, code: str) -> str:
    """What the first agent finds is its own, by every means. Raises Breach, NotTried."""
    await both(scene)
    found = await scene.jail(COMMON + code)
    runnable(found)
    others = [name for name, whose in found.items() if "two" in whose]
    breach_if(others, f"what is another agent's was found: {', '.join(others)}")
    missing = {name: whose for name, whose in found.items() if whose != "one"}
    tried_if(found and not missing, f"not even its own was found: {missing}")
    return f"by {len(found)} means only its own was found"


@probe(
    "neighbours-files",
    "neighbours",
    "An agent reads files of another, by their names or behind any process.",
    scene="network",
)
async def files(scene: Networked) -> str:
    return await own_only(
        scene,
        """
look("by name", lambda: map(content, PLACES))
roots = [f"/proc/{pid}/{name}" for pid in os.listdir("/proc") if pid.isdigit()
         for name in ("root", "cwd")]
look("behind processes", lambda: [quietly(content, root + path) for root in roots
                                  for path in PLACES])
look("everywhere", lambda: [quietly(content, f"{at}/{name}") for base in ("/tmp", "/dev/shm",
     "/var", "/run", "/agents", "/agent", "/home", "/root") for at, _, names in os.walk(base)
     for name in names if name.startswith("neighbour")])
""",
    )


@probe(
    "neighbours-processes",
    "neighbours",
    "An agent sees a process of another, or sends it a signal.",
    scene="network",
)
async def processes(scene: Networked) -> str:
    return await own_only(
        scene,
        """
pids = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
look("names", lambda: [quietly(content, f"/proc/{pid}/comm") for pid in pids])
reached = []
for pid in range(1, 5000):
    try:
        os.kill(pid, 0)
        reached.append(pid)
    except OSError:
        pass
outcome["signals"] = "one" if reached and set(reached) <= set(pids) else "two"
""",
    )


@probe(
    "neighbours-memory",
    "neighbours",
    "An agent finds shared memory, a semaphore or a message queue of another.",
    scene="network",
)
async def memory(scene: Networked) -> str:
    return await own_only(
        scene,
        """
def shared(number):
    place = libc.shmat(number, None, 0o10000)
    if place in (None, ctypes.c_void_p(-1).value):
        check(-1)
    return ctypes.string_at(place, 100)
def semaphore(number):
    return {2: b"neighbour-one", 3: b"neighbour-two"}.get(check(libc.semctl(number, 0, 12)), b"")
def message(number):
    buffer = ctypes.create_string_buffer(200)
    check(libc.msgrcv(number, buffer, 100, 0, 0o4000))
    size = len(buffer.raw[8:].rstrip(b"\\0"))
    check(libc.msgsnd(number, buffer.raw[:8 + size], size, 0))
    return buffer.raw
for name, take, get in (("memory", shared, lambda: libc.shmget(KEY, 0, 0)),
                        ("semaphore", semaphore, lambda: libc.semget(KEY, 0, 0)),
                        ("queue", message, lambda: libc.msgget(KEY, 0))):
    look(name, lambda: [take(check(get()))])
    look(name + " by number", lambda: [quietly(take, number) for number in range(100)])
""",
    )


@probe(
    "neighbours-sockets",
    "neighbours",
    "An agent connects to a socket of another, on loopback or by an abstract name.",
    scene="network",
)
async def sockets(scene: Networked) -> str:
    return await own_only(
        scene,
        """
def hears(family, address):
    with socket.socket(family) as client:
        client.settimeout(5)
        client.connect(address)
        return client.recv(100)
look("abstract", lambda: [hears(socket.AF_UNIX, "\\0neighbour")])
look("loopback", lambda: [hears(socket.AF_INET, ("127.0.0.1", PORT))])
""",
    )


@probe(
    "neighbours-mounts",
    "neighbours",
    "An agent mounts another's export by its tag, or changes its control group.",
    scene="network",
)
async def mounts(scene: Networked) -> str:
    tags = [agent.export.tag for agent in scene.plan.agents]
    control = await scene.root(f"""
os.makedirs("/neighbour", exist_ok=True)
attempt("mount", mount, {tags[1]!r}, "/neighbour", "virtiofs")
libc.umount2(b"/neighbour", 2)
outcome["group"] = "done" if os.path.isdir("/sys/fs/cgroup/agent-2") else "none"
""")
    succeeded(control, ("mount",))
    found = await scene.jail(f"""
os.makedirs("/tmp/m", exist_ok=True)
for tag in {tags!r}:
    attempt("mount " + tag, mount, tag, "/tmp/m", "virtiofs")
attempt("bind", mount, "/agents/2", "/tmp/m", None, 4096)
def put(path):
    with open(path, "w") as file:
        file.write("1")
for path in ("/sys/fs/cgroup/agent-2/cgroup.kill", "/sys/fs/cgroup/cgroup.procs"):
    attempt(path, put, path)
""")
    return refused(found, *REFUSALS, at_least=5)
