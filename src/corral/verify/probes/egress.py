"""The egress engine, attacked in a network of verify's own: what it dials, and for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from ...policy import Limits, Network
from ...policy.rules import parse_rules
from ..hello import ECH, client_hello, request
from ..island import OTHER_PUBLIC, OWN, PUBLIC, Case, Island, Said, Step
from ..judging import breach_if, tried_if
from ..model import Breach
from .network import NETWORK

probe = NETWORK.probe

Answers = Mapping[str, tuple[tuple[str, ...], ...]]
GOOD, BAD = "good.test", "bad.test"
ANSWERS: Answers = {GOOD: ((PUBLIC,),), BAD: ((OTHER_PUBLIC,),)}


def policy(*allow: str, deny: tuple[str, ...] = (), mode: str = "allow", **more: object) -> Network:
    """A policy, by its rules as a user writes them."""
    rules = [rule for text in allow for rule in parse_rules(text)]
    against = [rule for text in deny for rule in parse_rules(text)]
    return Network(mode=mode, allow=tuple(rules), deny=tuple(against), **more)  # type: ignore[arg-type] # keywords of Network


async def control(island: Island, network: Network | None = None) -> None:
    """What is allowed is reached, so that refusals mean something."""
    steps = (
        Step(name=GOOD, port=80, data=request(GOOD)),
        Step(name=GOOD, port=443, data=client_hello(GOOD)),
    )
    said = await island.play(Case(network=network or policy(GOOD), steps=steps, answers=ANSWERS))
    for each in said:
        tried_if(each.reached == (PUBLIC,), f"what is allowed is not reached either: {each.reason}")


async def denied(
    island: Island,
    steps: Iterable[Step],
    *reasons: str,
    network: Network | None = None,
    answers: Answers | None = None,
) -> list[Said]:
    """Each step is denied, for a reason that has one of these words in it, and reaches nobody."""
    tried = tuple(steps)
    # Whatever is asked for leads somewhere, so that one that is allowed by mistake gets there.
    everywhere = {step.name.lower().rstrip("."): ((OTHER_PUBLIC,),) for step in tried}
    case = Case(
        network=network or policy(GOOD), steps=tried, answers=answers or {**everywhere, **ANSWERS}
    )
    said = await island.play(case)
    for step, each in zip(case.steps, said, strict=True):
        what = f"{step.name}:{step.port}"
        breach_if(each.reached, f"{what} reached {', '.join(each.reached)}")
        breach_if(each.verdict == "allowed", f"{what} was allowed ({each.rule})")
        right = any(reason in each.reason for reason in reasons) or not reasons
        tried_if(right, f"{what} failed for another reason: {each.reason or 'none'}")
    tried_if(len(said) == len(case.steps), "not all could be tried")
    return said


def summed(said: list[Said]) -> str:
    """What was denied, and why."""
    reasons = dict.fromkeys(each.reason for each in said)
    return f"{len(said)} denied: {'; '.join(reasons)}"


@probe(
    "host-not-on-the-list",
    "policy",
    "Names and ports that no rule names are asked for, near misses of an allowed one among them.",
    scene="island",
    cites=("CVE-2025-66479",),
)
async def not_on_the_list(island: Island) -> str:
    await control(island)
    names = (BAD, f"www.{GOOD}", f"{GOOD}.{BAD}", f"x{GOOD}", "test", f"{GOOD[:-1]}", "good-test")
    steps = [Step(name=name, port=443, data=client_hello(name)) for name in names]
    steps += [Step(name=GOOD, port=port, data=b"x") for port in (22, 25, 8080)]
    return summed(await denied(island, steps, "not on the list"))


@probe(
    "empty-list",
    "policy",
    "A list with nothing on it is taken for one that allows everything.",
    scene="island",
    cites=("CVE-2025-66479",),
)
async def empty_list(island: Island) -> str:
    steps = [Step(name=name, port=443, data=client_hello(name)) for name in (GOOD, BAD)]
    said = await denied(island, steps, "not on the list", network=policy())
    said += await denied(island, steps, "no network", network=policy(mode="none"))
    await control(island)
    return summed(said)


@probe(
    "deny-before-allow",
    "policy",
    "A name that one rule denies and another one allows is asked for, by its address, too.",
    scene="island",
)
async def deny_first(island: Island) -> str:
    network = policy("*", GOOD, PUBLIC, deny=(GOOD, PUBLIC))
    steps = [
        Step(name=GOOD, port=443, data=client_hello(GOOD)),
        Step(name=PUBLIC, port=443, data=client_hello()),
        Step(name=BAD, port=443, data=client_hello(BAD)),
    ]
    answers = {GOOD: ((PUBLIC,),), BAD: ((PUBLIC,),)}  # another name of a denied address
    await control(island)
    return summed(await denied(island, steps, "denied by a rule", network=network, answers=answers))


# Each of them a stand-in, in that namespace.
PRIVATE = (
    *("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "127.0.0.1"),
    *("0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),  # noqa: S104
)


@probe(
    "private-addresses",
    "addresses",
    "An allowed name leads to private, link-local, loopback and multicast addresses.",
    scene="island",
)
async def private(island: Island) -> str:
    await control(island)
    said = []
    for address in PRIVATE:
        steps = [Step(name=GOOD, port=80, data=request(GOOD))]
        said += await denied(island, steps, " address", answers={GOOD: ((address,),)})
    return summed(said)


@probe(
    "metadata-service",
    "addresses",
    "The metadata services of clouds are reached by a name and by their addresses.",
    scene="island",
)
async def metadata(island: Island) -> str:
    await control(island)
    said = []
    services = ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16")
    for address in services:
        steps = [Step(name=GOOD, port=80, data=request(GOOD))]
        said += await denied(island, steps, "metadata address", answers={GOOD: ((address,),)})
        literal = Step(name=address, port=80, data=request(address))
        open_to_all = policy(mode="internet")
        said += await denied(island, [literal], "metadata address", network=open_to_all)
        wide = policy("*", "169.254.0.0/16", "100.64.0.0/10", "168.63.0.0/16")
        said += await denied(island, [literal], " address", network=wide)
    name = "metadata.google.internal"
    steps = [Step(name=name, port=80, data=request(name))]
    said += await denied(
        island, steps, "not a public name", network=policy(mode="internet"), answers={}
    )
    return f"{len(said)} denied, by name, by address, by a rule that is too wide"


@probe(
    "ipv6-forms",
    "addresses",
    "Private IPv4 addresses are written as IPv6: mapped, compatible, NAT64, 6to4, Teredo.",
    scene="island",
)
async def ipv6_forms(island: Island) -> str:
    await control(island)
    forms = (
        *("::ffff:169.254.169.254", "::ffff:10.1.2.3", "::ffff:7f00:1", "::127.0.0.1"),
        *("64:ff9b::10.1.2.3", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "2001:0:a9fe:a9fe::1"),
        *("::1", "::", "fe80::1", "fd00:ec2::254", "fc00::1", "fec0::1", "ff02::1"),
    )
    said = []
    for address in forms:
        by_name = [Step(name=GOOD, port=80, data=request(GOOD))]
        said += await denied(island, by_name, " address", answers={GOOD: ((address,),)})
    steps = [Step(name=address, port=80, data=request(f"[{address}]")) for address in forms]
    said += await denied(island, steps, " address", network=policy(mode="internet"))
    return f"{len(said)} denied, of {len(forms)} forms"


@probe(
    "rebinding",
    "addresses",
    "A name leads to a public address first, and to a private one when it is looked up again.",
    scene="island",
)
async def rebinding(island: Island) -> str:
    answers = {GOOD: ((PUBLIC,), ("169.254.169.254",))}
    step = Step(name=GOOD, port=80, data=request(GOOD))
    first, second = await island.play(
        Case(network=policy(GOOD), steps=(step, step), answers=answers)
    )
    breach_if(len(first.lookups) > 1, "one connection looks the name up twice")
    breach_if(second.reached, f"the second one reached {', '.join(second.reached)}")
    tried_if(first.reached == (PUBLIC,), f"the first one was not made: {first.reason}")
    tried_if("address" in second.reason, f"it failed for another reason: {second.reason}")
    mixed = {GOOD: (("169.254.169.254", PUBLIC),)}
    said = await denied(island, [step], "metadata address", answers=mixed)
    return f"one lookup, and what it said is dialled; then {second.reason}; mixed: {said[0].reason}"


@probe(
    "addresses-of-the-host",
    "addresses",
    "A name leads to a public address that is this host's own.",
    scene="island",
)
async def own_addresses(island: Island) -> str:
    await control(island)
    step = Step(name=GOOD, port=80, data=request(GOOD))
    literal = Step(name=OWN, port=80, data=request(OWN))
    said = await denied(island, [step], "own address", answers={GOOD: ((OWN,),)})
    said += await denied(island, [literal], "own address", network=policy(mode="internet"))
    return summed(said)


@probe(
    "plain-http-to-another-host",
    "same-name",
    "On a connection to an allowed host the request names another one.",
    scene="island",
)
async def http_other_host(island: Island) -> str:
    await control(island)
    requests = (
        request(BAD),
        request(f"{BAD}:80"),
        request(GOOD, "/", "GET", f"Host: {BAD}"),
        request("", "/", "GET", f"Host : {BAD}"),
        request(f"{GOOD}\x00.{BAD}"),
        request(f"{GOOD}@{BAD}"),
        b"GET / HTTP/1.1\r\n\r\n",
    )
    steps = [Step(name=GOOD, port=80, data=each) for each in requests]
    return summed(await denied(island, steps, "HTTP"))


@probe(
    "http-connect-and-urls",
    "same-name",
    "An allowed host is used as a proxy: CONNECT, and requests with a whole URL.",
    scene="island",
)
async def http_proxy(island: Island) -> str:
    await control(island)
    requests = (
        request(f"{BAD}:443", f"{BAD}:443", "CONNECT"),
        request(GOOD, f"{BAD}:443", "CONNECT"),
        request(GOOD, f"http://{BAD}/"),
        request(BAD, f"http://{GOOD}/"),
    )
    steps = [Step(name=GOOD, port=80, data=each) for each in requests]
    return summed(await denied(island, steps, "HTTP"))


@probe(
    "http-second-request",
    "same-name",
    "The second request on a connection, or one hidden in a body, names another host.",
    scene="island",
)
async def http_second(island: Island) -> str:
    await control(island)
    second = request(BAD, "/second")
    smuggled = (
        f"POST / HTTP/1.1\r\nHost: {GOOD}\r\nContent-Length: 4\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ).encode() + second
    pipelined = request(GOOD) + second
    steps = tuple(Step(name=GOOD, port=80, data=data) for data in (pipelined, smuggled))
    said = await island.play(Case(network=policy(GOOD), steps=steps, answers=ANSWERS))
    for each in said:
        breach_if(b"/second" in each.sent, "the other host's request was passed on")
    tried_if(said[0].reached, f"the first request did not arrive: {said[0].reason}")
    breach_if(said[1].reached, "a request with two lengths was passed on")
    return f"neither is passed on ({'; '.join(each.reason or 'one a connection' for each in said)})"


@probe(
    "tls-other-name",
    "same-name",
    "The ClientHello names another host than the one that was allowed (domain fronting).",
    scene="island",
)
async def tls_other_name(island: Island) -> str:
    await control(island)
    hellos = (
        client_hello(BAD),
        client_hello(GOOD, BAD),
        client_hello(f"{GOOD}.{BAD}"),
        client_hello(f"{GOOD}\0.{BAD}".encode()),
        client_hello(PUBLIC),
    )
    steps = [Step(name=GOOD, port=443, data=each) for each in hellos]
    return summed(await denied(island, steps, "TLS"))


@probe(
    "tls-hidden-name",
    "same-name",
    "The ClientHello has no server name, or an encrypted one (ECH), or is no TLS at all.",
    scene="island",
)
async def tls_hidden(island: Island) -> str:
    await control(island)
    first = (
        client_hello(),
        client_hello(GOOD, further=((ECH, b"\0" * 40),)),
        client_hello(GOOD, further=((0xFFCE, b"\0" * 40),)),  # its draft, as ESNI
        request(GOOD),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        client_hello(GOOD)[:5] + b"\x02" + client_hello(GOOD)[6:],
    )
    steps = [Step(name=GOOD, port=443, data=each) for each in first]
    return summed(await denied(island, steps, "TLS", "ClientHello"))


@probe(
    "names-not-looked-up",
    "name-service",
    "Names that carry data are asked for, so that the host's resolver tells others of them.",
    scene="island",
    cites=("CVE-2025-55284",),
)
async def not_looked_up(island: Island) -> str:
    await control(island)
    labels = [f"{bytes([n] * 20).hex()}.exfil.{BAD}" for n in range(8)]
    steps = [Step(name=name, port=443, data=client_hello(name)) for name in labels]
    said = await denied(island, steps, "not on the list")
    # Not before the first bytes are right, either: a name allowed is looked up for who uses it.
    said += await denied(island, [Step(name=GOOD, port=443, data=client_hello(BAD))], "TLS")
    asked = [name for each in said for name in each.lookups]
    breach_if(asked, f"looked up all the same: {asked[:1]}")
    return f"{len(said)} connections, no lookup"


@probe(
    "connections-of-other-agents",
    "policy",
    "A guest asks for connections as an agent that there is not, and in nonsense.",
    scene="island",
)
async def other_agents(island: Island) -> str:
    steps = [Step(name=GOOD, port=443, agent=number) for number in (0, 3, -1, 1 << 40)]
    steps += [Step(name="", port=443), Step(name="x" * 2000, port=443)]
    steps += [Step(name=GOOD, port=port) for port in (0, -1, 65536, 1 << 40)]
    said = await island.play(Case(network=policy("*"), steps=tuple(steps), answers=ANSWERS))
    for step, each in zip(steps, said, strict=True):
        breach_if(each.reached or each.verdict == "allowed", f"{step} was served")
        tried_if(each.reason, "it failed for no reason")
    await control(island)
    return f"{len(said)} refused as nonsense, which ends the sandbox"


@probe(
    "too-many-connections",
    "bounded",
    "An agent opens more connections than it may have, and faster.",
    scene="island",
)
async def too_many(island: Island) -> str:
    network = policy(GOOD, limits=Limits(connections=8, rate=1000.0))
    steps = tuple(Step(name=GOOD, port=80, data=request(GOOD)) for _ in range(40))
    said = await island.play(
        Case(network=network, steps=steps, answers=ANSWERS, together=True, hold=True)
    )
    made = sum(bool(each.received) and b"stand-in" in each.received for each in said)
    breach_if(made > 8, f"{made} connections at once, of 8")
    tried_if(made, "none could be made")
    return f"{made} of {len(steps)} at once; the others are refused"


@probe(
    "bytes-beyond-the-limit",
    "bounded",
    "An agent sends more than it may in all.",
    scene="island",
)
async def too_much(island: Island) -> str:
    size = 1 << 16
    network = policy(GOOD, limits=Limits(total=size))
    body = request(GOOD, "/", "POST", f"Content-Length: {4 * size}") + b"x" * 4 * size
    steps = tuple(Step(name=GOOD, port=80, data=body) for _ in range(2))
    first, second = await island.play(Case(network=network, steps=steps, answers=ANSWERS))
    if len(first.sent) + len(second.sent) > 2 * size:
        raise Breach(f"{len(first.sent) + len(second.sent)} bytes went out, of {size}")
    tried_if("limit" in first.reason + second.reason, f"it ended otherwise: {first.reason}")
    await asyncio.sleep(0)
    return f"{len(first.sent)} bytes went out, then: {first.reason}"
