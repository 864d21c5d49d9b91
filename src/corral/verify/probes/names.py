"""The one parser of names: what two programs could read in two ways."""

from __future__ import annotations

from ...policy import BadName
from ...policy.names import parse
from ..hello import client_hello, request
from ..island import PUBLIC, Case, Island, Step
from ..judging import breach_if, tried_if
from ..model import Breach
from ..registry import Registry
from ..scenes import Ground
from .egress import BAD, GOOD, control, denied, policy, summed

NAMES = Registry("names")
probe = NAMES.probe


@probe(
    "nul-in-host-names",
    "one-reading",
    "A name has a NUL in it, where one program ends it and another one goes on.",
    scene="island",
    cites=("Claude Code's network sandbox to 2.1.89 (A. Guan, 2026)",),
)
async def nul(island: Island) -> str:
    await control(island, policy(GOOD, "*.allowed.test"))
    names = (
        f"{BAD}\0.{GOOD}",
        f"{BAD}\0.allowed.test",
        f"{GOOD}\0",
        f"\0{GOOD}",
        f"{BAD}%00.{GOOD}",
    )
    steps = [Step(name=name, port=443, data=client_hello(GOOD)) for name in names]
    network = policy(GOOD, "*.allowed.test")
    return summed(await denied(island, steps, "not a host name", network=network))


@probe(
    "names-with-other-signs",
    "one-reading",
    "Names have white space, user names, ports, paths, percent signs or control characters.",
    scene="island",
)
async def signs(island: Island) -> str:
    await control(island)
    names = (
        *(f"{GOOD} ", f" {GOOD}", f"{GOOD}\t.{BAD}", f"{GOOD}\r\n.{BAD}", f"{GOOD}:443"),
        *(f"{GOOD}@{BAD}", f"{BAD}#{GOOD}", f"{BAD}/{GOOD}", f"{BAD}?{GOOD}", f"{BAD}\\{GOOD}"),
        *("%67ood.test", f"{GOOD}%", f"[{GOOD}]", f"*.{GOOD}", f"{GOOD}..", f".{GOOD}", "..", "-"),
    )  # fmt: skip
    steps = [Step(name=name, port=443, data=client_hello(GOOD)) for name in names]
    said = await denied(island, steps, "not a host name", network=policy(GOOD, "*.test"))
    return summed(said)


@probe(
    "spellings-of-a-name",
    "one-reading",
    "A denied name is written in capitals, with a last dot, in wide letters and as punycode.",
    scene="island",
)
async def spellings(island: Island) -> str:
    await control(island)
    spelt = (
        "BAD.TEST",
        "bad.test.",
        "Bad.Test.",
        "\uff42ad.test",
        "bad\u3002test",
        "bad\uff0etest",
    )
    steps = [Step(name=name, port=443, data=client_hello(BAD)) for name in spelt]
    said = await denied(island, steps, "denied by a rule", network=policy("*", deny=(BAD,)))
    strange = ("xn--a", "xn--.test", "xn--bad-.test", "\u202egood.test", "good\u200b.test\u0301")
    steps = [Step(name=name, port=443, data=client_hello(GOOD)) for name in strange]
    case = Case(network=policy(GOOD), steps=tuple(steps), answers={GOOD: ((PUBLIC,),)})
    for step, each in zip(steps, await island.play(case), strict=True):
        breach_if(each.reached, f"{step.name!r} reached {GOOD}")
        said.append(each)
    return summed(said)


@probe(
    "notations-of-an-address",
    "one-reading",
    "Loopback and the metadata address are written in decimal, hexadecimal, octal and short.",
    scene="island",
    cites=("CVE-2021-28918", "CVE-2021-29921"),
)
async def notations(island: Island) -> str:
    await control(island)
    texts = (
        *("2130706433", "0x7f000001", "127.1", "127.0.1", "0x7f.1", "0177.0.0.1", "127.0.0.01"),
        *("2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376", "169.254.169.254."),
        *("0", "0x0", "00000010.1.2.3", "127.0.0.1%lo", "::ffff:127.0.0.1", "[::1]"),
    )
    steps = [Step(name=text, port=80, data=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") for text in texts]
    reasons = ("address", "not a host name", "HTTP")
    network = policy("*", mode="internet")
    return f"{len(await denied(island, steps, *reasons, network=network))} denied"


@probe(
    "one-notation",
    "one-reading",
    "What the parser makes of a text is read otherwise when it is read again.",
    scene="host",
)
async def one_notation(scene: Ground) -> str:
    texts = (
        *("Example.TEST.", "b\u00fccher.test", "xn--bcher-kva.test", "faß.test", "127.1", "0x7f.1"),
        *("::FFFF:192.0.2.1", "2001:DB8:0:0::1", "1.2.3", "a_b.test", "r3---sn-x.test"),
    )
    read = 0
    for text in texts:
        try:
            first = parse(text)
        except BadName:
            continue
        again = parse(first.text)
        if again != first:
            raise Breach(f"{text!r} is {first.text!r}, and that is {again.text!r}")
        read += 1
    tried_if(read >= 8, "hardly any could be read")
    for text in ("a\0b", "a b", "a/b", "a@b", "1.2.3.4.5", "256.1", "0x", "1.2.3.08", "a..b", "-a"):
        try:
            found = parse(text)
        except BadName:
            continue
        raise Breach(f"{text!r} is read as {found.text!r}")
    return f"{read} names have one notation each; 10 texts that have none are refused"


@probe(
    "wildcards",
    "one-reading",
    "A rule for all names below one is taken to mean that name, its neighbours or an address.",
    scene="island",
)
async def wildcards(island: Island) -> str:
    await control(island, policy("*.test"))
    names = ("example.test", "xexample.test", "example.test.evil.invalid", "a.exampleXtest", PUBLIC)
    steps = [Step(name=name, port=443, data=client_hello(name)) for name in names]
    return summed(await denied(island, steps, "not on the list", network=policy("*.example.test")))


@probe(
    "address-rules",
    "one-reading",
    "A literal address is asked for where rules have names only, and the other way round.",
    scene="island",
)
async def address_rules(island: Island) -> str:
    await control(island)
    steps = [
        Step(name=PUBLIC, port=80, data=request(PUBLIC)),
        Step(name=PUBLIC, port=443, data=client_hello(GOOD)),
        Step(name=PUBLIC, port=443, data=client_hello()),
        Step(name=f"::ffff:{PUBLIC}", port=443, data=client_hello(GOOD)),
    ]
    said = await denied(island, steps, "not on the list", network=policy(GOOD, "*"))
    return summed(said)
