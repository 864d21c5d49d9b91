"""Agent 1 against agent 2, hostile neighbours in one machine; 2 has and does the same as 1.

Without a seccomp profile, as what is below it has to hold. Each means is tried on the attacker's
own things, too, under the same names: that it works there is the control.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator

import pytest

from corral.channel import Execution
from corral.errors import CorralError
from corral.gateway.config import TRANSCRIPT
from corral.sandbox import Sandbox
from corral.sandbox.gateway import gateway_folder
from corral.scripted import Models, Reply
from tests.security.attacks import from_guest_root, from_jail, refused
from tests.security.neighbours import MOUNTS, REACH, SIGNALS, VICTIM
from tests.support.gateways import configure
from tests.support.herds import herd_on
from tests.support.sandboxes import python, shell, succeeded

USERS = ["own", "root"] if os.getuid() else ["root"]
SIZES = {"herd.memory": "160MiB", "herd.pids": 120, "herd.home": "12MiB", "herd.tmp": "12MiB"}
PATIENCE = 25.0  # seconds in which a neighbour gets its work done, under emulation


class Victim:
    """An agent's process that has something of everything, and works when it is asked to."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._rest = b""

    async def line(self, timeout: float = PATIENCE) -> str:
        """The next line that it says."""
        async with asyncio.timeout(timeout):
            while b"\n" not in self._rest:
                data = await self._execution.stdout.read()
                assert data, "the victim is gone"
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def works(self) -> None:
        """Have it do some work, and look at whether it has all that it had."""
        await self._execution.stdin.write(b"\n")
        said = await self.line()
        assert said.startswith("works "), said


async def begin(sandbox: Sandbox, agent: int) -> Victim:
    """Start one as an agent."""
    words = ("python3", "-c", VICTIM, str(agent))
    own = {"MINE": f"secret-of-{agent}-"}
    victim = Victim(await sandbox.exec(words, agent=agent, environment=own))
    assert await victim.line(60) == "up"
    return victim


class Setting:
    """A machine with two agents that both work; the victim is 2's. models: behind its gateway."""

    def __init__(
        self, user: str, sandbox: Sandbox, own: Victim, victim: Victim, models: Models
    ) -> None:
        self.user, self.sandbox, self.models = user, sandbox, models
        self.own, self.victim = own, victim

    def billed(self) -> list[tuple[int, str]]:
        """(agent, kind) of each record of the gateway, in order."""
        path = gateway_folder(self.sandbox.plan.name) / TRANSCRIPT
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return [(record["agent"], record["kind"]) for record in records]


@pytest.fixture(scope="module", params=USERS)
async def setting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Setting]:
    base = tmp_path_factory.mktemp("neighbours")
    for folder in ("project", "shared"):
        (base / folder).mkdir()
        (base / folder / "f").write_text("content")
    overrides = {
        **SIZES,
        "machine.memory": "768MiB",
        "herd.shared": str(base / "shared"),
        "network.gateways": ["anthropic"],
        "run.seccomp": "none",
        **({"run.user": "root"} if request.param == "root" else {}),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORRAL_CONFIG_DIR", str(base / "config"))
        async with Models() as models:
            configure(models, base, {"anthropic": "agent_budget_usd = 1"})
            async with herd_on(base / "project", base / "state", 2, overrides) as sandbox:
                own, victim = await begin(sandbox, 1), await begin(sandbox, 2)
                yield Setting(request.param, sandbox, own, victim, models)


async def reach(sandbox: Sandbox, agent: int) -> dict[str, str]:
    found = json.loads(succeeded(await python(sandbox, REACH, agent=agent, timeout=100)))
    assert isinstance(found, dict)
    return found


async def test_by_no_means_is_anything_of_another_agents_reached(setting: Setting) -> None:
    """Files, roots of processes, memory, System V and POSIX, sockets, loopback, key rings."""
    found = await reach(setting.sandbox, 1)
    # Not a way for anybody: others' paths in the guest, and key rings by a user's number.
    for nowhere in ("paths of the guest", "key rings of every user"):
        assert "2" not in found.pop(nowhere)
    assert len(found) >= 24
    assert found == dict.fromkeys(found, "1")
    await setting.victim.works()


async def test_what_1_has_is_not_2s_either(setting: Setting) -> None:
    """The control: the same program, asked by the other, finds the other's things."""
    found = await reach(setting.sandbox, 2)
    assert {number for number in found.values() if number.isdigit()} == {"2"}


async def test_the_guests_root_finds_what_both_have(setting: Setting) -> None:
    """So it is there to be found, in the folders and the memory of this machine."""
    code = """
places = [f"/agents/{agent}/export/workspace/mine" for agent in (1, 2)]
places += [f"/proc/{pid}/root/tmp/mine" for pid in os.listdir("/proc") if pid.isdigit()]
found = set()
for place in places:
    try:
        with open(place) as file:
            found.add(file.read(12))
    except OSError:
        continue
outcome["found"] = ",".join(sorted(found))
attempt("mount", lambda: (os.makedirs("/m", exist_ok=True), mount("agent2", "/m", "virtiofs")))
"""
    assert await from_guest_root(setting.sandbox, code) == {
        "found": "secret-of-1-,secret-of-2-",
        "mount": "done",
    }


async def test_no_signal_reaches_another_agent_and_none_of_its_namespaces_is_seen(
    setting: Setting,
) -> None:
    outcome = await from_jail(setting.sandbox, SIGNALS)
    assert outcome.pop("signals to others") == "none"
    assert outcome.pop("signals to its own") == "some"
    assert outcome == dict.fromkeys(outcome, "own") and len(outcome) == 6
    await setting.victim.works()


async def test_no_mount_gives_an_agent_what_is_anothers(setting: Setting) -> None:
    """Exports by their tags, overlays, control groups; nor is /shared to be written."""
    outcome = await from_jail(setting.sandbox, MOUNTS)
    assert outcome.pop("read /shared/f") == "done"
    assert len(outcome) >= 14
    refused(
        outcome, "EPERM", "EACCES", "ENODEV", "ENOENT", "EROFS", "EINVAL", "EBUSY", "EOPNOTSUPP"
    )
    assert succeeded(await shell(setting.sandbox, "cat /shared/f", agent=2)) == "content"
    await setting.victim.works()


TERMINALS = """
import fcntl, glob
for place in sorted(glob.glob("/dev/pts/*") + glob.glob("/proc/[0-9]*/fd/*")):
    if not os.path.exists(place) or not os.path.realpath(place).startswith("/dev/pts/"):
        continue
    if place.endswith("ptmx"):
        continue
    fd = os.open(place, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    os.write(fd, b"INJECTED")
    for number in (0x5412, 0x541C):   # TIOCSTI, TIOCLINUX
        for letter in b"echo TYPED\\n":
            attempt(f"type {number:#x}", fcntl.ioctl, fd, number, bytes([letter]))
    outcome["a terminal"] = "done"
"""


async def test_nothing_is_typed_or_written_into_another_agents_terminal(setting: Setting) -> None:
    screens = {}
    shells = {}
    for agent in (1, 2):
        shells[agent] = await setting.sandbox.exec(["cat"], agent=agent, terminal=(24, 80))
        await shells[agent].stdin.write(f"cat of {agent}\n".encode())
        screens[agent] = b""
        while b"cat of %d\r\ncat of %d\r\n" % (agent, agent) not in screens[agent]:
            screens[agent] += await asyncio.wait_for(shells[agent].stdout.read(), PATIENCE)
    outcome = await from_jail(setting.sandbox, TERMINALS)
    assert outcome.pop("a terminal") == "done", "its own is there, and can be written"
    refused(outcome, "EPERM")
    for agent in (1, 2):
        await shells[agent].stdin.write(b"\x04")
        while data := await shells[agent].stdout.read():
            screens[agent] += data
    assert b"INJECTED" in screens[1] and b"TYPED" not in screens[1]
    assert b"INJECTED" not in screens[2] and b"TYPED" not in screens[2]


ASK = """
import json, os, sys, urllib.error, urllib.request
def ask(headers={}, path="/v1/messages"):
    body = {"model": "claude-opus-5", "max_tokens": 9, "messages": [], "agent": 2,
            "metadata": {"user_id": "2", "agent": 2}}
    request = urllib.request.Request(
        os.environ["ANTHROPIC_BASE_URL"] + path, json.dumps(body).encode(),
        {"content-type": "application/json", "x-api-key": os.environ["ANTHROPIC_API_KEY"],
         **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return f"{error.code} {'is spent' in error.read().decode()}"
"""
AS_ANOTHER = (
    ASK
    + """
names = ("Agent", "X-Agent", "X-Corral-Agent", "Corral-Agent", "X-Forwarded-For", "Forwarded")
print([ask({name: "2"}) for name in names] + [ask(path="/v1/messages?agent=2")])
"""
)


async def test_what_an_agent_asks_of_a_model_is_billed_to_it_and_to_nobody_else(
    setting: Setting,
) -> None:
    price = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
    setting.models.replies.append(Reply(usage=price))
    spends = f"{ASK}\nprint(ask(), ask())"
    assert succeeded(await python(setting.sandbox, spends, agent=1)) == "200 400 True\n"
    # It says that it is the other: its own budget is asked, and that is spent.
    said = succeeded(await python(setting.sandbox, AS_ANOTHER, agent=1))
    assert said == str(["400 True"] * 7) + "\n"
    assert {agent for agent, _kind in setting.billed()} == {1}
    assert succeeded(await python(setting.sandbox, f"{ASK}\nprint(ask())", agent=2)) == "200\n"
    assert [agent for agent, _kind in setting.billed()][-2:] == [2, 2]


# Exhaustion: agent 1 takes all of something, agent 2 goes on working meanwhile.

FORKS = """
import sys
made = 0
try:
    while made < 4000:
        if os.fork() == 0:
            signal.pause()
        made += 1
except OSError as error:
    print("stopped", errno.errorcode[error.errno], made < 200, flush=True)
sys.stdin.read()
os.killpg(0, signal.SIGKILL)
"""
EATS = """
print("begins", flush=True)
pieces = []
while True:
    pieces.append(bytearray(b"x" * (4 << 20)))
"""
FILLS = """
stopped = {}
for folder in (os.environ["HOME"], "/tmp"):
    try:
        with open(folder + "/full", "wb", buffering=0) as file:
            while file.tell() < 64 << 20:
                file.write(bytes(1 << 20))
        stopped[folder] = "no"
    except OSError as error:
        stopped[folder] = errno.errorcode[error.errno]
print("stopped", *stopped.values(), flush=True)
sys.stdin.read()
for folder in stopped:
    os.unlink(folder + "/full")
"""
INODES = """
os.mkdir("/dev/shm/i")
number = 0
try:
    end = time.monotonic() + 12
    while time.monotonic() < end:
        os.close(os.open(f"/dev/shm/i/{number}", os.O_CREAT | os.O_WRONLY))
        number += 1
except OSError:
    pass
print("stopped", number > 1000, flush=True)
sys.stdin.read()
os.execvp("rm", ["rm", "-rf", "/dev/shm/i"])
"""
FLOODS = """
print("begins", flush=True)
while True:
    os.write(1, b"x" * 65536)
"""
SPINS = """
for _ in range(8):
    if os.fork() == 0:
        while True:
            pass
print("begins", flush=True)
sys.stdin.read()
"""
HEAD = """
import ctypes, errno, os, resource, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
def taken(what, path, most):
    "Take all that there are, up to a number."
    number = 0
    try:
        while number < most:
            os.open(path, os.O_RDWR | os.O_NOCTTY)
            number += 1
    except OSError as error:
        print(what, number, error, file=sys.stderr)
    return number
"""
# As many as the kernel would let all together have in a machine of this size, by itself.
OPENS = """
print("stopped", taken("files", "/dev/null", 90000) > 0, flush=True)
sys.stdin.read()
"""
TERMINALS_TAKEN = """
print("stopped", 200 < taken("terminals", "/dev/ptmx", 20000) <= 256, flush=True)
sys.stdin.read()
"""
OWN_TERMINALS = """
uid, gid = os.getuid(), os.getgid()
assert libc.unshare(0x10000000 | 0x20000) == 0, ctypes.get_errno()
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
os.mkdir("/tmp/terminals")
assert libc.mount(b"devpts", b"/tmp/terminals", b"devpts", 0, b"ptmxmode=666") == 0, (
    ctypes.get_errno())
print("stopped", taken("terminals", "/tmp/terminals/ptmx", 20000) > 200, flush=True)
sys.stdin.read()
os.rmdir("/tmp/terminals") if libc.umount2(b"/tmp/terminals", 2) == 0 else None
"""
CONTEXTS = """
number = {"x86_64": 206, "aarch64": 0}[os.uname().machine]
made = 0
while made < 40 and libc.syscall(number, 4000, ctypes.byref(ctypes.c_ulong())) == 0:
    made += 1
print("stopped", made > 10, flush=True)
sys.stdin.read()
"""
EXHAUSTIONS: dict[str, tuple[str, str]] = {
    "processes": (FORKS, "stopped EAGAIN True"),
    "room": (FILLS, "stopped ENOSPC ENOSPC"),
    "inodes": (INODES, "stopped True"),
    "output": (FLOODS, "begins"),
    "processors": (SPINS, "begins"),
    "open files": (OPENS, "stopped True"),
    "terminals": (TERMINALS_TAKEN, "stopped True"),
    "terminals of its own": (OWN_TERMINALS, "stopped True"),
    "input and output": (CONTEXTS, "stopped True"),
    "memory": (EATS, "begins"),
}


@pytest.mark.parametrize("what", EXHAUSTIONS)
async def test_who_takes_all_of_something_harms_only_itself(setting: Setting, what: str) -> None:
    if setting.user != USERS[0]:
        pytest.skip("limits know no users: it was tried as the other one")
    code, said = EXHAUSTIONS[what]
    # Its own victim would be ended with it by some: it has none then.
    attacker = await setting.sandbox.exec(["python3", "-c", HEAD + code], agent=1)
    first = Victim(attacker)
    if what != "output":
        assert await first.line(60) == said
    for _ in range(3):
        await setting.victim.works()
    if what == "memory":
        async with asyncio.timeout(60):
            assert await attacker.wait() == 137, "it ended by that"
        await setting.victim.works()
    elif what in ("output", "processors"):
        await attacker.end()
    else:
        await attacker.stdin.end()
    async with asyncio.timeout(60):
        while await attacker.stdout.read():  # its end is told when its output has been read
            pass
        await attacker.wait()
    await setting.victim.works()


async def test_who_kills_all_that_it_can_kills_its_own(setting: Setting) -> None:
    """The last one: its own jail may end by that; its neighbour goes on."""
    with contextlib.suppress(CorralError):
        await shell(setting.sandbox, "kill -9 -1", agent=1)
    await setting.victim.works()
    assert succeeded(await shell(setting.sandbox, "echo alive", agent=2)) == "alive\n"
