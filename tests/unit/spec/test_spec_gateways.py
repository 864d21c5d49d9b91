"""Gateways and secrets: the user's own tables, and that keys stay where the sandbox cannot get."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.errors import ConfigError
from corral.policy import Gateway, Key, Secret
from corral.spec import Spec
from corral.spec.load import known_doors
from corral.spec.show import as_data, as_toml

from .conftest import User

TOKEN = "gh" + "p_9fK2mQ7xR4tV8wY1zB3cD5eF6gH0jLaNpSuX"
KEY = "sk-" + "ant-api03-AbCdEfGhIjKlMnRpQrStUvWxYz9042817365"


def gateways(user: User, *names: str, **options: Any) -> tuple[Gateway, ...]:
    return user.spec(overrides={"network.gateways": list(names)}, **options).gateways


def secrets(user: User, *names: str, **options: Any) -> tuple[Secret, ...]:
    return user.spec(overrides={"network.secrets": list(names)}, **options).secrets


def refused(user: User, match: str, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError, match=match) as caught:
        user.spec(**options)
    assert KEY not in caught.value.message + (caught.value.hint or "")
    assert caught.value.message.isprintable()
    return caught.value


ANTHROPIC: dict[str, Any] = {"overrides": {"network.gateways": ["anthropic"]}}


def test_two_gateways_need_no_table(user: User) -> None:
    user.environ |= {"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": KEY}
    first, second = gateways(user, "anthropic", "openai", "anthropic")
    assert (first.name, first.dialect, first.upstream) == (
        *("anthropic", "anthropic"),
        "https://api.anthropic.com",
    )
    assert first.key == Key(kind="env", value=("ANTHROPIC_API_KEY",))
    assert (second.dialect, second.key) == (
        "openai",
        Key(kind="env", value=("OPENAI_API_KEY",)),
    )


def test_a_table_says_the_rest(user: User) -> None:
    key = user.home / "key"
    key.write_text(KEY)
    user.configure(
        """
        [gateway.anthropic]
        key = { file = "~/key" }
        models = ["claude-*"]
        budget_usd = 5
        agent_budget_usd = 0.5
        rpm = 60
        [gateway.local]
        dialect = "openai"
        upstream = "http://localhost:11434/v1/"
        header = "X-Api-Key"
        """
    )
    first, second = gateways(user, "anthropic", "local")
    assert first == Gateway(
        name="anthropic",
        dialect="anthropic",
        upstream="https://api.anthropic.com",
        key=Key(kind="file", value=(str(key),)),
        models=("claude-*",),
        budget_usd=5.0,
        agent_budget_usd=0.5,
        rpm=60,
    )
    assert (second.upstream, second.key) == ("http://localhost:11434/v1", None)
    assert second.header == "x-api-key"
    assert user.spec().gateways == (), "a table alone gives nothing to a sandbox"


def test_a_key_does_not_follow_to_another_upstream(user: User) -> None:
    user.environ["ANTHROPIC_API_KEY"] = KEY
    user.configure('[gateway.anthropic]\nupstream = "https://proxy.example.org"')
    (gateway,) = gateways(user, "anthropic")
    assert gateway.key is None
    user.configure('[gateway.anthropic]\nupstream = "https://api.anthropic.com/"')
    (gateway,) = gateways(user, "anthropic")
    assert gateway.key is not None


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('{ env = "K" }', Key(kind="env", value=("K",))),
        ('{ keyring = ["s", "u"] }', Key(kind="keyring", value=("s", "u"))),
        ('{ command = ["env", "-i"] }', Key(kind="command", value=("/usr/bin/env", "-i"))),
        ('{ command = ["/bin/sh", "x y"] }', Key(kind="command", value=("/bin/sh", "x y"))),
        ('{ file = "key" }', Key(kind="file", value=("CONFIG/key",))),
        ('{ claude = "~/login" }', Key(kind="claude", value=("HOME/login",))),
        ("{ claude = true }", Key(kind="claude", value=("HOME/.claude/.credentials.json",))),
    ],
)
def test_where_keys_are_found(
    user: User, monkeypatch: pytest.MonkeyPatch, key: str, expected: Key
) -> None:
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    user.environ["K"] = KEY
    user.folder(".claude")
    places = {"CONFIG": user.config.parent, "HOME": user.home}
    for file in (user.config.parent / "key", user.home / "login"):
        file.write_text(KEY)
    (user.home / ".claude" / ".credentials.json").write_text("{}")
    value = expected.value
    for word, folder in places.items():
        value = tuple(part.replace(word, str(folder)) for part in value)
    user.configure(f"[gateway.anthropic]\nkey = {key}")
    (gateway,) = gateways(user, "anthropic")
    assert gateway.key == Key(kind=expected.kind, value=value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[gateway.mine]\nupstream = 'https://x.test'", "gateway.mine: dialect is missing"),
        ("[gateway.mine]\ndialect = 'openai'", "gateway.mine: upstream is missing"),
        ("[gateway.mine]\ndialect = 'soap'", "line 2: gateway.mine.dialect: invalid enum"),
        ("[gateway.Mine]\ndialect = 'openai'", "not a name for a gateway"),
        ("[gateway]\nupstream = 'https://x.test'", "gateway.upstream: expected a table"),
        ("gateway = 3", "gateway: expected a table"),
        ("[gateway.anthropic]\nupsteam = 'x'", "line 2: gateway.anthropic.upsteam is not a known"),
        ("[gateway.anthropic]\nrpm = 'x'", "line 2: gateway.anthropic.rpm: expected a whole"),
        ("[gateway.anthropic]\nrpm = 0", "rpm is out of range"),
        ("[gateway.anthropic]\nbudget_usd = 0", "budget_usd is out of range"),
        ("[gateway.anthropic]\nbudget_usd = nan", "budget_usd is out of range"),
        ("[gateway.anthropic]\nagent_budget_usd = inf", "agent_budget_usd is out of range"),
        ("[gateway.anthropic]\nmodels = []", "models has 0 patterns"),
        ("[gateway.anthropic]\nmodels = ['']", "not a pattern"),
        ("[gateway.anthropic]\nheader = 'a b'", "not a header"),
        ("[gateway.anthropic]\nheader = 'Host'", "not a header"),
        ("[gateway.anthropic]\nheader = 'transfer-encoding'", "not a header"),
        ("[gateway.anthropic]\nkey = 'x'", "gateway.anthropic.key: expected a table"),
        ("[gateway.anthropic]\nkey = {}", "key has none of env, command"),
        ("[gateway.anthropic]\nkey = {env = 'A', file = 'b'}", "more than one"),
        ("[gateway.anthropic]\nkey = {vault = 'A'}", "unknown field `vault`"),
        ("[gateway.anthropic]\nkey = {env = 'A B'}", "not a name for an environment variable"),
        ("[gateway.anthropic]\nkey = {command = []}", "command is not a list"),
        ("[gateway.anthropic]\nkey = {command = ['']}", "command is not a list"),
        ("[gateway.anthropic]\nkey = {keyring = ['one']}", "keyring is not a service"),
        ("[gateway.anthropic]\nkey = {file = ''}", "path is empty"),
        ("[gateway.anthropic]\nkey = {claude = false}", "key has none of"),
        ("[secrets.TOKEN]\nheader = 'x'", "hosts is missing"),
        ("[secrets.TOKEN]\nhosts = []", "secrets.TOKEN: hosts is empty"),
        ("[secrets.TOKEN]\nhosts = ['*']", "a secret cannot be for"),
        ("[secrets.TOKEN]\nhosts = ['a.test']\nheader = 'host'", "not a header"),
        ("[secrets.'A-B']\nhosts = ['a.test']", "not a name for a secret"),
        ("[secrets.TOKEN]\nhosts = ['a.test']\nkeys = 1", "secrets.TOKEN.keys is not a known"),
    ],
)
def test_a_wrong_table_is_an_error_though_nobody_asks_for_it(
    user: User, text: str, match: str
) -> None:
    user.configure(text)
    refused(user, match)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("api.x.test", "begin with https"),
        ("ftp://x.test", "begin with https"),
        ("https:x.test", "begin with https"),
        ("https:\\\\\\\\x.test", "begin with https|not a URL"),
        ("https://", "no host"),
        ("https://x.test:0", "no host"),
        ("https://x.test:70000", "not a URL"),
        ("https://x%2etest", "no host"),
        ("https://[::1", "not a URL"),
        ("https://u:" + KEY + "@x.test", "it has a login"),
        ("https://@x.test", "it has a login"),
        ("https://x.test/?key=1", "query"),
        ("https://x.test/?", "query"),
        ("https://x.test/#a", "fragment"),
        ("https://x.test /", "has a space"),
        ("https://x.test/\\n", "has a space"),
        ("https://ex\\u00e4mple.test", "not plain ASCII"),
        ("https://x.test/" + "a" * 2048, "not a URL"),
    ],
)
def test_an_upstream_is_a_plain_url(user: User, url: str, match: str) -> None:
    user.configure(f'[gateway.mine]\ndialect = "openai"\nupstream = "{url}"')
    refused(user, match)


@pytest.mark.parametrize(
    ("upstream", "warned"),
    [
        ("http://localhost:1", False),
        ("http://127.0.0.1:1", False),
        ("http://[::1]:1", False),
        ("https://x.test", False),
        ("http://192.0.2.7", True),
        ("http://x.test", True),
    ],
)
def test_a_key_that_goes_out_unencrypted_is_warned_about(
    user: User, upstream: str, warned: bool
) -> None:
    user.environ["K"] = KEY
    table = f'[gateway.mine]\ndialect = "openai"\nupstream = "{upstream}"\n'
    user.configure(table + 'key = {env = "K"}')
    wanted = {"network.gateways": ["mine"]}
    assert bool(user.spec(overrides=wanted).warnings) == warned
    user.configure(table)
    assert user.spec(overrides=wanted).warnings == ()


def test_a_gateway_that_is_not_known_is_named_with_the_nearest(user: User) -> None:
    assert "anthropic" in (refused(user, "no gateway", **_asked("antropic")).hint or "")
    assert "[gateway.zzz]" in (refused(user, "no gateway", **_asked("zzz")).hint or "")


def _asked(name: str) -> dict[str, Any]:
    return {"overrides": {"network.gateways": [name]}}


@pytest.mark.parametrize("value", [None, ""])
def test_a_key_that_is_not_set_is_an_error_before_anything_starts(
    user: User, value: str | None
) -> None:
    if value is not None:
        user.environ["ANTHROPIC_API_KEY"] = value
    error = refused(user, "ANTHROPIC_API_KEY, which is not set", **ANTHROPIC)
    assert "export ANTHROPIC_API_KEY" in (error.hint or "")
    assert "claude = true" not in (error.hint or "")
    (user.folder(".claude") / ".credentials.json").touch()
    assert "claude = true" in (refused(user, "not set", **ANTHROPIC).hint or "")


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("{ file = '~/none' }", "No such file"),
        ("{ file = '~' }", "not a file that you can read"),
        ("{ claude = '~/none' }", "No such file"),
        ("{ command = ['no-such-program-here'] }", "not found"),
        ("{ command = ['/etc/passwd'] }", "not found"),
    ],
)
def test_a_key_that_cannot_be_had_is_an_error(user: User, key: str, match: str) -> None:
    user.configure(f"[gateway.anthropic]\nkey = {key}")
    refused(user, match, **ANTHROPIC)


def test_a_keyring_without_its_library_is_an_error(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    user.configure("[gateway.anthropic]\nkey = { keyring = ['s', 'u'] }")
    error = refused(user, "a library is missing", **ANTHROPIC)
    assert "[keyring]" in (error.hint or "")


def test_a_secret_without_what_puts_it_in_is_an_error(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    user.environ["TOKEN"] = KEY
    error = refused(user, "not installed: mitmproxy", overrides=_secret("TOKEN@a.test"))
    assert "[intercept]" in (error.hint or "")


def test_a_key_that_the_sandbox_could_read_is_refused(user: User) -> None:
    inside = user.project / "key"
    inside.write_text(KEY)
    data = user.folder("data")
    (data / "key").write_text(KEY)
    user.configure(f"[gateway.anthropic]\nkey = {{ file = '{inside}' }}")
    refused(user, "which the sandbox could read", **ANTHROPIC)
    masked = {"network.gateways": ["anthropic"], "workspace.mask": ["/key"]}
    refused(user, "which the sandbox could change", overrides=masked)
    read_only = {**masked, "workspace.read_only": True}
    assert user.spec(overrides=read_only).gateways[0].key is not None

    user.configure("[gateway.anthropic]\nkey = { file = '~/data/key' }")
    assert user.spec(**ANTHROPIC)
    shared = {**ANTHROPIC["overrides"], "share": [f"{data}:/mnt/data"]}
    refused(user, "which the sandbox could read", overrides=shared)

    (user.home / "link").symlink_to(inside)
    user.configure("[gateway.anthropic]\nkey = { file = '~/link' }")
    refused(user, "which the sandbox could read", **ANTHROPIC)
    (user.project / "way").symlink_to(user.home / "data")
    user.configure(f"[gateway.anthropic]\nkey = {{ file = '{user.project}/way/key' }}")
    refused(user, "which the sandbox could read", **ANTHROPIC)


@pytest.mark.parametrize("how", ["path", "program", "script", "link"])
def test_a_command_that_the_sandbox_could_change_is_refused(user: User, how: str) -> None:
    tool = user.project / "bin" / "get-key"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    words: list[str] = [str(tool)]
    if how == "path":  # as an activated virtual environment does
        user.environ["PATH"] = f"{tool.parent}:/usr/bin:/bin"
        words = ["get-key"]
    elif how == "script":
        words = ["/bin/sh", str(tool)]
    elif how == "link":
        (user.home / "get-key").symlink_to(tool)
        words = [str(user.home / "get-key")]
    user.configure(f"[gateway.anthropic]\nkey = {{ command = {json.dumps(words)} }}")
    refused(user, "which the sandbox could change", **ANTHROPIC)
    read_only = {**ANTHROPIC["overrides"], "workspace.read_only": True}
    (gateway,) = user.spec(overrides=read_only).gateways
    assert gateway.key is not None and gateway.key.value[0].startswith("/")


def test_a_command_is_not_looked_for_where_another_sandbox_had_the_folder(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name alone; a path is what the user says. --ro: this sandbox could not change it."""
    before = user.project.parent / "before" / "bin"
    own = user.home / "bin"
    for folder in (before, own):
        folder.mkdir(parents=True)
        (folder / "get-key").write_text("#!/bin/sh\n")
        (folder / "get-key").chmod(0o755)
    user.environ["PATH"] = f"{before}:{own}"
    user.configure("[gateway.anthropic]\nkey = { command = ['get-key'] }")

    def program() -> str:
        (gateway,) = user.spec(**ANTHROPIC).gateways
        assert gateway.key is not None
        return gateway.key.value[0]

    assert program() == f"{before}/get-key"
    monkeypatch.setattr("corral.spec.keys.changeable", lambda: frozenset({str(before.parent)}))
    assert program() == f"{own}/get-key"
    user.configure(f"[gateway.anthropic]\nkey = {{ command = ['{before}/get-key'] }}")
    assert program() == f"{before}/get-key"


def test_a_secret_is_of_a_table_or_of_a_variable(user: User) -> None:
    user.environ |= {"TOKEN": KEY, "OTHER": KEY}
    user.configure(
        "[secrets.TOKEN]\nhosts = ['API.github.com', '*.x.test:8443', 'y.test:443']\n"
        "header = 'X-Token'\nkey = {env = 'OTHER'}"
    )
    (secret,) = secrets(user, "TOKEN")
    assert secret == Secret(
        name="TOKEN",
        hosts=("api.github.com", "*.x.test:8443", "y.test"),
        header="x-token",
        key=Key(kind="env", value=("OTHER",)),
    )
    (elsewhere,) = secrets(user, "TOKEN@a.test,b.test:444")
    assert (elsewhere.hosts, elsewhere.header) == (("a.test", "b.test:444"), "x-token")
    (plain,) = secrets(user, "OTHER@a.test")
    assert plain == Secret(
        name="OTHER",
        hosts=("a.test",),
        header="authorization",
        key=Key(kind="env", value=("OTHER",)),
    )
    error = refused(user, "the secret NONE .* has no hosts", overrides=_secret("NONE"))
    assert "--secret NONE@HOST" in (error.hint or "")
    refused(user, "NONE, which is not set", overrides=_secret("NONE@a.test"))


def _secret(name: str) -> dict[str, object]:
    return {"network.secrets": [name]}


@pytest.mark.parametrize("option", ["TOKEN", "TOKEN=x"])
def test_what_is_kept_out_is_not_passed_in_too(user: User, option: str) -> None:
    user.environ["TOKEN"] = user.environ["ANTHROPIC_API_KEY"] = KEY
    both: dict[str, object] = {"network.secrets": ["TOKEN@a.test"], "run.env": [option]}
    refused(user, "TOKEN is to be passed into the sandbox", overrides=both)
    name = option.replace("TOKEN", "ANTHROPIC_API_KEY")
    both = {"network.gateways": ["anthropic"], "run.env": [name]}
    refused(user, "ANTHROPIC_API_KEY is to be passed", overrides=both)


def test_a_key_is_in_no_spec_and_in_nothing_that_is_shown(user: User) -> None:
    (user.home / "key").write_text(KEY)
    user.environ |= {"ANTHROPIC_API_KEY": KEY, "TOKEN": KEY}
    user.configure(
        "[network]\ngateways = ['anthropic', 'openai']\nsecrets = ['TOKEN@a.test']\n"
        "[gateway.openai]\nkey = {file = '~/key'}"
    )
    spec = user.spec()
    assert len(spec.gateways) == 2 and len(spec.secrets) == 1
    loaded = user.collect()
    shown = as_toml(loaded) + json.dumps(as_data(loaded)) + repr(spec)
    assert KEY not in shown + msgspec.json.encode(spec).decode()
    assert "anthropic" in shown and "TOKEN@a.test" in shown
    assert f"gateway openai: https://api.openai.com/v1, key: file {user.home}/key" in shown
    again = msgspec.json.decode(msgspec.json.encode(spec), type=Spec)
    assert again == spec, "what `corral up` keeps is read back the same"


def test_of_a_command_for_a_key_only_the_program_is_shown(user: User) -> None:
    user.configure("[gateway.anthropic]\nkey = { command = ['echo', 'my-pin'] }")
    loaded = user.collect()
    shown = as_toml(loaded) + json.dumps(as_data(loaded))
    assert "key: command echo" in shown and "my-pin" not in shown


@pytest.mark.parametrize(
    "text",
    [
        f"[gateway.anthropic]\nkey = '{KEY}'",
        f"[gateway.anthropic]\nkey = {{ env = '{KEY}' }}",
        f"[gateway.anthropic]\nkey = {{ file = '{KEY}' }}",
        f"[gateway.anthropic]\nkey = {{ claude = '{KEY}' }}",
        f"[gateway.anthropic]\nkey = {{ command = ['echo', '{KEY}'] }}",
        f"[gateway.anthropic]\nkey = {{ keyring = ['x', '{KEY}'] }}",
        f"[gateway.anthropic]\nupstream = 'https://x:{KEY}@api.anthropic.com'",
        f"[network]\nsecrets = ['{TOKEN}@api.github.com']",
        f"[secrets.{TOKEN}]\nhosts = ['api.github.com']",
        f"[run]\npass_env = ['{TOKEN}']",
        f"[run]\nenv = {{ {TOKEN} = 'x' }}",
    ],
)
def test_a_key_that_is_written_where_its_place_should_be_is_not_repeated(
    user: User, text: str
) -> None:
    user.configure(text)
    error = refused(user, "config.toml")
    assert TOKEN not in error.message + (error.hint or "")


def test_names_are_known_for_completion(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_doors() == (["anthropic", "openai"], [])
    user.configure(
        "[gateway.mine]\ndialect = 'openai'\nupstream = 'http://localhost'\n"
        "[secrets.TOKEN]\nhosts = ['a.test']"
    )
    assert known_doors() == (["anthropic", "mine", "openai"], ["TOKEN"])


def test_planning_asks_no_command_and_opens_no_key(user: User, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    user.configure(
        f"[gateway.anthropic]\nkey = {{ command = ['{sys.executable}', '-c', "
        f'\'open("{witness}", "w")\'] }}'
    )
    assert gateways(user, "anthropic")
    assert not witness.exists()


@pytest.mark.parametrize("mode", [0o602, 0o666])
def test_tables_in_a_file_that_everybody_can_write_are_not_believed(user: User, mode: int) -> None:
    user.configure("[machine]\ncpus = 1")
    user.config.chmod(mode)
    assert user.spec()
    user.configure("[secrets.TOKEN]\nhosts = ['a.test']")
    error = refused(user, "could have been changed by others")
    assert "chmod 600" in (error.hint or "")
    user.config.chmod(0o640)
    assert user.spec()
