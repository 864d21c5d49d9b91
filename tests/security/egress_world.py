"""What is tried of the egress engine in a world of namespaces; see tests/support/worlds.py."""

from __future__ import annotations

from ipaddress import ip_address

from corral.network.dial import is_own
from corral.policy import Network
from corral.policy.names import IPAddress
from corral.policy.rules import parse_rules
from tests.support import worlds
from tests.support.egress import ask, policy, running
from tests.support.worlds import World

PORT = 7000


async def _try(network: Network, name: str, *addresses: str) -> str:
    """What a guest gets: the address that the server says, or why there is none."""

    async def resolve(_name: str) -> tuple[IPAddress, ...]:
        return tuple(map(ip_address, addresses))

    async with running(network, resolve=resolve) as engine:
        guest = ask(engine, name, PORT)
        await guest.finish()
        heard = await guest.hear_all()
        return heard.decode().strip() or f"refused: {guest.reset_reason}"


async def rebinding(world: World) -> object:
    """A name that is allowed leads to each address; then to a public one and a private one."""
    network = policy(f"evil.test:{PORT}")
    own = (worlds.OWN, worlds.OWN6, *worlds.SUBNET, *worlds.SUBNET6)
    got = {each: await _try(network, "evil.test", each) for each in (*worlds.OUTSIDE, *own)}
    for form in (f"::ffff:{worlds.PRIVATE}", f"::ffff:{worlds.METADATA}", "::ffff:127.0.0.1"):
        got[form] = await _try(network, "evil.test", form)
    got["mixed"] = await _try(network, "evil.test", worlds.PUBLIC, worlds.PRIVATE)
    return got, world.connected()


async def own(_world: World) -> object:
    """Which addresses are taken for the host's own."""
    own = (worlds.OWN, worlds.OWN6, *worlds.SUBNET, *worlds.SUBNET6, "51.15.1.255")
    others = (worlds.PUBLIC, worlds.PUBLIC6, "51.15.1.7", "2600:1::7")
    mapped = [f"::ffff:{worlds.SUBNET[1]}", "64:ff9b::330f:106"]
    return [[text for text in each if is_own(ip_address(text))] for each in (own, others, mapped)]


async def literals(world: World) -> object:
    """In mode internet, each address as a literal, in many notations."""
    network = Network(mode="internet", ports=(PORT,), deny=parse_rules("1.1.1.1"))
    a, b, c, d = ip_address(worlds.PRIVATE).packed
    value = int(ip_address(worlds.METADATA))
    texts = [
        *worlds.OUTSIDE,
        *(worlds.OWN, worlds.OWN6, "127.0.0.1", "127.1", "0.0.0.0", "0", "::", "::1"),
        *(f"{a}.{b}.{c * 256 + d}", f"0x{a:x}.{b}.{c}.{d}", f"::ffff:{worlds.PRIVATE}"),
        *(str(value), hex(value), f"::ffff:{value >> 16:x}:{value & 0xFFFF:x}"),
        *(f"{worlds.METADATA}.", worlds.METADATA.replace(".", "\u3002"), "1.1.1.1"),
        *(f"::{worlds.PRIVATE}", f"2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
    ]
    return {text: await _try(network, text) for text in texts}, world.connected()


async def named(world: World) -> object:
    """The same private addresses, where the policy names them."""
    rules = (f"{worlds.PRIVATE}:{PORT}", f"169.254.0.0/16:{PORT}", f"evil.test:{PORT}")
    network = policy(*rules)
    return [
        await _try(network, worlds.PRIVATE),
        await _try(network, "evil.test", worlds.PRIVATE),
        await _try(network, "evil.test", worlds.LINK_LOCAL),
        await _try(network, "evil.test", worlds.METADATA),
        await _try(policy(*rules, f"{worlds.METADATA}:{PORT}"), worlds.METADATA),
    ]
