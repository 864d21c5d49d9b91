"""Rules, addresses and published ports are read in one way, or refused with a reason."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.policy import BadName, Publish
from corral.policy.presets import presets
from corral.policy.rules import parse_address, parse_publish, parse_rules, rule_text


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("pypi.org", "pypi.org", None),
        ("PyPI.org.:443", "pypi.org", 443),
        ("bücher.de", "xn--bcher-kva.de", None),
        ("*", "*", None),
        ("*:443", "*", 443),
        ("*.NPMjs.org:443", "*.npmjs.org", 443),
        ("192.0.2.7", "192.0.2.7", None),
        ("0xc0000207:22", "192.0.2.7", 22),
        ("192.0.2.0/24", "192.0.2.0/24", None),
        ("192.0.2.0/24:8080", "192.0.2.0/24", 8080),
        ("192.0.2.7/32", "192.0.2.7", None),
        ("2001:DB8::1", "2001:db8::1", None),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
        ("2001:db8::/32", "2001:db8::/32", None),
        ("[2001:db8:0::/32]:443", "2001:db8::/32", 443),
        ("::ffff:192.0.2.7", "192.0.2.7", None),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24", None),
        ("64:ff9b::/96", "64:ff9b::/96", None),
    ],
)
def test_a_rule(text: str, host: str, port: int | None) -> None:
    (rule,) = parse_rules(text)
    assert (rule.host, rule.port, rule.text) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":443", "pypi.org:", "pypi.org:0", "pypi.org:70000", "pypi.org:https"),
        *("https://pypi.org", "pypi.org/simple", "user@pypi.org", "pypi.org:443/", "pypi.org\0"),
        *("**", "*.*", "a.*", "*a.org", "a.*.org", "*.", "*.1.2.3.4", "*.127.1", "*..org"),
        *("192.0.2.7/24", "192.0.2.0/33", "192.0.2.0/255.255.255.0", "192.0.2.0/", "192.0.2/24"),
        *("2001:db8::1/32", "::/0:443", "::ffff:0:0/90", "::/0", "[2001:db8::1", "[::1]443"),
        *("@", "@nothing", "@python:443", "@Python", "0177.0.0.1", "fe80::1%eth0"),
    ],
)
def test_what_is_no_rule_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(BadName) as refused:
        parse_rules(text)
    assert str(refused.value).isprintable() and str(refused.value).endswith(".")


@pytest.mark.parametrize("name", presets())
def test_a_preset_says_its_sources_and_each_host_is_a_rule_for_a_name(name: str) -> None:
    preset = presets()[name]
    assert preset.about and preset.sources
    assert all(source.startswith("https://") for source in preset.sources)
    rules = parse_rules(f"@{name}")
    assert len(rules) == len(preset.hosts) == len({(rule.host, rule.port) for rule in rules})
    for rule, host in zip(rules, preset.hosts, strict=True):
        assert rule.text == f"@{name} ({host})"
        assert rule_text(rule.host, rule.port) == host, "in its canonical notation"
        assert "." in rule.host and rule.host != "*"


def test_every_preset_is_on_the_page() -> None:
    page = Path(__file__).parents[3].joinpath("docs/network.md").read_text()
    assert [name for name in presets() if f"`@{name}`" not in page] == []


def test_the_presets_that_are_promised_are_there() -> None:
    assert {"python", "node", "rust", "go", "github", "debian"} <= set(presets())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.test=127.0.0.1", ("a.test", None, "127.0.0.1", None)),
        ("A.test:443=127.0.0.1:8443", ("a.test", 443, "127.0.0.1", 8443)),
        ("a.test=::1", ("a.test", None, "::1", None)),
        ("a.test=[::1]:80", ("a.test", None, "::1", 80)),
        ("a.test=::ffff:10.0.0.1", ("a.test", None, "10.0.0.1", None)),
    ],
)
def test_an_address(text: str, expected: tuple[str, int | None, str, int | None]) -> None:
    found = parse_address(text)
    assert (found.name, found.port, found.address, found.to_port) == expected


@pytest.mark.parametrize(
    "text", ["a.test", "a.test=", "=127.0.0.1", "a.test=b.test", "a=1.2.3.4:x", "*.a.test=1.2.3.4"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080, 8080)),
        ("8080:80", ("127.0.0.1", 8080, 80)),
        ("0:80", ("127.0.0.1", 0, 80)),
        ("127.0.0.2:8080", ("127.0.0.2", 8080, 8080)),
        ("0.0.0.0:8080:80", ("0.0.0.0", 8080, 80)),
        ("localhost:8080:80", ("127.0.0.1", 8080, 80)),
        ("[::1]:8080:80", ("::1", 8080, 80)),
        ("[::]:8080", ("::", 8080, 8080)),
    ],
)
def test_a_published_port(text: str, expected: tuple[str, int, int]) -> None:
    address, port, guest_port = expected
    assert parse_publish(text) == Publish(address=address, port=port, guest_port=guest_port)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "80:", ":80", "80:0", "65536", "a:80:80", "host.test:80", "1:2:3", "80/tcp"),
        *("[::1]", "[::1]80", "::1:80", "127.1:80", "127.0.0.1", "127.0.0.1:", "-1", "80:80:80"),
    ],
)
def test_what_cannot_be_published_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        parse_publish(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_rules, parse_address, parse_publish):
        try:
            read(text)
        except BadName as error:
            assert str(error).isprintable()


@given(st.ip_addresses(), st.none() | st.integers(1, 65535))
def test_a_rule_for_an_address_reads_as_it_is_written(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None
) -> None:
    (rule,) = parse_rules(rule_text(str(address), port))
    assert parse_rules(rule_text(rule.host, rule.port))[0].host == rule.host
