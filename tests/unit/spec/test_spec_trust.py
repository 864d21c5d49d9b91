"""Promise 7: a project's file may only tighten until the user has accepted it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corral.errors import ConfigError, HostError, UntrustedConfigError
from corral.spec import trust

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
[[share]]
source = "~/data"
writable = true
"""


@pytest.fixture
def configured(user: User) -> User:
    user.folder("data")
    user.folder("other")
    user.folder(".nvm")
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
        "[workspace]\nmask = ['.env', 'secrets/']",
        "[run]\ntimeout = '1m'",
        "[[share]]\nsource = '~/data'",
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
