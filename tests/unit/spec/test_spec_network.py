"""The network as it is asked for, and which layer has the last word about it."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import ConfigError
from corral.policy import Limits, Network, Publish

from .conftest import User


def network(user: User, **overrides: Any) -> Network:
    return user.spec(overrides={"network": overrides}).network


def test_by_default_nothing_can_be_reached_and_nothing_comes_in(user: User) -> None:
    spec = user.spec()
    assert spec.network == Network(mode="none", ports=(80, 443), limits=Limits())
    assert spec.gateways == () and spec.secrets == ()


@pytest.mark.parametrize(
    ("files", "options", "mode"),
    [
        ("", {"allow": ["a.test"]}, "allow"),
        ("", {"mode": "internet"}, "internet"),
        ("", {"mode": "internet", "allow": ["a.test"]}, "internet"),
        ("", {"deny": ["a.test"]}, "none"),
        ("[network]\nallow = ['b.test']", {}, "allow"),
        ("[network]\nallow = []", {}, "none"),
        ("[network]\nmode = 'none'\nallow = ['b.test']", {}, "none"),
        ("[network]\nmode = 'none'\nallow = ['b.test']", {"allow": ["a.test"]}, "allow"),
        ("[network]\nmode = 'none'", {"allow": ["a.test"]}, "allow"),
        ("[network]\nmode = 'internet'", {"allow": ["a.test"]}, "allow"),
        ("[network]\nmode = 'internet'", {"deny": ["a.test"]}, "internet"),
        ("[network]\nallow = ['b.test']", {"mode": "none"}, "none"),
    ],
)
def test_who_allows_something_and_says_no_mode_means_mode_allow(
    user: User, files: str, options: dict[str, object], mode: str
) -> None:
    user.configure(files)
    assert network(user, **options).mode == mode


def test_hosts_of_all_layers_add_up_and_each_is_there_once(user: User) -> None:
    user.configure("[network]\nallow = ['PyPI.org', 'b.test:22']\ndeny = ['c.test']")
    user.environ["CORRAL_ALLOW"] = "pypi.org., d.test"
    found = network(user, allow=["*.e.test"], deny=["c.test"])
    assert [(rule.host, rule.port) for rule in found.allow] == [
        *(("pypi.org", None), ("b.test", 22), ("d.test", None), ("*.e.test", None)),
    ]
    assert [rule.host for rule in found.deny] == ["c.test"]


def test_a_preset_stands_for_its_hosts(user: User) -> None:
    rules = network(user, allow=["@python"]).allow
    assert {"pypi.org", "files.pythonhosted.org"} <= {rule.host for rule in rules}
    assert all(rule.text.startswith("@python") for rule in rules)


def test_ports_replace_those_of_a_lower_layer(user: User) -> None:
    user.configure("[network]\nports = [22, 443, 22]")
    assert network(user).ports == (22, 443)
    assert network(user, ports="8080, 80").ports == (80, 8080)
    assert network(user, ports=[5432]).ports == (5432,)


def test_a_name_leads_where_the_highest_layer_says(user: User) -> None:
    user.configure("[network]\nhosts = ['db.test=10.0.0.1', 'x.test:443=10.0.0.2:8443']")
    found = network(user, hosts=["DB.test=10.0.0.3"]).addresses
    assert [(each.name, each.port, each.address, each.to_port) for each in found] == [
        ("x.test", 443, "10.0.0.2", 8443),
        ("db.test", None, "10.0.0.3", None),
    ]


def test_ports_inward_are_of_this_machine_alone_unless_said_otherwise(user: User) -> None:
    user.configure("[network]\npublish = [3000, '0.0.0.0:8080:80']")
    assert network(user, publish=["0:22", "3000"]).publish == (
        Publish(address="0.0.0.0", port=8080, guest_port=80),
        Publish(address="127.0.0.1", port=3000, guest_port=3000),
        Publish(address="127.0.0.1", port=0, guest_port=22),
    )


def test_one_port_does_not_lead_to_two(user: User) -> None:
    with pytest.raises(ConfigError, match=r"port 8080 of 127\.0\.0\.1 is to lead to two ports"):
        network(user, publish=["8080:80", "8080:81"])


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, False),
        ({"allow": ["a.test"]}, True),
        ({"allow": ["a.test"], "ports": [443]}, False),
        ({"allow": ["a.test:8080"], "ports": [443]}, False),
        ({"mode": "none", "allow": ["a.test:80"]}, False),
        ({"gateways": ["anthropic"]}, True),
        ({"secrets": ["T@a.test"]}, False),
        ({"secrets": ["T@a.test:80"]}, True),
    ],
)
def test_a_port_that_no_program_can_listen_on_is_told(
    user: User, options: dict[str, object], warned: bool
) -> None:
    user.environ |= {"ANTHROPIC_API_KEY": "x", "T": "x"}
    warnings = user.spec(overrides={"network": {"publish": ["8080:80"], **options}}).warnings
    assert any("listen on port 80" in warning for warning in warnings) == warned


def test_limits_are_as_said(user: User) -> None:
    found = network(user, max_connections=3, rate="0.5", max_bytes="1GiB", idle="30s").limits
    assert found == Limits(connections=3, rate=0.5, total=1 << 30, idle=30.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mode": "open"}, "none of none, allow, internet"),
        ({"allow": ["https://pypi.org"]}, "is a URL"),
        ({"allow": ["a b"]}, "is not a host name"),
        ({"allow": ["a.test:0"]}, "is not a port"),
        ({"allow": ["@nothing"]}, "no preset"),
        ({"allow": [""]}, "no name"),
        ({"allow": ["openai.corral.internal"]}, "lead to gateways only"),
        ({"allow": ["*.corral.internal"]}, "lead to gateways only"),
        ({"deny": ["1.2.3.4/33"]}, "is not a network"),
        ({"hosts": ["db.test"]}, "NAME"),
        ({"hosts": ["db.test=other.test"]}, "an address is needed"),
        ({"hosts": ["anthropic.corral.internal=127.0.0.1"]}, "lead to gateways only"),
        ({"publish": ["x.test:1:2"]}, "is not an address of this machine"),
        ({"publish": ["70000"]}, "is not a port"),
        ({"publish": ["0"]}, "which port of the sandbox"),
        ({"publish": [True]}, "is not a port"),
        ({"ports": "80,http"}, "is not a port"),
        ({"ports": ",".join(map(str, range(1, 100)))}, "1 to 64 ports"),
        ({"ports": ["0"]}, "out of range"),
        ({"max_connections": 0}, "out of range"),
        ({"rate": 0}, "is not a rate"),
        ({"rate": "nan"}, "is not a rate"),
        ({"rate": True}, "is not a rate"),
        ({"max_bytes": "1"}, "out of range"),
        ({"idle": "0s"}, "out of range"),
        ({"gateways": ["Anthropic"]}, "not a name for a gateway"),
        ({"gateways": ["a.b"]}, "not a name for a gateway"),
        ({"gateways": ["-a"]}, "not a name for a gateway"),
        ({"secrets": ["1A@a.test"]}, "not a name for a secret"),
        ({"secrets": ["A@"]}, "no name"),
        ({"secrets": ["A@*"]}, "a secret cannot be for"),
        ({"secrets": ["A@*.com"]}, "a secret cannot be for"),
        ({"secrets": ["A@192.0.2.7"]}, "a secret cannot be for"),
        ({"secrets": ["A@192.0.2.0/24"]}, "a secret cannot be for"),
        ({"secrets": ["A@@python"]}, "a secret cannot be for"),
        ({"secrets": ["A@x.corral.internal"]}, "lead to gateways only"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    user: User, options: dict[str, object], match: str
) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        network(user, **options)
    assert caught.value.message.startswith("--")
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[network]\nmode = 'all'", "line 2: network.mode"),
        ("[network]\nallow = ['a b']", "line 2: network.allow"),
        ("[network]\nallow = 'a.test'", "expected a list"),
        ("[network]\npublish = [true]", "network.publish"),
        ("[network]\nport = [1]", "network.port is not a known key"),
        ("[network]\nidle = '0s'", "line 2: network.idle"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(user: User, text: str, match: str) -> None:
    user.configure(text)
    with pytest.raises(ConfigError, match=match):
        user.spec()


def test_what_has_no_effect_is_said(user: User) -> None:
    user.configure("[network]\nmode = 'none'\nallow = ['a.test']")
    (warning,) = user.spec().warnings
    assert "network.mode is none" in warning and str(user.config) in warning
    user.configure("[network]\nmode = 'allow'")
    assert "names no host" in user.spec().warnings[0]


@pytest.mark.parametrize("host", ["localhost:3000", "127.0.0.1", "[::1]:80", "127.0.0.0/8"])
def test_a_server_of_this_machine_is_not_localhost(user: User, host: str) -> None:
    (warning,) = user.spec(overrides={"network.allow": [host]}).warnings
    assert "the sandbox itself" in warning and "--host" in warning


def test_a_misspelt_variable_takes_nothing_away_from_the_spec(user: User) -> None:
    user.environ |= {"CORRAL_NTE": "none", "CORRAL_ALLOW": "a.test", "CORRAL_LIMIT_PIDS": "100"}
    spec = user.spec()
    assert "CORRAL_NET" in spec.warnings[0]
    assert spec.limits.pids == 100 and spec.network.mode == "allow"
