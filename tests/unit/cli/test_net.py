"""`corral net`: the log as a table and as JSON, what a policy says, what a list could be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from corral.cli import learning, net
from corral.cli.connections import HEADER, explain
from corral.errors import CorralError
from corral.journal import Journal
from corral.paths import log_dir
from corral.policy import Network
from corral.policy.learn import Reached, propose
from corral.policy.rules import parse_rules


def event(name: str, port: int = 443, **more: object) -> dict[str, object]:
    return {
        "event": "connection",
        "time": 1.0,
        "agent": 1,
        "name": name,
        "port": port,
        "verdict": "allowed",
        "rule": "x",
        **more,
    }


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path))
    path = log_dir("app") / "network.jsonl"
    lines = [
        event("a.test", address="192.0.2.1"),
        event("a.test", address="192.0.2.1", sent=1500, received=2_000_000, seconds=1.5),
        event("evil.test", verdict="denied", reason="not on the list", rule="", agent=2),
        event("x\x1b[2J", verdict="failed", reason="no such name"),
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + '{"cut')
    return path


def called(*arguments: str) -> list[str]:
    result = CliRunner().invoke(net.command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_the_log_is_a_table_for_a_person(log: Path) -> None:
    lines = called("log", "app")
    assert lines[0] == HEADER and len(lines) == 5
    assert "allowed  a.test:443 (192.0.2.1), by x" in lines[1]
    assert "sent 1.5 KB, received 2.0 MB, 1.5 s" in lines[2]
    assert "denied   evil.test:443, not on the list" in lines[3]
    assert all(line.isprintable() for line in lines)


def test_the_log_is_json_for_programs_and_can_be_selected(log: Path) -> None:
    events = [json.loads(line) for line in called("log", "app", "--json")]
    assert len(events) == 4
    assert [
        each["name"] for each in map(json.loads, called("log", "app", "--json", "--denied"))
    ] == [
        "evil.test",
        "x\x1b[2J",
    ]
    assert len(called("log", "app", "--json", "--agent", "2")) == 1


@pytest.mark.parametrize("name", ["other", "../app", "", "app/../app"])
def test_a_log_that_is_not_there_is_an_error_with_a_hint(log: Path, name: str) -> None:
    with pytest.raises(CorralError) as error:
        called("log", name)
    assert error.value.hint is not None and "app" in error.value.hint


def test_following_shows_what_comes_also_over_a_turn_of_the_file(log: Path) -> None:
    command = [sys.executable, "-m", "corral", "net", "log", "app", "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        assert process.stdout is not None
        try:
            for _ in range(4):
                process.stdout.readline()
            log.write_bytes(log.read_bytes() + b"\n")
            journal = Journal(log, limit=400)
            for number in range(10):
                journal.write(json.dumps(event(f"n{number}.test")).encode() + b"\n")
                assert json.loads(process.stdout.readline())["name"] == f"n{number}.test"
            journal.close()
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("text", "allowed", "why"),
    [
        ("a.test", True, "a.test:443: on the list (a.test)"),
        ("A.Test.:80", True, "a.test:80: on the list"),
        ("a.test:22", False, "port not on the list"),
        ("b.test", False, "not on the list"),
        ("10.0.0.1:5432", True, "10.0.0.1:5432: on the list"),
        ("claude.corral.internal:80", True, "gateway"),
    ],
)
def test_what_a_policy_says_to_a_host(text: str, allowed: bool, why: str) -> None:
    rules = (*parse_rules("a.test"), *parse_rules("10.0.0.0/8:5432"))
    said, reason = explain(Network(mode="allow", allow=rules), text)
    assert said is allowed and why in reason


def test_mode_internet_says_that_a_private_address_is_not_public() -> None:
    network = Network(mode="internet")
    assert explain(network, "10.0.0.1") == (False, "10.0.0.1:443: private address (internet)")
    assert explain(network, "pypi.org")[0]


def tried(*rules: str) -> list[Reached]:
    return [
        Reached(name=name, port=int(port))
        for name, _, port in (rule.rpartition(":") for rule in rules)
    ]


def test_the_smallest_list_is_each_host_with_its_port() -> None:
    found = propose(
        tried("b.test:443", "a.test:80", "b.test:443", "[2001:db8::1]:22"[1:-4] + ":22")
    )
    assert [line.rule for line in found.allow] == ["[2001:db8::1]:22", "a.test:80", "b.test:443"]
    assert [line.count for line in found.allow] == [1, 1, 2]
    allowed = [rule.text for line in found.allow for rule in parse_rules(line.rule)]
    assert len(allowed) == 3


def test_a_preset_is_recognised_when_half_of_it_was_seen() -> None:
    found = propose(tried("pypi.org:443", "files.pythonhosted.org:443", "registry.npmjs.org:443"))
    assert [line.rule for line in found.allow] == ["@python", "registry.npmjs.org:443"]
    assert found.allow[0].covers == ("files.pythonhosted.org:443", "pypi.org:443")
    assert propose(tried("pypi.org:8080")).allow[0].rule == "pypi.org:8080"


def test_what_is_refused_in_every_mode_is_not_on_the_list() -> None:
    denied = Reached(name="10.0.0.1", port=443, denied=True, reason="private address")
    found = propose([denied, *tried("a.test:443"), Reached(name="a b", port=1)])
    assert [line.rule for line in found.allow] == ["a.test:443"]
    assert dict(found.left_out) == {"10.0.0.1:443": "private address", "a b": "not a host name"}


def test_the_proposal_is_toml_and_options() -> None:
    found = propose(tried("pypi.org:443", "files.pythonhosted.org:443", "a.test:22"))
    text = learning.text_of(found)
    assert tomllib.loads(text)["network"]["allow"] == ["@python", "a.test:22"]
    assert "--allow @python --allow a.test:22" in text
    assert "no list is needed" in learning.text_of(propose([]))


def test_a_connection_counts_once_and_the_gateway_not() -> None:
    found = learning.reached(
        [
            event("a.test"),
            event("a.test", seconds=1.0, sent=1, received=2),
            event("x.corral.internal", 80, rule="gateway", seconds=1.0),
            event("b.test", verdict="failed", reason="no such name"),
            {"event": "phase"},
        ]
    )
    assert [(each.name, each.size, each.denied) for each in found] == [
        ("a.test", 3, False),
        ("b.test", 0, False),
    ]


def test_the_list_is_written_into_a_file_without_one(tmp_path: Path) -> None:
    target, found = tmp_path / "corral.toml", propose(tried("a.test:443"))
    target.write_text("[run]\nuser = 'root'\n")
    learning._write(target, found)
    assert tomllib.loads(target.read_text())["network"]["allow"] == ["a.test:443"]
    with pytest.raises(CorralError, match="already"):
        learning._write(target, found)


@pytest.mark.parametrize("planted", ["link", "pipe", "folder"])
def test_a_list_is_not_written_through_what_the_command_planted(
    tmp_path: Path, planted: str
) -> None:
    """By a link a file of the user's that is TOML would be copied into the workspace."""
    secret = tmp_path / "credentials.toml"
    secret.write_text('[registry]\ntoken = "of-the-user"\n')
    target = tmp_path / "corral.toml"
    if planted == "link":
        target.symlink_to(secret)
    elif planted == "pipe":
        os.mkfifo(target)
    else:
        target.mkdir()
    found = propose([Reached(name="pypi.org", port=443)])
    with pytest.raises(CorralError, match=r"symbolic link|not a regular file"):
        learning._write(target, found)
    assert target.is_symlink() or not target.is_file()
