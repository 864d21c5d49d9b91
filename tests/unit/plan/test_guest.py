"""What the guest is told: its files of /etc, its tree, its environment."""

from __future__ import annotations

import configparser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.host import User
from corral.plan import guest
from corral.spec.model import Share
from tests.support import examples

PROJECT = examples.PROJECT


def etc(run_as: str | None = None, **facts: Any) -> dict[str, str]:
    wanted, host = examples.spec(run={"user": run_as}), examples.facts(**facts)
    files = guest.etc_files(wanted, host, guest.Identity(wanted, host))
    return {path: text for path, text, _mode in files}


def identity(run_as: str | None = None, **facts: Any) -> guest.Identity:
    return guest.Identity(examples.spec(run={"user": run_as}), examples.facts(**facts))


@pytest.mark.parametrize(
    ("user", "host_user", "name", "uid", "home"),
    [
        (None, examples.ADA, "ada", 1000, "/home/ada"),
        ("ada", examples.ADA, "ada", 1000, "/home/ada"),
        ("root", examples.ADA, "root", 0, "/root"),
        (None, examples.ROOT, "root", 0, "/root"),
        ("root", User("root", 0, 0, "/var/root"), "root", 0, "/var/root"),
    ],
)
def test_commands_have_the_users_name_id_and_home_or_roots(
    user: str | None, host_user: User, name: str, uid: int, home: str
) -> None:
    who = identity(user, user=host_user)
    assert (who.name, who.uid, who.home) == (name, uid, home)
    passwd = etc(user, user=host_user)["/etc/passwd"]
    entries = {line.split(":")[0]: line.split(":") for line in passwd.splitlines()}
    assert entries[name][2] == str(uid)
    assert entries[name][5] == home


def test_account_files_have_no_duplicate_and_every_line_its_seven_fields() -> None:
    for user in (None, "root"):
        lines = etc(user)["/etc/passwd"].splitlines()
        assert all(line.count(":") == 6 for line in lines)
        names = [line.split(":")[0] for line in lines]
        assert len(set(names)) == len(names)
        assert all(line.count(":") == 3 for line in etc(user)["/etc/group"].splitlines())


def test_the_sandboxs_name_resolves_and_nothing_else_does() -> None:
    files = etc()
    assert "demo" in files["/etc/hosts"]
    assert files["/etc/hostname"] == "demo\n"
    assert not [line for line in files["/etc/resolv.conf"].splitlines() if line and line[0] != "#"]


def test_no_secret_file_is_among_them() -> None:
    assert not {"/etc/shadow", "/etc/gshadow", "/etc/sudoers"} & set(etc())


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    return parser


def test_git_has_the_users_name_and_regards_the_workspace_as_safe() -> None:
    config = parsed(etc()["/etc/gitconfig"])
    assert config["safe"]["directory"] == f'"{PROJECT}"'
    assert config["user"]["name"] == '"Ada Lovelace"'
    assert config["user"]["email"] == '"ada@example.org"'


def test_a_user_without_git_identity_has_none_inside() -> None:
    assert "user" not in parsed(etc(user=examples.ROOT)["/etc/gitconfig"])


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=("Cs", "Cc"))))
def test_no_name_can_add_a_setting_to_gits_configuration(name: str) -> None:
    user = User("ada", 1000, 1000, "/home/ada", name, 'a"@b\n[core]\n\tfsmonitor = x', "ada")
    text = guest.git_config(examples.spec(), examples.facts(user=user))
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[safe]", "[user]"]
    assert "fsmonitor" not in [line.strip().split(" ")[0] for line in text.splitlines()]


def steps(**wanted: Any) -> list[list[str | int]]:
    spec, host = examples.spec(**wanted), examples.facts()
    return guest.jail(spec, examples.layout(), guest.Identity(spec, host)).tree


def test_a_jail_has_an_empty_home_and_the_workspace_at_its_host_path() -> None:
    tree = steps()
    assert tree.index(["tmpfs", "/home/ada", 0o700, 0]) < tree.index(["export", PROJECT])


def test_read_only_shares_and_tools_come_from_the_toolbox() -> None:
    share = Share(source="/srv/data", target="/data", writable=False)
    tree = steps(shares=(share,), run={"tools": ("/home/ada/.nvm",)})
    assert ["toolbox", "/data"] in tree
    assert ["toolbox", "/home/ada/.nvm"] in tree


def test_parts_inside_others_are_mounted_after_them() -> None:
    share = Share(source="/srv/x", target=f"{PROJECT}/x", writable=False)
    targets = [step[1] for step in steps(shares=(share,))]
    assert targets.index(PROJECT) < targets.index(f"{PROJECT}/x")


def test_every_step_is_one_that_the_guest_knows() -> None:
    assert {step[0] for step in steps(run={"tools": ("/opt/x",)})} == {
        *("tmpfs", "export", "toolbox"),
    }


def path_of(host: str, tools: tuple[str, ...] = ()) -> list[str]:
    wanted = examples.spec(run={"tools": tools})
    return guest.search_path(wanted, examples.facts(), host).split(":")


def test_the_users_order_of_folders_is_kept_as_far_as_the_guest_has_them() -> None:
    host = "/home/ada/bin:/opt/x/bin:/bin:/usr/games:/snap/bin:.:/usr/bin"
    assert path_of(host)[:4] == ["/opt/x/bin", "/bin", "/usr/games", "/usr/bin"]


def test_the_usual_folders_are_always_there_and_none_twice() -> None:
    for host in ("", "/usr/bin:/usr/bin", "relative"):
        folders = path_of(host)
        assert {"/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"} <= set(folders)
        assert len(set(folders)) == len(folders)
        assert all(folder.startswith("/") for folder in folders)


def test_a_tools_folder_comes_along_where_it_is_on_path_or_else_its_bin() -> None:
    nvm = "/home/ada/.nvm"
    on_path = path_of(f"{nvm}/versions/node/v20/bin:/usr/bin", (nvm,))
    assert on_path[0] == f"{nvm}/versions/node/v20/bin"
    assert f"{nvm}/bin" not in on_path
    assert {f"{nvm}/bin", nvm} <= set(path_of("/usr/bin", (nvm,)))


def test_a_tool_with_a_similar_name_does_not_count() -> None:
    folders = path_of("/home/ada/.nvm-old/bin", ("/home/ada/.nvm",))
    assert "/home/ada/.nvm-old/bin" not in folders


def test_of_two_tools_with_similar_names_both_get_their_folders() -> None:
    old, new = "/home/ada/.nvm-old", "/home/ada/.nvm"
    folders = path_of(f"{old}/bin", (old, new))
    assert {f"{old}/bin", f"{new}/bin"} <= set(folders)


def test_a_virtual_environment_in_the_workspace_stays_on_path() -> None:
    assert path_of(f"{PROJECT}/.venv/bin:/usr/bin")[0] == f"{PROJECT}/.venv/bin"


def test_a_share_that_is_elsewhere_in_the_guest_brings_no_folder_of_path() -> None:
    share = Share(source="/srv/data", target="/data", writable=False)
    wanted = examples.spec(shares=(share,))
    assert "/srv/data/bin" not in guest.search_path(wanted, examples.facts(), "/srv/data/bin")


def test_a_home_that_is_the_root_folder_hides_nothing() -> None:
    spec, host = examples.spec(), examples.facts(user=User("app", 1000, 1000, "/"))
    tree = guest.jail(spec, examples.layout(), guest.Identity(spec, host)).tree
    assert [step for step in tree if step[1] == "/"] == []


def test_what_the_spec_sets_wins() -> None:
    wanted = examples.spec(run={"env": (("PATH", "/x"), ("LANG", "C"))})
    host = examples.facts()
    variables = dict(
        guest.environment(wanted, host, guest.Identity(wanted, host), {"LANG": "de_DE.UTF-8"})
    )
    assert (variables["PATH"], variables["LANG"]) == ("/x", "C")
