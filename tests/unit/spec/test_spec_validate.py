from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from corral.errors import ConfigError
from corral.spec.validate import default_name
from tests.support.imports import imported_with

from .conftest import User


def refused(user: User, match: str, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError, match=match) as caught:
        user.spec(**options)
    return caught.value


def shares(*texts: str) -> dict[str, Any]:
    return {"overrides": {"share": list(texts)}}


@pytest.mark.parametrize("place", ["/", "home", "parent"])
def test_a_workspace_that_is_or_holds_the_home_needs_force(user: User, place: str) -> None:
    cwd = {"/": Path("/"), "home": user.home, "parent": user.home.parent}[place]
    error = refused(user, "open to the sandbox", cwd=cwd)
    assert "--force" in (error.hint or "")
    assert user.spec(cwd, force=True).workspace.path == str(cwd)


def test_a_link_to_the_home_is_the_home(user: User, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(user.home)
    refused(user, "your home folder", cwd=link)


@pytest.mark.parametrize("place", ["/etc", "/usr/bin", "/usr"])
def test_a_system_folder_as_a_workspace_needs_force(user: User, place: str) -> None:
    refused(user, "a folder of the system", cwd=Path(place))


def test_what_the_kernel_makes_is_no_workspace_even_with_force(user: User) -> None:
    refused(user, "which the kernel makes", cwd=Path("/proc/self"), force=True)


@pytest.mark.parametrize(
    ("name", "what"),
    [("a,b", "a comma"), ("a:b", "a colon"), ("a\nb", "a newline"), ("a\x1bb", "a control")],
)
def test_paths_that_cannot_be_passed_on_safely_are_refused(
    user: User, name: str, what: str
) -> None:
    folder = user.home / "x" / name
    folder.mkdir(parents=True)
    refused(user, what, cwd=folder)
    (user.home / "link").symlink_to(folder)
    refused(user, what, **shares("~/link:/mnt/x"))
    if ":" not in name:
        refused(user, what, **shares(str(folder)))
        refused(user, what, **shares(f"{user.folder('data')}:/mnt/{name}"))


def test_a_path_that_is_not_utf8_is_refused(user: User) -> None:
    folder = os.fsencode(user.home) + b"/\xff"
    Path(os.fsdecode(folder)).mkdir()
    error = refused(user, "not UTF-8", cwd=Path(os.fsdecode(folder)))
    assert error.message.isprintable()


def test_a_share_that_does_not_exist_or_is_no_folder_is_refused(user: User) -> None:
    refused(user, "does not exist", **shares("~/none"))
    (user.home / "file").touch()
    refused(user, "not a folder", **shares("~/file"))


def test_shares_that_overlap_are_refused(user: User) -> None:
    a = user.folder("a")
    user.folder("a/b")
    c = user.folder("c")
    refused(user, "overlaps", **shares(str(a), f"{a}/b:/mnt/b"))
    refused(user, "overlaps", **shares(f"{a}:/mnt/x", f"{c}:/mnt/x/y"))
    refused(user, "overlaps", **shares(str(a), str(a)))
    refused(user, "overlaps the workspace", **shares(f"{user.project}:/mnt/x"))
    refused(user, "overlaps the workspace", **shares(f"{user.project.parent}:/mnt/x"))
    refused(user, "overlaps the workspace", **shares(f"{a}:{user.project}/sub"))
    (user.home / "link").symlink_to(a)
    refused(user, "overlaps", **shares(str(a), "~/link:/mnt/link"))


def test_a_share_through_the_workspace_is_refused_wherever_it_leads(user: User) -> None:
    (user.project / "out").symlink_to(user.folder("a"))
    refused(user, "is a link out of", **shares("out:/mnt/out"))


def test_the_home_is_not_shared_by_accident(user: User) -> None:
    refused(user, "your home folder", **shares("~:/mnt/home"))
    refused(user, "whole file system", **shares("/:/mnt/root"))


@pytest.mark.parametrize("target", ["/", "/usr", "/etc/x", "/proc", "/tmp", "/corral/x", "/root"])
def test_a_share_does_not_hide_what_the_guest_has(user: User, target: str) -> None:
    data = user.folder("data")
    refused(user, "cannot appear at", **shares(f"{data}:{target}"))


def test_a_share_at_the_home_is_refused(user: User) -> None:
    refused(user, "cannot appear at", **shares(f"{user.folder('data')}:~/"))


@pytest.mark.parametrize("text", ["", ":", "a:", ":/b", "a:/b:/c:rw", "a:b"])
def test_what_is_no_share_is_refused(user: User, text: str) -> None:
    user.folder("src/demo/a")
    refused(user, "--share", **shares(text))


def test_tools_keep_the_path_by_which_programs_know_themselves(user: User) -> None:
    real = user.folder("opt/nvm")
    (user.home / ".nvm").symlink_to(real)
    nested = real / "bin"
    nested.mkdir()
    spec = user.spec(overrides={"run.tools": ["~/.nvm", "~/.nvm", "~/.nvm/bin"]})
    assert spec.run.tools == (f"{user.home}/.nvm",)


@pytest.mark.parametrize("tool", ["~", "/", "/etc", "none", "."])
def test_what_holds_no_programs_is_no_tool_folder(user: User, tool: str) -> None:
    refused(user, r"tool|programs", overrides={"run.tools": [tool]}, force=True)


def test_a_kernel_has_to_be_a_file(user: User) -> None:
    refused(user, "the kernel .* is not a file", overrides={"machine.kernel": "none"})
    (user.project / "vmlinux").symlink_to("/etc/passwd")
    refused(user, "is a link out of", overrides={"machine.kernel": "vmlinux"})


def test_a_sandbox_cannot_write_what_corral_keeps(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_STATE_DIR", str(user.project / "state"))
    refused(user, "corral's records .* would be writable")
    assert user.spec(overrides={"workspace.read_only": True}).workspace.read_only
    monkeypatch.setenv("CORRAL_STATE_DIR", str(user.folder("state")))
    refused(user, "corral's records", **shares("~/state:/mnt/x:rw"))
    user.spec(**shares("~/state:/mnt/x"))


def test_a_configuration_that_is_a_link_into_the_workspace_is_not_for_the_sandbox_to_write(
    user: User,
) -> None:
    """It names commands that the host runs for a key; dotfiles are edited in sandboxes, too."""
    (user.project / "config.toml").write_text("")
    user.config.symlink_to(user.project / "config.toml")
    refused(user, "your configuration .* would be writable")
    assert user.spec(overrides={"workspace.read_only": True}).workspace.read_only


def test_sharing_a_login_is_warned_about(user: User) -> None:
    user.folder(".claude")
    assert user.spec(**shares("~/.claude:/mnt/claude")).warnings == ()
    (user.home / ".claude" / ".credentials.json").touch()
    (warning,) = user.spec(**shares("~/.claude:/mnt/claude")).warnings
    assert "~/.claude/.credentials.json" in warning


def test_sharing_keys_is_warned_about(user: User) -> None:
    user.folder(".ssh")
    (warning,) = user.spec(**shares("~/.ssh:/mnt/ssh")).warnings
    assert "~/.ssh" in warning


def test_unprotecting_what_is_not_protected_is_warned_about(user: User) -> None:
    assert user.spec(overrides={"workspace.unprotect": [".git/config"]}).warnings == ()
    (warning,) = user.spec(overrides={"workspace.unprotect": ["git/config"]}).warnings
    assert "git/config" in warning


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        ({"name": "Box"}, "name for a sandbox"),
        ({"name": "-x"}, "name for a sandbox"),
        ({"name": "x" * 64}, "name for a sandbox"),
        ({"run.user": "a b"}, "user's name"),
        ({"run.image": "debian"}, "none of host"),
        ({"run.env": ["1A=b"]}, "not a name"),
        ({"run.env": ["A=\0"]}, "NUL"),
        ({"run.timeout": "0"}, "out of range"),
        ({"machine.cpus": 129}, "1 to 128"),
        ({"machine.accel": "kvn"}, "none of auto, kvm, tcg"),
        ({"run.workdir": "a\nb"}, "control"),
        ({"share": ["~bob/x"]}, "only ~/"),
        ({"workspace.unprotect": ["/etc"]}, "not a path inside"),
    ],
)
def test_other_wrong_values_are_refused(
    user: User, overrides: dict[str, object], what: str
) -> None:
    refused(user, what, overrides=overrides)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/src/My App", "my-app"),
        ("/", "sandbox"),
        ("/x/---", "sandbox"),
        ("/x/" + "a" * 99, "a" * 63),
    ],
)
def test_a_name_comes_from_the_workspace(path: str, name: str) -> None:
    assert default_name(path) == name


def test_importing_the_spec_is_cheap() -> None:
    heavy = {"rich", "asyncio", "click", "tomllib", "pathspec", "difflib", "subprocess", "ssl"}
    assert not heavy & imported_with("corral.spec")
