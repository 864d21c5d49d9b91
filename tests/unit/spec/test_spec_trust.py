"""Promise 7: a project's file may only tighten until the user has accepted it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import ConfigError, HostError, UntrustedConfigError
from corral.policy import Network, names
from corral.policy.decision import addresses_of, decide, decide_address
from corral.policy.names import Host
from corral.spec import trust
from corral.spec.layers import Kind, Layer, default_layer, merge, option_layer
from corral.spec.network import resolve_network
from corral.spec.values import Base

from .conftest import User

USERS = """
[machine]
cpus = 2
memory = "2GiB"
disk = "10GiB"
[limits]
memory = "4GiB"
[run]
timeout = "10m"
[network]
allow = ["pypi.org", "files.pythonhosted.org:443"]
ports = [22, 80, 443]
publish = ["8080:80"]
hosts = ["db.test=192.168.1.5"]
gateways = ["anthropic"]
secrets = ["TOKEN"]
max_bytes = "1GiB"
[[share]]
source = "~/data"
writable = true
[secrets.TOKEN]
hosts = ["a.test"]
[secrets.OTHER]
hosts = ["a.test"]
"""


@pytest.fixture
def configured(user: User) -> User:
    user.folder("data")
    user.folder("other")
    user.folder(".nvm")
    user.environ |= dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "TOKEN", "OTHER"), "x")
    user.configure(USERS)
    return user


def accept(user: User) -> None:
    project = user.collect().project
    assert project is not None
    trust.accept(project.path, project.sha256)


@pytest.mark.parametrize(
    "text",
    [
        "[machine]\ncpus = 1",
        "[machine]\ncpus = 2",
        "[machine]\nmemory = '1GiB'",
        "[machine]\naccel = 'auto'",
        "[machine]\ndisk = '5GiB'",
        "[machine]\ndisk = 'none'",
        "[limits]\nmemory = '3GiB'",
        "[limits]\npids = 100",
        "[workspace]\nread_only = true",
        "[workspace]\nread_only = false",
        "[workspace]\nreview = true",
        "[workspace]\nmask = ['.env', 'secrets/']",
        "[run]\ntimeout = '1m'",
        "[[share]]\nsource = '~/data'",
        "[network]\nmode = 'none'",
        "[network]\nmode = 'allow'",
        "[network]\nallow = ['PyPI.org.']",
        "[network]\nallow = ['files.pythonhosted.org:443']",
        "[network]\ndeny = ['*', '@python', '0.0.0.0/0']",
        "[network]\nports = [443]",
        "[network]\nports = [443, 80, 22]",
        "[network]\nhosts = ['db.test=192.168.1.5']",
        "[network]\npublish = ['127.0.0.1:8080:80']",
        "[network]\ngateways = ['anthropic']",
        "[network]\nsecrets = ['TOKEN']",
        "[network]\nmax_connections = 10\nrate = 1\nmax_bytes = '1MiB'\nidle = '1m'",
        "",
    ],
)
def test_tightening_needs_no_acceptance(configured: User, text: str) -> None:
    configured.write_project(text)
    configured.spec()


def test_a_disk_where_the_user_wants_none_is_widening(user: User) -> None:
    user.write_project("[machine]\ndisk = '64MiB'")
    with pytest.raises(UntrustedConfigError, match=r"machine\.disk: 64MiB instead of none"):
        user.spec()


def test_a_project_may_take_write_access_away(configured: User) -> None:
    assert configured.spec().shares[0].writable
    configured.write_project("[[share]]\nsource = '~/data'")
    assert not configured.spec().shares[0].writable


@pytest.mark.parametrize(
    ("text", "key", "what"),
    [
        ("[machine]\ncpus = 3", "machine.cpus", "3 instead of 2"),
        ("[machine]\nmemory = '3GiB'", "machine.memory", "3GiB instead of 2GiB"),
        ("[machine]\naccel = 'tcg'", "machine.accel", "tcg instead of auto"),
        ("[machine]\ndisk = '11GiB'", "machine.disk", "11GiB instead of 10GiB"),
        ("[limits]\nmemory = '5GiB'", "limits.memory", "5GiB instead of 4GiB"),
        ("[limits]\nio_weight = 10", "limits.io_weight", "10"),
        ("[machine]\nkernel = '/boot/mine'", "machine.kernel", "/boot/mine"),
        ("[workspace]\nmask = ['!.env']", "workspace.mask", "!.env"),
        ("[workspace]\nunprotect = ['.git/config']", "workspace.unprotect", ".git/config"),
        ("[[share]]\nsource = '~/other'", "share", "read-only access to"),
        ("[[share]]\nsource = '~/other'\nwritable = true", "share", "read-write access to"),
        ("[[share]]\nsource = '~/data'\ntarget = '/d'", "share", "data:/d"),
        ("[run]\ntimeout = '11m'", "run.timeout", "11m instead of 10m"),
        ("[run]\nuser = 'root'", "run.user", "root"),
        ("[run]\nworkdir = '/'", "run.workdir", "/"),
        ("[run]\nenv = {A = 'b'}", "run.env", "A=b"),
        ("[run]\npass_env = ['HOME']", "run.env", "taken from your environment"),
        ("[run]\ntools = ['~/.nvm']", "run.tools", ".nvm"),
        (
            "[network]\nmode = 'internet'",
            "network.mode",
            "any public host on the internet instead of only hosts that are allowed",
        ),
        ("[network]\nallow = ['*']", "network.allow", "connections to *"),
        ("[network]\nallow = ['files.pythonhosted.org']", "network.allow", "connections to files"),
        ("[network]\nallow = ['pypi.org:22']", "network.allow", "connections to pypi.org:22"),
        ("[network]\nallow = ['@node']", "network.allow", "registry.npmjs.org"),
        ("[network]\nallow = ['10.0.0.0/8']", "network.allow", "connections to 10.0.0.0/8"),
        ("[network]\nports = [22, 80, 443, 25]", "network.ports", "25, 80, 443 instead of 22, 80"),
        (
            "[network]\nhosts = ['pypi.org=10.0.0.1:22']",
            "network.hosts",
            "connections to 10.0.0.1:22, whenever the sandbox asks for pypi.org",
        ),
        (
            "[network]\nhosts = ['db.test=192.168.1.6']",
            "network.hosts",
            "connections to 192.168.1.6",
        ),
        (
            "[network]\npublish = ['3000']",
            "network.publish",
            "programs on this machine can connect to port 3000 of 127.0.0.1",
        ),
        (
            "[network]\npublish = ['0.0.0.0:8080:80']",
            "network.publish",
            "everyone who reaches this machine can connect to port 8080 of 0.0.0.0",
        ),
        (
            "[network]\ngateways = ['openai']",
            "network.gateways",
            "your gateway openai, with your key and at your cost",
        ),
        ("[network]\nsecrets = ['OTHER']", "network.secrets", "requests with your OTHER"),
        ("[network]\nmax_connections = 1000", "network.max_connections", "1000 instead of 256"),
        ("[network]\nrate = 60.5", "network.rate", "60.5 instead of 50"),
        ("[network]\nmax_bytes = '2GiB'", "network.max_bytes", "2GiB instead of 1GiB"),
        ("[network]\nidle = '1h'", "network.idle", "1h instead of 15m"),
    ],
)
def test_widening_is_refused_and_says_what_and_how_to_accept(
    configured: User, text: str, key: str, what: str
) -> None:
    path = configured.write_project(text)
    with pytest.raises(UntrustedConfigError) as caught:
        configured.spec()
    assert str(path) in caught.value.message
    assert f"{key}: " in caught.value.message
    assert what in caught.value.message
    assert f"corral trust {path}" in (caught.value.hint or "")


def test_every_widening_is_named_at_once(configured: User) -> None:
    configured.write_project("[machine]\ncpus = 4\n[run]\nuser = 'root'")
    with pytest.raises(UntrustedConfigError) as caught:
        configured.spec()
    assert "machine.cpus" in caught.value.message and "run.user" in caught.value.message


def test_what_the_user_overrules_widens_nothing(configured: User) -> None:
    configured.write_project("[machine]\ncpus = 8\n[run]\nenv = {A = '1'}")
    spec = configured.spec(overrides={"machine.cpus": 1, "run.env": ["A=2"]})
    assert spec.machine.cpus == 1 and spec.run.env == (("A", "2"),)


def test_a_network_where_the_user_wants_none_is_widening(user: User) -> None:
    user.write_project("[network]\nallow = ['pypi.org']")
    with pytest.raises(UntrustedConfigError) as caught:
        user.spec()
    assert "network.mode: only hosts that are allowed instead of no network" in caught.value.message
    assert "network.allow: connections to pypi.org" in caught.value.message
    allowed = user.spec(overrides={"network.allow": ["pypi.org"]}).network
    assert [rule.host for rule in allowed.allow] == ["pypi.org"]


def test_what_a_project_denies_is_denied_though_the_user_allows_it(configured: User) -> None:
    configured.write_project("[network]\ndeny = ['pypi.org']\nmode = 'allow'")
    network = configured.spec().network
    verdict = decide(network, Host("pypi.org"), 443)
    assert (verdict.allowed, verdict.reason) == (False, "denied by a rule")
    configured.write_project("")
    assert decide(configured.spec().network, Host("pypi.org"), 443).allowed


KEYS = [
    "[gateway.anthropic]\nupstream = 'https://evil.test'",
    "[gateway.anthropic]\nkey = {command = ['/bin/sh', '-c', 'touch /tmp/planted']}",
    "[gateway.mine]\ndialect = 'openai'\nupstream = 'http://127.0.0.1:1'",
    "[gateway.anthropic]",
    "gateway = {anthropic = {upstream = 'https://evil.test'}}",
    "[secrets.TOKEN]\nhosts = ['evil.test']",
    "[secrets.TOKEN]\nhosts = ['a.test']\nkey = {file = '/etc/shadow'}",
    "[network]\nsecrets = ['TOKEN@evil.test']",
    "[network]\nsecrets = ['AWS_SECRET_ACCESS_KEY@evil.test']",
]


@pytest.mark.parametrize("text", KEYS)
def test_keys_and_where_they_go_are_never_taken_from_a_project(configured: User, text: str) -> None:
    """Not if it is accepted, nor if it is named with --config; the user's own file may say it."""
    path = configured.write_project(text)
    why = r"(?:keys, commands .* are|where \w+ may go is) never taken from a project's file"
    with pytest.raises(ConfigError, match=why) as caught:
        configured.spec()
    assert not isinstance(caught.value, UntrustedConfigError)
    assert "config.toml" in (caught.value.hint or "")
    trust.accept(str(path), trust.digest(path.read_bytes()))
    with pytest.raises(ConfigError, match=why):
        configured.spec()
    named = configured.home / "named.toml"
    named.write_text(text)
    path.unlink()
    with pytest.raises(ConfigError, match=why):
        configured.spec(config_file=named)
    configured.configure(text)
    configured.environ["AWS_SECRET_ACCESS_KEY"] = "x"
    assert configured.spec()


def test_a_project_gets_a_key_only_to_where_the_user_lets_it(configured: User) -> None:
    configured.write_project("[network]\nsecrets = ['OTHER']\ngateways = ['openai']")
    accept(configured)
    spec = configured.spec()
    assert {secret.name: secret.hosts for secret in spec.secrets} == {
        "TOKEN": ("a.test",),
        "OTHER": ("a.test",),
    }
    assert spec.gateways[1].upstream == "https://api.openai.com/v1"
    configured.write_project("[network]\nsecrets = ['PATH']")
    accept(configured)
    with pytest.raises(ConfigError, match=r"the secret PATH .* has no hosts"):
        configured.spec()


def test_a_file_that_is_swapped_after_it_was_shown_is_not_the_one_accepted(
    configured: User,
) -> None:
    path = configured.write_project("[network]\nallow = ['harmless.test']")
    shown = configured.collect()
    assert shown.project is not None
    configured.write_project("[network]\nallow = ['*']\nmode = 'internet'")
    trust.accept(shown.project.path, shown.project.sha256)
    with pytest.raises(UntrustedConfigError, match=r"connections to \*"):
        configured.spec()
    path.write_text("[network]\nallow = ['harmless.test']")
    assert configured.spec().network.allow[-1].host == "harmless.test"


def test_what_a_project_asks_for_cannot_paint_over_what_it_is(configured: User) -> None:
    for text in (
        "[network]\nallow = ['a.test\\u001b[2K', '\\u202eevil.test']",
        "[network]\nhosts = ['a\\u001b[2K.test=1.2.3.4']",
        "[network]\npublish = ['80\\n80']",
        "[network]\nsecrets = ['A\\u0007']",
    ):
        configured.write_project(text.replace("'", '"'))
        with pytest.raises(ConfigError) as caught:
            configured.spec()
        assert caught.value.message.replace("\n", "").isprintable()


HOSTS = ["a.test", "b.a.test", "c.test", "10.0.0.1", "10.1.2.3", "192.0.2.7"]
_rules = st.lists(
    st.sampled_from(
        [
            *("a.test", "*.a.test", "b.a.test:80", "c.test:22", "A.test.", "*", "*:80"),
            *("10.0.0.1", "10.0.0.0/8", "10.0.0.0/8:22", "192.0.2.7:443", "0.0.0.0/0"),
        ]
    ),
    max_size=3,
)
_networks = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["none", "allow", "internet"]),
        "allow": _rules,
        "deny": _rules,
        "ports": st.lists(st.sampled_from([22, 80, 443]), min_size=1, max_size=3),
        "hosts": st.lists(
            st.sampled_from(["a.test=10.0.0.1", "a.test:80=10.1.2.3:22", "c.test=192.0.2.7"]),
            max_size=2,
            unique=True,
        ),
        "publish": st.lists(st.sampled_from(["8080:80", "0:80", "3000"]), max_size=2),
        "max_connections": st.integers(1, 600),
        "idle": st.sampled_from(["1m", "1h"]),
    },
)


def _layer(kind: Kind, network: dict[str, object]) -> Layer:
    overrides = option_layer({"network": network}, Base("/", "/", "/"))
    return Layer(kind, overrides.values, overrides.origins)


def _outgoing(network: Network) -> set[tuple[str, int, str]]:
    """Every (host, port, address) of a small world that the policy lets through."""
    found = set()
    for text in HOSTS:
        host = names.parse(text)
        for port in (22, 80, 443):
            if not decide(network, host, port).allowed:
                continue
            given = addresses_of(network, host, port)
            literal = [host.text] if host.address is not None else ["10.0.0.1", "93.184.215.14"]
            for address in literal if not given else [each.address for each in given]:
                parsed = names.parse(address).address
                assert parsed is not None
                if decide_address(network, parsed, port, named=bool(given)).allowed:
                    found.add((text, port, address))
    return found


@settings(max_examples=400)
@given(_networks, _networks, _networks)
def test_what_needs_no_acceptance_opens_nothing(
    users: dict[str, object], project: dict[str, object], options: dict[str, object]
) -> None:
    """Whatever the user's file and options say: the policies are compared by what they let by."""
    lower = [default_layer(1, 1 << 30), _layer("user", users)]
    upper = [_layer("command line", options)]
    without = merge([*lower, *upper])
    merged = merge([*lower, _layer("project", project), *upper])
    if trust.widenings(without, merged):
        return
    before, after = (resolve_network(each, []) for each in (without, merged))
    assert _outgoing(after) <= _outgoing(before)
    assert set(after.publish) <= set(before.publish)
    assert after.limits.connections <= before.limits.connections
    assert after.limits.idle <= before.limits.idle


def test_an_accepted_file_may_widen_until_it_changes(configured: User) -> None:
    configured.write_project("[machine]\ncpus = 3")
    accept(configured)
    assert configured.spec().machine.cpus == 3
    configured.write_project("[machine]\ncpus = 4")
    with pytest.raises(UntrustedConfigError) as caught:
        configured.spec()
    assert "changed since you accepted it" in (caught.value.hint or "")


def test_an_acceptance_is_of_one_place_and_can_be_taken_back(
    configured: User, tmp_path: Path
) -> None:
    path = configured.write_project("[machine]\ncpus = 3")
    accept(configured)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "corral.toml").write_bytes(path.read_bytes())
    with pytest.raises(UntrustedConfigError):
        configured.spec(copy)
    assert trust.forget(str(path)) is True
    assert trust.forget(str(path)) is False
    with pytest.raises(UntrustedConfigError):
        configured.spec()


def test_a_link_planted_as_the_projects_file_is_refused(configured: User, tmp_path: Path) -> None:
    configured.write_project("[machine]\ncpus = 3")
    accept(configured)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "corral.toml").symlink_to(configured.project / "corral.toml")
    with pytest.raises(ConfigError, match="symbolic link"):
        configured.spec(victim)


@pytest.mark.parametrize("kind", ["folder", "fifo", "large"])
def test_what_is_no_ordinary_file_is_refused_without_waiting(configured: User, kind: str) -> None:
    path = configured.project / "corral.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError, match=r"not a regular file|larger than 1 MiB"):
        configured.spec()


def test_a_link_in_the_project_does_not_choose_what_an_accepted_file_shares(
    configured: User,
) -> None:
    configured.write_project("[[share]]\nsource = 'lib'\ntarget = '/data'")
    sub = configured.project / "sub"
    sub.mkdir()
    (configured.project / "lib").mkdir()
    accept(configured)
    assert configured.spec(sub).shares[-1].source == str(configured.project / "lib")
    (configured.project / "lib").rmdir()
    (configured.project / "lib").symlink_to(configured.home / "other")
    with pytest.raises(ConfigError, match="is a link out of"):
        configured.spec(sub)


def test_a_named_file_inside_the_workspace_needs_acceptance_too(configured: User) -> None:
    inside = configured.project / "ci.toml"
    inside.write_text("[machine]\ncpus = 3")
    with pytest.raises(UntrustedConfigError):
        configured.spec(config_file=inside)
    shared = configured.home / "data" / "ci.toml"
    shared.write_text("[machine]\ncpus = 3")
    with pytest.raises(UntrustedConfigError):
        configured.spec(config_file=shared)


def test_what_a_file_asks_for_is_shown_without_secrets_and_escape_sequences(
    configured: User,
) -> None:
    configured.write_project("[run]\nenv = {API_TOKEN = 'hunter2', B = '\\u001b[2J'}")
    with pytest.raises(UntrustedConfigError) as caught:
        configured.spec()
    assert "hunter2" not in caught.value.message
    assert "\x1b" not in caught.value.message


def test_the_record_is_private_and_survives_many_writers(configured: User, tmp_path: Path) -> None:
    def one(number: int) -> None:
        trust.accept(f"/p/{number}/corral.toml", "0" * 64)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))
    record = tmp_path / "state" / trust.RECORD_NAME
    assert record.stat().st_mode & 0o777 == 0o600
    assert all(trust.is_accepted(f"/p/{number}/corral.toml", "0" * 64) for number in range(40))
    assert not trust.is_accepted("/p/1/corral.toml", "1" * 64)


def test_a_record_that_others_could_write_is_not_believed(configured: User, tmp_path: Path) -> None:
    configured.write_project("[machine]\ncpus = 3")
    accept(configured)
    record: Path = tmp_path / "state" / trust.RECORD_NAME
    record.chmod(0o666)
    with pytest.raises(HostError, match="changed by others"):
        configured.spec()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"version": 2, "files": {}}'])
def test_a_damaged_record_is_an_error_and_accepts_nothing(
    configured: User, tmp_path: Path, content: bytes
) -> None:
    configured.write_project("[machine]\ncpus = 3")
    accept(configured)
    (tmp_path / "state" / trust.RECORD_NAME).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        configured.spec()
    assert "Remove" in (caught.value.hint or "")
