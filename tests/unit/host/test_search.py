"""Where programs are looked for that corral starts by itself, and which it does not start."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from corral import paths, search
from corral.host import System

from .hosts import Host

MakeHost = Callable[..., Host]
NOBODY = 65534


def tool(folder: Path, name: str = "tool") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!")
    (folder / name).chmod(0o755)
    return str(folder / name)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is nobody's project."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def which(*folders: Path | str) -> str | None:
    return System(environ={"PATH": ":".join(map(str, folders))}).which("tool")


def test_the_systems_folders_go_before_path(make_host: MakeHost) -> None:
    host = make_host()
    host.program("/home/u/bin/tool", "/usr/bin/tool")
    system = host.system(environ={"PATH": "/home/u/bin:/usr/bin"})
    assert system.which("tool") == "/usr/bin/tool"
    host.program("/home/u/bin/other", "/usr/libexec/tool-kvm")
    assert system.which("other") == "/home/u/bin/other"
    assert system.which("other", "/usr/libexec/tool-kvm") == "/usr/libexec/tool-kvm"


def test_nixos_has_its_profiles_and_the_users(make_host: MakeHost) -> None:
    host = make_host("nixos")
    host.program("/nix/store/a-sudo/bin/sudo", "/nix/store/b-tool/bin/tool")
    host.program("/run/wrappers/wrappers.x/sudo")
    (host.root / "run/wrappers/bin").symlink_to("/run/wrappers/wrappers.x")
    (host.root / "run/current-system/sw/bin").mkdir(parents=True)
    (host.root / "run/current-system/sw/bin/sudo").symlink_to("/nix/store/a-sudo/bin/sudo")
    profiles = host.root / "nix/var/nix/profiles/per-user/u/profile"
    profiles.mkdir(parents=True)
    (profiles / "bin").symlink_to("/nix/store/b-tool/bin")
    (host.root / "home/u").mkdir(parents=True)
    (host.root / "home/u/.nix-profile").symlink_to("/nix/var/nix/profiles/per-user/u/profile")
    system = host.system(environ={"PATH": "/home/u/.nix-profile/bin"})
    assert system.which("sudo") == "/run/wrappers/wrappers.x/sudo"
    assert system.which("tool") == "/nix/store/b-tool/bin/tool"


def test_what_leads_through_the_current_folder_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    tool(project / "bin")
    outside.mkdir()
    (outside / "folder").symlink_to(project / "bin")
    (outside / "tool").symlink_to(project / "bin" / "tool")
    (project / "out").symlink_to("/usr/bin")
    ways = ("project/bin", "outside/folder", "outside", "outside/../project/bin", "project/./bin")
    monkeypatch.chdir(project)
    assert all(which(tmp_path / way) is None for way in ways)
    monkeypatch.chdir("/")
    assert all(which(tmp_path / way) == f"{project}/bin/tool" for way in ways)
    monkeypatch.chdir(project)
    path = System(environ={"PATH": f"{project}/out:{project}/bin:{outside}:bin::."}).search_path()
    assert path.split(":")[-1] == str(outside)
    assert not [item for item in path.split(":") if item.startswith(str(project)) or not item]


def test_a_current_folder_that_is_no_project_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tool(tmp_path / "bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in (tmp_path, tmp_path.parent, Path("/"), Path("/usr/bin"), Path("/usr")):
        monkeypatch.chdir(folder)
        assert which(tmp_path / "bin") == own
        assert System().which("sh") is not None
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert which(tmp_path / "bin") == own


def test_folders_that_sandboxes_had_are_remembered(elsewhere: Path, tmp_path: Path) -> None:
    own, project = tool(tmp_path / "own"), tmp_path / "project"
    tool(project / "bin")
    assert which(project / "bin", tmp_path / "own") == f"{project}/bin/tool"
    search.note([str(project), "/", "/usr", "/nix/store/x", str(paths.state_dir() / "copy")])
    search.note([str(project), str(tmp_path / "more")])
    assert which(project / "bin", tmp_path / "own") == own
    kept = (paths.state_dir() / "changeable").read_text().splitlines()
    assert kept == [str(project), str(tmp_path / "more")]
    assert System().which("sh") is not None


def test_of_many_those_that_are_gone_are_forgotten(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_MANY", 3)
    search.note([str(tmp_path), *(f"/gone/{number}" for number in range(3))])
    search.note([str(elsewhere)])
    kept = (paths.state_dir() / "changeable").read_text().splitlines()
    assert kept == [str(tmp_path), str(elsewhere)]


def test_what_others_can_replace_is_passed_over(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "bin"
    own = tool(folder)
    for path in (tmp_path / "a", folder, folder / "tool"):
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o002)
        assert which(folder) is None
        path.chmod(mode)
    assert which(folder) == own
    (tmp_path / "a").chmod(0o1777)  # as /tmp
    assert which(folder) == own
    me = pwd.getpwuid(os.getuid())
    group = SimpleNamespace(gr_mem=["somebody"])
    monkeypatch.setattr(search, "_has_others", search._has_others.__wrapped__)
    (tmp_path / "a").chmod(0o775)
    monkeypatch.setattr(os, "lstat", _with_group(os.lstat, str(tmp_path / "a"), 4242))
    monkeypatch.setattr(grp, "getgrgid", lambda _gid: group)
    assert which(folder) is None
    group.gr_mem = [me.pw_name]
    assert which(folder) == own


def _with_group(
    lstat: Callable[[str], os.stat_result], path: str, gid: int
) -> Callable[[str], os.stat_result]:
    def found(asked: str) -> os.stat_result:
        status = lstat(asked)
        if str(asked) != path:
            return status
        return os.stat_result((*status[:5], gid, *status[6:]))

    return found


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_what_is_anothers_is_passed_over(elsewhere: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    own = tool(folder)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "tool").symlink_to(own)
    assert which(tmp_path / "links") == own
    for path in (folder, folder / "tool", tmp_path / "links" / "tool"):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        assert which(tmp_path / "links") is None
        os.chown(path, 0, 0, follow_symlinks=False)


def test_links_in_a_circle_and_broken_ones_are_nothing(elsewhere: Path, tmp_path: Path) -> None:
    (tmp_path / "tool").symlink_to("tool")
    assert which(tmp_path) is None
    (tmp_path / "tool").unlink()
    (tmp_path / "tool").symlink_to("nowhere")
    assert which(tmp_path) is None
    (tmp_path / "tool").unlink()
    (tmp_path / "tool").mkdir()
    assert which(tmp_path) is None
    assert which(f"{tmp_path}/{'x' * 300}") is None
