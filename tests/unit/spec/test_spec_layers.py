from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import ConfigError
from corral.policy import Limits as NetworkLimits
from corral.spec import SETTINGS, VARIABLES, Limits
from corral.spec.layers import default_layer
from corral.spec.sizes import GIB, MIB

from .conftest import User


def test_without_any_configuration_the_folder_is_all_there_is(user: User) -> None:
    spec = user.spec()
    assert spec.workspace.path == str(user.project)
    assert not spec.workspace.read_only
    assert spec.shares == () and spec.run.env == () and spec.run.tools == ()
    assert spec.name == "demo"
    assert spec.warnings == ()
    assert (spec.machine.accel, spec.machine.carrier, spec.machine.p9_cache) == (
        "auto",
        "auto",
        "mmap",
    )


@pytest.mark.parametrize(
    ("host", "machine"),
    [((1, 2 * GIB), (1, GIB)), ((64, 256 * GIB), (4, 4 * GIB)), ((2, 100 * MIB), (2, 256 * MIB))],
)
def test_a_machine_is_never_larger_by_default_than_the_host_can_bear(
    host: tuple[int, int], machine: tuple[int, int]
) -> None:
    values = default_layer(*host).values
    assert (values["machine.cpus"], values["machine.memory"]) == machine


def test_defaults_respect_what_a_container_leaves(user: User) -> None:
    machine = user.spec(capacity=(1, GIB)).machine
    assert (machine.cpus, machine.memory) == (1, 512 * MIB)


def test_each_layer_outranks_the_one_below(user: User) -> None:
    user.configure("[machine]\ncpus = 3\nmemory = '512MiB'\naccel = 'tcg'\n[run]\ntimeout = '9m'")
    user.write_project("[machine]\ncpus = 2\nmemory = '256MiB'\n[run]\ntimeout = '8m'")
    user.environ |= {"CORRAL_MEMORY": "2g", "CORRAL_TIMEOUT": "7m"}
    spec = user.spec(overrides={"run": {"timeout": "6m"}})
    assert spec.machine.accel == "tcg"
    assert spec.machine.cpus == 2
    assert spec.machine.memory == 2 * GIB
    assert spec.run.timeout == 360


def test_lists_are_added_to_and_scalars_replaced(user: User) -> None:
    user.configure("[workspace]\nmask = ['a']\n[run]\nenv = {A = '1', B = '1'}")
    user.write_project("[workspace]\nmask = ['b']")
    user.environ["CORRAL_MASK"] = "c, d"
    spec = user.spec(overrides={"workspace.mask": ["e"], "run.env": ["B=2"]})
    assert spec.workspace.mask == ("a", "b", "c", "d", "e")
    assert spec.run.env == (("A", "1"), ("B", "2"))


def test_a_higher_layer_changes_the_access_to_a_share(user: User) -> None:
    data = user.folder("data")
    user.configure("[[share]]\nsource = '~/data'")
    assert [share.writable for share in user.spec().shares] == [False]
    (share,) = user.spec(overrides={"share": [f"{data}:/data:rw"]}).shares
    assert (share.source, share.target, share.writable) == (str(data), "/data", True)


def test_the_launchers_own_variable_is_not_taken_for_a_misspelt_one(user: User) -> None:
    user.environ["CORRAL_PYTHON"] = "/usr/bin/python3"
    assert user.spec().warnings == ()


def test_overrides_may_be_flat_or_nested_and_empty_ones_count_for_nothing(user: User) -> None:
    flat = user.spec(overrides={"machine.cpus": "1cpu", "run.user": None, "share": ()})
    nested = user.spec(overrides={"machine": {"cpus": 1}, "run": {"env": []}, "share": []})
    assert flat == nested
    assert flat.machine.cpus == 1


def test_a_share_on_the_command_line_is_read_only_unless_it_says_otherwise(user: User) -> None:
    data = user.folder("data")
    for text, expected in (
        (f"{data}", (str(data), False)),
        (f"{data}:ro", (str(data), False)),
        (f"{data}:rw", (str(data), True)),
        (f"{data}:/d", ("/d", False)),
        (f"{data}:/d:rw", ("/d", True)),
        ("../../data:/d", ("/d", False)),
        ("~/data:/d", ("/d", False)),
    ):
        (share,) = user.spec(overrides={"share": [text]}).shares
        assert (share.target, share.writable) == expected
        assert share.source == str(data)


def test_a_variable_by_name_is_taken_from_the_users_environment(user: User) -> None:
    user.environ |= {"LANG": "C.UTF-8", "TERM": "xterm"}
    user.configure("[run]\npass_env = ['LANG']")
    assert user.spec(overrides={"run.env": ["TERM", "A=b=c", "E="]}).run.env == (
        ("LANG", "C.UTF-8"),
        ("TERM", "xterm"),
        ("A", "b=c"),
        ("E", ""),
    )


def test_a_variable_that_is_not_set_is_an_error_that_names_it(user: User) -> None:
    with pytest.raises(ConfigError, match=r"NOT_SET \(from command line \(--env\)\)"):
        user.spec(overrides={"run.env": ["NOT_SET"]})


@pytest.mark.parametrize(
    "name", ["GITHUB_TOKEN", "OPENAI_API_KEY", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "X_TOKENS"]
)
def test_a_variable_that_looks_like_a_credential_is_warned_about(user: User, name: str) -> None:
    user.environ[name] = "hunter2"
    (warning,) = user.spec(overrides={"run.env": [name]}).warnings
    assert name in warning and "hunter2" not in warning


@pytest.mark.parametrize("name", ["KEYBOARD", "TOKENIZERS_PARALLELISM", "PATH", "MONKEY"])
def test_harmless_names_are_not_warned_about(user: User, name: str) -> None:
    assert user.spec(overrides={"run.env": [f"{name}=x"]}).warnings == ()


def test_every_variable_sets_its_setting(user: User) -> None:
    data = user.folder("data")
    kernel = user.home / "vmlinux"
    kernel.write_bytes(b"\x7fELF")
    user.environ |= {
        "CORRAL_CPUS": "1",
        "CORRAL_MEMORY": "512MiB",
        "CORRAL_DISK": "20g",
        "CORRAL_ACCEL": "tcg",
        "CORRAL_CARRIER": "serial",
        "CORRAL_FILESYSTEM": "9p",
        "CORRAL_KERNEL": str(kernel),
        "CORRAL_COLD": "1",
        "CORRAL_P9_CACHE": "loose",
        "CORRAL_P9_MSIZE": "64k",
        "CORRAL_CHECKPOINTS": "true",
        "CORRAL_DEBUG_SHELL": "true",
        "CORRAL_READ_ONLY": "yes",
        "CORRAL_REVIEW": "yes",
        "CORRAL_MASK": ".env,*.key",
        "CORRAL_UNPROTECT": ".git/config",
        "CORRAL_SHARE": f"{data}:/d:rw",
        "CORRAL_USER": "root",
        "CORRAL_WORKDIR": "sub",
        "CORRAL_PASS_ENV": "PATH",
        "CORRAL_TIMEOUT": "1m",
        "CORRAL_TOOLS": str(user.folder(".nvm")),
        "CORRAL_IMAGE": "host",
        "CORRAL_SECCOMP": "none",
        "CORRAL_SECCOMP_MODE": "kill",
        "CORRAL_LIMIT_MEMORY": "6GiB",
        "CORRAL_LIMIT_CPU": "150%",
        "CORRAL_LIMIT_PIDS": "500",
        "CORRAL_LIMIT_IO_WEIGHT": "50",
        "CORRAL_LIMIT_IO_READ": "50MiB/s",
        "CORRAL_LIMIT_IO_WRITE": "20MiB",
        "CORRAL_AGENTS": "3",
        "CORRAL_AGENT_WORKSPACE": "turns",
        "CORRAL_SHARED": str(user.folder("shared")),
        "CORRAL_AGENT_MEMORY": "1g",
        "CORRAL_AGENT_CPU": "50%",
        "CORRAL_AGENT_PIDS": "100",
        "CORRAL_AGENT_IO_READ": "5MiB",
        "CORRAL_AGENT_IO_WRITE": "1MiB/s",
        "CORRAL_AGENT_HOME": "64m",
        "CORRAL_AGENT_TMP": "32MiB",
        "CORRAL_AGENT_RESTART": "always",
        "CORRAL_NET": "internet",
        "CORRAL_ALLOW": "pypi.org, *.example.org:8443",
        "CORRAL_DENY": "evil.test",
        "CORRAL_NET_PORTS": "443,22",
        "CORRAL_HOSTS": "db.test=192.168.1.5:5432",
        "CORRAL_PUBLISH": "8080:80,3000",
        "CORRAL_NET_MAX_CONNECTIONS": "10",
        "CORRAL_NET_RATE": "2.5",
        "CORRAL_NET_MAX_BYTES": "1GiB",
        "CORRAL_NET_IDLE": "1m",
        "CORRAL_GATEWAYS": "anthropic,openai",
        "CORRAL_SECRETS": "TOKEN@api.test,TOKEN@b.test:8443",
        "CORRAL_NAME": "box",
    }
    for variable in (setting.variable for setting in SETTINGS.values() if setting.variable):
        assert variable in user.environ
        assert variable in VARIABLES
    user.environ |= {"ANTHROPIC_API_KEY": "x", "OPENAI_API_KEY": "x", "TOKEN": "x"}
    spec = user.spec()
    network = spec.network
    assert (network.mode, network.ports) == ("internet", (22, 443))
    assert [(rule.host, rule.port) for rule in network.allow] == [
        ("pypi.org", None),
        ("*.example.org", 8443),
    ]
    assert [rule.host for rule in network.deny] == ["evil.test"]
    assert network.addresses[0].address == "192.168.1.5"
    assert [(each.port, each.guest_port) for each in network.publish] == [(8080, 80), (3000, 3000)]
    assert network.limits == NetworkLimits(connections=10, rate=2.5, total=1 << 30, idle=60.0)
    assert [gateway.name for gateway in spec.gateways] == ["anthropic", "openai"]
    assert [secret.hosts for secret in spec.secrets] == [("api.test", "b.test:8443")]
    assert spec.machine.kernel == str(kernel) and spec.machine.cold
    assert spec.machine.p9_msize == 65536 and spec.machine.checkpoints
    assert spec.machine.debug_shell
    assert spec.machine.disk == 20 << 30
    one, *others = spec.agents
    assert len(others) == 2 and (one.workspace, one.restart) == ("turns", "always")
    assert (one.limits.memory, one.limits.cpu, one.limits.pids) == (1 << 30, 50, 100)
    assert (one.home, one.tmp) == (64 << 20, 32 << 20)
    assert spec.shares[-1].target == "/shared"
    assert spec.limits == Limits(
        memory=6 << 30, cpu=150, pids=500, io_weight=50, io_read=50 << 20, io_write=20 << 20
    )
    assert spec.workspace.review and not spec.reviewed  # nothing to hold back
    assert spec.workspace.read_only and spec.workspace.unprotect == (".git/config",)
    assert spec.workspace.mask == (".env", "*.key")
    assert spec.shares[0].writable
    assert spec.run.workdir == str(user.project / "sub")
    assert spec.run.env == (("PATH", "/usr/bin:/bin"),)
    assert (spec.run.user, spec.run.timeout, spec.name) == ("root", 60, "box")
    assert spec.run.tools == (str(user.home / ".nvm"),)
    assert (spec.run.seccomp, spec.run.seccomp_mode) == ("none", "kill")


def test_an_empty_variable_counts_as_not_set(user: User) -> None:
    user.environ["CORRAL_CPUS"] = ""
    assert user.spec().machine.cpus >= 1


def test_a_wrong_variable_or_option_is_named(user: User) -> None:
    user.environ["CORRAL_CPUS"] = "many"
    with pytest.raises(ConfigError, match="CORRAL_CPUS: “many”"):
        user.spec()
    del user.environ["CORRAL_CPUS"]
    with pytest.raises(ConfigError, match="--memory: “9x”"):
        user.spec(overrides={"machine.memory": "9x"})


def test_a_misspelt_variable_is_pointed_out(user: User) -> None:
    user.environ["CORRAL_CPU"] = "2"
    assert "CORRAL_CPUS" in user.spec().warnings[0]


def test_an_unknown_override_is_named_with_the_nearest(user: User) -> None:
    with pytest.raises(ConfigError) as caught:
        user.spec(overrides={"machine.cpu": 2})
    assert "machine.cpus" in (caught.value.hint or "")


def test_paths_in_the_users_file_start_at_its_folder(user: User) -> None:
    (user.config.parent / "lib").mkdir()
    user.configure("[[share]]\nsource = 'lib'\ntarget = '/lib-data'")
    assert user.spec().shares[0].source == str(user.config.parent / "lib")


def test_the_users_own_file_may_be_a_link(user: User) -> None:
    elsewhere = user.home / "dotfiles.toml"
    elsewhere.write_text("[machine]\ncpus = 3\n")
    user.config.symlink_to(elsewhere)
    assert user.spec().machine.cpus == 3


def test_masks_of_a_project_file_above_hold_in_its_subfolders(user: User) -> None:
    user.write_project("[workspace]\nmask = ['/sub/secret.txt', '*.key', 'other/x']")
    (user.project / "sub").mkdir()
    spec = user.spec(user.project / "sub")
    assert spec.workspace.path == str(user.project / "sub")
    assert spec.workspace.mask == ("/secret.txt", "*.key")


def test_a_masked_folder_is_no_workspace(user: User) -> None:
    user.write_project("[workspace]\nmask = ['secrets/']")
    (user.project / "secrets" / "deep").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"hidden by workspace\.mask"):
        user.spec(user.project / "secrets" / "deep")


def test_a_named_file_takes_the_place_of_the_projects(user: User, tmp_path: Path) -> None:
    user.write_project("[machine]\ncpus = 1")
    named = tmp_path / "mine.toml"
    named.write_text("[machine]\ncpus = 3")
    assert user.spec(config_file=named).machine.cpus == 3
    user.environ["CORRAL_CONFIG"] = str(named)
    assert user.spec().machine.cpus == 3
    with pytest.raises(ConfigError, match="does not exist"):
        user.spec(config_file=tmp_path / "none.toml")
