"""The channel: what a guest that was taken over says to its host, and who else could speak."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import struct

from corral_guest import wire

from ...channel import Channel, serial_pair
from ...errors import ChannelError, CorralError, GuestError, SandboxGoneError
from ..judging import breach_if, refused, runnable, tried_if
from ..model import Breach, NotTried
from ..registry import Registry
from ..scenes import Ground, Inside

CHANNEL = Registry("channel")
probe = CHANNEL.probe

MIB = 1 << 20
PATIENCE = 10.0  # seconds


def frame(kind: int, stream: int, payload: bytes = b"", size: int | None = None) -> bytes:
    """One frame; size: what it announces, by default what it has."""
    return struct.pack(">III", kind << 24, stream, len(payload) if size is None else size) + payload


def control(body: object) -> bytes:
    """A frame with a message."""
    return frame(wire.CONTROL, 0, json.dumps(body).encode())


async def ends(*attacks: bytes) -> str:
    """Each ends the channel with one clear error."""
    for attack in attacks:
        ours, guest = serial_pair()
        with guest:
            async with await Channel.start(ours) as channel:
                guest.sendall(attack)
                try:
                    async with asyncio.timeout(PATIENCE):
                        error = await channel.wait_closed()
                except TimeoutError:
                    raise Breach(f"taken: {attack[:40]!r}") from None
        if not isinstance(error, ChannelError):
            raise NotTried(f"the channel ended for another reason: {error}")
        breach_if(not error.message.replace("\n", "").isprintable(), "its words reach the terminal")
    return f"{len(attacks)} end the channel, with an error each"


@probe(
    "malformed-frames",
    "protocol",
    "The guest sends frames of unknown kinds, of four gigabytes, for streams that are not open.",
    scene="host",
)
async def malformed_frames(scene: Ground) -> str:
    return await ends(
        frame(77, 0),
        b"\xff" * 4096,
        frame(wire.CONTROL, 0, b"", (1 << 32) - 1),
        frame(wire.DATA, 2, b"x"),
        frame(wire.CREDIT, 2, b"\xff\xff\xff\xff"),
    )


@probe(
    "malformed-messages",
    "protocol",
    "The guest sends messages that are no JSON, deep, huge numbers, a pickle.",
    scene="host",
)
async def malformed_messages(scene: Ground) -> str:
    return await ends(
        control([1]),
        frame(wire.CONTROL, 0, b"{"),
        frame(wire.CONTROL, 0, b"\xff\xfe"),
        frame(wire.CONTROL, 0, b"[" * 100_000),
        frame(wire.CONTROL, 0, b'{"a": ' + b"9" * 100_000 + b"}"),
        b"\x80\x04\x95cos\nsystem\n(S'touch /tmp/owned'\ntR.",
    )


@probe(
    "calls-to-the-host",
    "protocol",
    "The guest calls methods of the host, and answers calls that nobody made.",
    scene="host",
)
async def calls(scene: Ground) -> str:
    return await ends(
        control({"jsonrpc": "2.0", "id": 1, "method": "open", "params": {}}),
        control({"jsonrpc": "2.0", "id": 1, "method": "exec", "params": {"argv": ["id"]}}),
        control({"jsonrpc": "2.0", "id": 99, "result": {}}),
        control({"jsonrpc": "2.0", "method": "x", "params": {}}),
    )


@probe(
    "flood",
    "bounded",
    "The guest floods its host with messages and reads no answer.",
    scene="host",
)
async def flood(scene: Ground) -> str:
    note = {"jsonrpc": "2.0", "method": "exited", "params": {}}
    long = {**note, "params": {"a": "x" * (wire.MAX_CONTROL - 200)}}
    most = 0
    for data in (control(note) * 1000, frame(wire.RESET, 2, b"x") * 5000, control(long)):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sent, failed = await _flooded(data)
        tried_if(sent > 4 * MIB or failed, "the flood did not arrive")
        most = max(most, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    breach_if(most > 64 << 10, f"corral has grown by {most >> 10} MiB")
    return f"corral has grown by {most >> 10} MiB"


async def _flooded(data: bytes) -> tuple[int, bool]:
    """How many bytes could be sent, at most 12 MiB, and whether the channel has ended for it."""
    ours, guest = serial_pair()
    guest.setblocking(False)
    loop, sent = asyncio.get_running_loop(), 0
    with guest:
        async with await Channel.start(ours, {"exited": lambda _params: None}) as channel:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(3):
                    while sent < 12 * MIB and channel.failure is None:
                        await loop.sock_sendall(guest, data)
                        sent += len(data)
            return sent, isinstance(channel.failure, ChannelError)


@probe(
    "words-for-the-terminal",
    "protocol",
    "The guest puts escape sequences into an error, to drive the user's terminal.",
    scene="host",
)
async def words(scene: Ground) -> str:
    hostile = "\x1b]0;owned\x07\x1b[21t\x9b6n\u202e\r"
    ours, guest = serial_pair()
    with guest:
        async with await Channel.start(ours) as channel:
            call = asyncio.ensure_future(channel.call("exec", {}))
            await asyncio.sleep(0)
            answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": hostile}}
            guest.sendall(control(answer))
            try:
                await call
            except GuestError as error:
                said = error.message
            else:
                raise Breach("an error was taken for an answer")
    tried_if("owned" in said, "its words do not arrive at all")
    breach_if(not said.replace("\n", "").isprintable(), "escape sequences are in the message")
    return "they are shown, escaped"


@probe(
    "closed-carrier",
    "protocol",
    "The guest closes the channel while calls wait, so that corral hangs.",
    scene="host",
)
async def closed(scene: Ground) -> str:
    ours, guest = serial_pair()
    async with await Channel.start(ours) as channel:
        calls = [asyncio.ensure_future(channel.call("x")) for _ in range(10)]
        await asyncio.sleep(0)
        guest.close()
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*calls, return_exceptions=True)
    breach_if(not all(isinstance(a, SandboxGoneError) for a in answers), "a call was answered")
    return "10 calls end at once"


@probe(
    "channel-out-of-reach",
    "carrier",
    "The jail opens the port of the channel, by its device and by its number.",
    scene="any",
)
async def out_of_reach(scene: Inside) -> str:
    found = await scene.root("""
ports = [n for n in os.listdir("/dev") if n.startswith("vport")]
for name in ports:
    status = os.stat("/dev/" + name)
    outcome[name] = f"{os.major(status.st_rdev)} {os.minor(status.st_rdev)} {status.st_mode:o}"
""")
    runnable(found)
    tried_if(found or scene.plan.machine.carrier == "vsock", "there is no such port")
    breach_if(
        [n for n, how in found.items() if int(how.split()[2], 8) & 0o077], "it is open to all"
    )
    numbers = [tuple(map(int, how.split()[:2])) for how in found.values()]
    outcome = await scene.jail(f"""
for name in {[*sorted(found), "vsock", "hvc0", "virtio-ports"]!r}:
    attempt(name, os.open, "/dev/" + name, os.O_RDWR)
for major, minor in {numbers!r}:
    attempt(f"node {{major}}:{{minor}}", os.mknod, f"/tmp/n{{minor}}", 0o020666,
            os.makedev(major, minor))
""")
    return refused(outcome, "ENOENT", "EPERM", "EACCES", at_least=3 + len(numbers))


@probe(
    "forged-frames",
    "protocol",
    "The guest's root takes the channel over and writes to its host what it likes.",
    scene="any",
    last=True,
)
async def forged(scene: Inside) -> str:
    if scene.plan.machine.carrier != "serial":
        raise NotTried("the channel goes over vsock here; the attack is for the serial port")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scene.ended = True
    with contextlib.suppress(NotTried):  # the channel ends before there is an answer
        await scene.root(TAKE_OVER, seconds=10)
    try:
        async with asyncio.timeout(PATIENCE):
            await scene.sandbox.or_lost(asyncio.Event().wait())
    except CorralError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        breach_if(grown > 64 << 10, f"corral has grown by {grown >> 10} MiB")
        breach_if(not error.message.replace("\n", "").isprintable(), "its words reach the terminal")
        return f"it ends its own sandbox: “{error.message}”"
    except TimeoutError:
        raise Breach("the sandbox goes on with a broken channel") from None
    raise AssertionError("a wait without end has ended")


TAKE_OVER = """
pidfd = os.pidfd_open(1)
ports = [n for n in os.listdir("/proc/1/fd")
         if os.readlink(f"/proc/1/fd/{n}").startswith("/dev/vport")]
port = check(libc.syscall(438, pidfd, int(ports[0]), 0))
os.set_blocking(port, True)
for _ in range(64):
    os.write(port, b"\\xff" * 4096)
"""
