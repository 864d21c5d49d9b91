"""What a policy means for the guest: ports, addresses, the name server, variables of gateways."""

from __future__ import annotations

from typing import Any

import pytest

from corral.plan import network
from corral.policy import Dialect, Gateway, Key, Mode, Network, Rule, Secret
from tests.support import examples


def rule(host: str, port: int | None = None) -> Rule:
    return Rule(host=host, port=port, text=host)


def setup(agents: int = 1, **parts: Any) -> Any:
    return network.setup(examples.spec(**parts), agents)


def policy(mode: Mode, *rules: Rule, ports: tuple[int, ...] = (80, 443)) -> dict[str, Any]:
    return {"network": Network(mode=mode, allow=rules, ports=ports)}


def gateway(name: str, dialect: Dialect) -> Gateway:
    return Gateway(name=name, dialect=dialect, upstream="https://api.test", key=None)


def secret(*hosts: str) -> Secret:
    key = Key(kind="env", value=("TOKEN",))
    return Secret(name="TOKEN", hosts=hosts, header="authorization", key=key)


def test_without_a_policy_there_is_nothing() -> None:
    assert setup() is None
    assert "nameserver" not in network.resolver(examples.spec())


def test_rules_may_name_further_ports() -> None:
    found = setup(**policy("allow", rule("pypi.org"), rule("github.com", 22)))
    assert found["ports"] == [22, 80, 443]
    assert found["networks"] == []


def test_rules_may_name_addresses_but_not_the_agents_loopback() -> None:
    rules = [rule("192.0.2.7"), rule("2001:db8::/32", 22), rule("127.0.0.1"), rule("::1")]
    found = setup(**policy("allow", *rules, rule("192.0.2.7", 8080)))
    assert found["networks"] == ["192.0.2.7/32", "2001:db8::/32"]


def test_in_mode_internet_every_address_can_be_dialled() -> None:
    found = setup(**policy("internet", ports=(22, 443)))
    assert found["networks"] == ["0.0.0.0/0", "::/0"]
    assert found["ports"] == [22, 443]


def test_a_gateway_or_a_secret_has_its_ports_also_without_a_network() -> None:
    assert setup(gateways=(gateway("a", "anthropic"),))["ports"] == [80]
    assert setup(secrets=(secret("api.test", "*.git.test:8443"),))["ports"] == [443, 8443]


def test_agents_share_the_channels_streams() -> None:
    alone = setup(**policy("internet"))["connections"]
    assert setup(4, **policy("internet"))["connections"] == alone // 4


@pytest.mark.parametrize("mode", ["allow", "internet"])
def test_the_name_server_is_the_guests_own(mode: Mode) -> None:
    text = network.resolver(examples.spec(**policy(mode)))
    assert [line for line in text.splitlines() if line[0] != "#"] == ["nameserver 198.18.0.1"]


def test_programs_find_the_gateways_and_hold_no_key() -> None:
    found = network.gateway_environment(
        (gateway("claude", "anthropic"), gateway("spare", "anthropic"), gateway("gpt", "openai"))
    )
    assert found["ANTHROPIC_BASE_URL"] == "http://claude.corral.internal"
    assert found["OPENAI_BASE_URL"] == "http://gpt.corral.internal/v1"
    assert found["ANTHROPIC_API_KEY"] == found["OPENAI_API_KEY"] == network.PLACEHOLDER


def test_the_users_own_variables_go_before_those_of_gateways() -> None:
    spec = examples.spec(
        gateways=(gateway("a", "anthropic"),),
        run={"env": (("ANTHROPIC_BASE_URL", "http://mine.test"),)},
    )
    plan = examples.plan(spec)
    assert dict(plan.agents[0].environment)["ANTHROPIC_BASE_URL"] == "http://mine.test"
