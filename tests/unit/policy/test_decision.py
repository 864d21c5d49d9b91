"""Which connection may be made: by name and port first, then by address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.policy import Mode, Network, Rule, Verdict, decide, decide_address
from corral.policy.addresses import special
from corral.policy.decision import addresses_of
from corral.policy.names import parse
from corral.policy.rules import parse_address, parse_rules

from .test_names import notations


def policy(
    mode: Mode = "allow",
    allow: str = "",
    deny: str = "",
    ports: tuple[int, ...] = (80, 443),
    hosts: str = "",
) -> Network:
    def rules(texts: str) -> tuple[Rule, ...]:
        return tuple(rule for text in texts.split() for rule in parse_rules(text))

    return Network(
        mode=mode,
        allow=rules(allow),
        deny=rules(deny),
        ports=ports,
        addresses=tuple(parse_address(text) for text in hosts.split()),
    )


MIXED = policy(
    allow="pypi.org *.example.org github.com:22 git.test:22 git.test:443 192.0.2.7 10.0.0.0/8:5432",
    deny="bad.example.org *.deep.example.org:443 10.9.0.0/16 evil.test",
)


@pytest.mark.parametrize(
    ("name", "port", "allowed", "why"),
    [
        ("pypi.org", 443, True, "pypi.org"),
        ("PYPI.org.", 80, True, "pypi.org"),
        ("pypi.org", 22, False, "port not on the list"),
        ("pypi.org.evil.test", 443, False, "not on the list"),
        ("evilpypi.org", 443, False, "not on the list"),
        ("www.pypi.org", 443, False, "not on the list"),
        ("example.org", 443, False, "not on the list"),
        ("a.example.org", 443, True, "*.example.org"),
        ("a.b.example.org", 443, True, "*.example.org"),
        ("aexample.org", 443, False, "not on the list"),
        ("bad.example.org", 443, False, "denied by a rule"),
        ("bad.example.org", 8080, False, "denied by a rule"),
        ("x.bad.example.org", 443, True, "*.example.org"),
        ("x.deep.example.org", 443, False, "denied by a rule"),
        ("x.deep.example.org", 80, True, "*.example.org"),
        ("github.com", 22, True, "github.com:22"),
        ("github.com", 443, False, "port not on the list"),
        ("git.test", 443, True, "git.test:443"),
        ("192.0.2.7", 443, True, "192.0.2.7"),
        ("3221225991", 443, True, "192.0.2.7"),
        ("192.0.2.8", 443, False, "not on the list"),
        ("10.1.2.3", 5432, True, "10.0.0.0/8:5432"),
        ("10.1.2.3", 443, False, "port not on the list"),
        ("10.9.2.3", 5432, False, "denied by a rule"),
        ("::ffff:10.9.2.3", 5432, False, "denied by a rule"),
        ("8.8.8.8", 443, False, "not on the list"),
        ("2606:4700:4700::1111", 443, False, "not on the list"),
    ],
)
def test_a_mixed_policy(name: str, port: int, allowed: bool, why: str) -> None:
    verdict = decide(MIXED, parse(name), port)
    assert verdict.allowed is allowed
    assert why in (verdict.rule if allowed else verdict.reason)


@pytest.mark.parametrize("name", ["pypi.org", "8.8.8.8", "localhost", "127.0.0.1", "::1"])
def test_no_network_is_none(name: str) -> None:
    network = policy("none", allow="* 8.8.8.8 127.0.0.1 ::1")
    assert decide(network, parse(name), 443) == Verdict(False, "no network")


def test_hosts_of_secrets_are_allowed_in_every_mode_and_deny_goes_before() -> None:
    extra = (Rule(host="api.example.org", port=443, text="secret TOKEN"),)
    host = parse("api.example.org")
    assert decide(policy("none"), host, 443, extra=extra) == Verdict(True, rule="secret TOKEN")
    assert not decide(policy("none"), host, 80, extra=extra).allowed
    assert not decide(policy("none", deny="api.example.org"), host, 443, extra=extra).allowed


@pytest.mark.parametrize("name", ["pypi.org", "8.8.8.8", "2606:4700:4700::1111", "a.b.c.example"])
def test_mode_internet_takes_any_public_host_on_its_ports(name: str) -> None:
    network = policy("internet", allow="*:22", deny="bad.example")
    assert decide(network, parse(name), 443).allowed
    assert not decide(network, parse(name), 8080).allowed
    assert not decide(network, parse("bad.example"), 443).allowed


@pytest.mark.parametrize(
    "name",
    ["printer", "printer.local", "nas.lan", "x.home.arpa", "metadata.google.internal", "a.test"],
)
def test_mode_internet_asks_for_no_name_of_the_local_network(name: str) -> None:
    assert decide(policy("internet"), parse(name), 443) == Verdict(False, "not a public name")
    assert decide(policy("internet", allow=name), parse(name), 443).allowed
    assert decide(policy("internet", hosts=f"{name}=10.0.0.1"), parse(name), 443).allowed


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("8.8.8.8", ""),
        ("2606:4700:4700::1111", ""),
        ("64:ff9b::8.8.8.8", ""),
        ("10.0.0.1", "private address"),
        ("127.0.0.1", "loopback address"),
        ("0.0.0.0", "unspecified address"),
        ("169.254.169.254", "metadata address"),
        ("::ffff:169.254.169.254", "metadata address"),
        ("64:ff9b::10.0.0.1", "private address"),
        ("fd00::1", "private address"),
        ("2002:7f00:1::", "tunnel address"),
    ],
)
@pytest.mark.parametrize("mode", ["allow", "internet"])
def test_an_address_that_is_not_public_is_refused(address: str, why: str, mode: Mode) -> None:
    network = policy(mode, allow="*")
    assert decide_address(network, ip_address(address), 443).reason == why


def test_an_address_that_the_policy_names_is_dialled() -> None:
    network = policy(allow="db.test:5432 10.0.0.0/8:5432 10.1.1.1")
    inside = ip_address("10.2.2.2")
    assert decide_address(network, inside, 5432) == Verdict(True, rule="10.0.0.0/8:5432")
    assert not decide_address(network, inside, 443).allowed
    assert decide_address(network, ip_address("10.1.1.1"), 443).allowed
    assert decide_address(network, ip_address("::ffff:10.1.1.1"), 443).allowed
    assert decide_address(network, ip_address("10.3.3.3"), 443, named=True).allowed


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "127.0.0.1", "0.0.0.0", "::1", "10.7.7.7", "::ffff:127.0.0.1"],
)
def test_metadata_and_the_host_itself_are_named_one_by_one(address: str) -> None:
    wide = policy(allow="0.0.0.0/1 128.0.0.0/1 ::/96 10.0.0.0/8")
    found, own = ip_address(address), address == "10.7.7.7"
    assert not decide_address(wide, found, 443, own=own).allowed
    assert decide_address(policy(allow=address), found, 443, own=own).allowed


def test_a_public_address_of_the_host_itself_is_refused() -> None:
    verdict = decide_address(policy("internet"), ip_address("8.8.8.8"), 443, own=True)
    assert verdict == Verdict(False, "host's own address")


def test_deny_holds_for_what_a_name_leads_to() -> None:
    network = policy("internet", allow="10.0.0.1", deny="8.8.0.0/16 10.0.0.1:443")
    for address in ("8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"):
        assert decide_address(network, ip_address(address), 443).reason == "denied by a rule"
    assert not decide_address(network, ip_address("10.0.0.1"), 443).allowed
    assert decide_address(network, ip_address("10.0.0.1"), 80).allowed
    assert not decide_address(network, ip_address("8.8.8.8"), 443, named=True).allowed


def test_addresses_are_found_by_name_and_port() -> None:
    network = policy(hosts="a.test:443=10.0.0.1:8443 a.test:80=10.0.0.2 a.test=10.0.0.3")
    assert [each.address for each in addresses_of(network, parse("A.test."), 443)] == [
        "10.0.0.1",
        "10.0.0.3",
    ]
    assert [each.address for each in addresses_of(network, parse("a.test"), 22)] == ["10.0.0.3"]
    assert addresses_of(network, parse("b.a.test"), 443) == ()


@given(st.ip_addresses(v=4), st.sampled_from([22, 80, 443]))
def test_no_notation_of_an_address_changes_the_decision(address: IPv4Address, port: int) -> None:
    network = policy(
        "internet",
        allow="192.0.2.0/24:22",
        deny=f"8.0.0.0/7 {address if port == 22 else '9.9.9.9'}",
    )
    verdicts = {
        (
            decide(network, host, port),
            decide_address(network, host.address, port) if host.address else None,
        )
        for host in map(parse, notations(address))
    }
    assert len(verdicts) == 1


@given(st.ip_addresses())
def test_without_a_rule_that_names_it_nothing_special_is_dialled(
    address: IPv4Address | IPv6Address,
) -> None:
    network = policy("internet", allow="* *.x.org pypi.org 8.8.8.8")
    assert decide_address(network, address, 443).allowed == (not special(address))
