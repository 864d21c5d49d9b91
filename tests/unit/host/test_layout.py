"""A survey finds what a sandbox must not change; no project can lead it astray."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.errors import HostError
from corral.host import repository
from corral.host.layout import Workspace, survey
from corral.spec import PROTECTED
from tests.support.rights import without_capabilities

Git = Callable[..., None]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """git(folder, "init"): run git there, with no configuration but its own."""
    environment = {
        **{"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"},
        **{"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"},
        **{"GIT_COMMITTER_EMAIL": "a@b", "GIT_ALLOW_PROTOCOL": "file"},
    }

    def run(folder: Path, *arguments: str) -> None:
        folder.mkdir(exist_ok=True)
        argv = ["git", "-c", "protocol.file.allow=always", *arguments]
        subprocess.run(argv, cwd=folder, env=environment, check=True, capture_output=True)

    return run


@pytest.fixture
def main(tmp_path: Path, git: Git) -> Path:
    """A repository with one commit."""
    folder = tmp_path.resolve() / "main"
    git(folder, "init", "--initial-branch=main")
    git(folder, "commit", "--allow-empty", "-m", "first")
    return folder


def look(
    folder: Path, *, unprotect: tuple[str, ...] = (), masks: tuple[str, ...] = ()
) -> Workspace:
    """The workspace part of a survey; masks: names that are hidden."""
    return survey(
        str(folder),
        unprotect=unprotect,
        protected=PROTECTED,
        is_masked=(lambda path, _is_folder: path in masks) if masks else None,
    ).workspace


def below(folder: Path, paths: tuple[str, ...]) -> set[str]:
    return {os.path.relpath(path, folder) for path in paths}


# The toolbox


def test_the_toolbox_is_this_hosts_programs_and_no_secret_of_etc(tmp_path: Path) -> None:
    layout = survey(str(tmp_path), unprotect=(), protected=(), is_masked=None)
    assert "/usr" in layout.folders
    assert {path for path, _text in layout.links}.isdisjoint(layout.folders)
    names = {path.removeprefix("/etc/") for path in layout.etc}
    assert not names & {"shadow", "gshadow", "passwd", "sudoers", "ssh", "machine-id", "hostname"}
    assert not [name for name in names if name.startswith(("ssl/private", "ssh/", "krb5"))]
    assert all(Path(path).exists() for path in layout.etc)


def test_links_at_the_top_are_made_again_as_links(tmp_path: Path) -> None:
    layout = survey(str(tmp_path), unprotect=(), protected=(), is_masked=None)
    for path, text in layout.links:
        if path != "/run/current-system":
            assert str(Path(path).readlink()) == text


# A folder that is no repository


def test_an_empty_folder_has_nothing_to_protect_and_its_absence_is_noted(project: Path) -> None:
    found = look(project)
    assert (found.protected, found.mounts, found.git_common) == ((), (), None)
    assert {".git/hooks", ".git/config", "corral.toml"} <= below(project, found.absent)


def test_the_projects_configuration_is_protected(project: Path) -> None:
    (project / "corral.toml").touch()
    found = look(project)
    assert below(project, found.protected) == {"corral.toml"}
    assert "corral.toml" not in below(project, found.absent)


def test_a_link_in_place_of_a_protected_file_is_not_followed(project: Path, tmp_path: Path) -> None:
    """Bound would be what it leads to, anywhere on the host."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    (project / "corral.toml").symlink_to(secret)
    (project / ".git").symlink_to(tmp_path)
    found = look(project)
    assert found.protected == ()
    assert found.git_common is None
    assert not [
        path for path in (*found.mounts, *found.absent) if not path.startswith(str(project))
    ]


# A repository


def test_a_repositorys_hooks_and_config_are_protected_in_a_mount_of_their_own(main: Path) -> None:
    found = look(main)
    assert below(main, found.protected) == {".git/hooks", ".git/config"}
    assert below(main, found.mounts) == {".git"}


def test_what_is_unprotected_is_left_alone_with_all_below(main: Path) -> None:
    assert below(main, look(main, unprotect=(".git/config",)).protected) == {".git/hooks"}
    everything = look(main, unprotect=(".git",))
    assert everything.protected == ()
    assert not [path for path in below(main, everything.absent) if path.startswith(".git")]


def test_a_path_that_only_begins_alike_is_not_unprotected(main: Path) -> None:
    assert ".git/config" in below(main, look(main, unprotect=(".git/conf", ".gi")).protected)


def test_submodules_hooks_and_config_are_protected_too(
    main: Path, tmp_path: Path, git: Git
) -> None:
    library = tmp_path.resolve() / "library"
    git(library, "init")
    git(library, "commit", "--allow-empty", "-m", "first")
    git(main, "submodule", "add", str(library), "vendor/library")
    inner = ".git/modules/vendor/library"
    found = look(main)
    assert {f"{inner}/config", f"{inner}/hooks"} <= below(main, found.protected)
    assert {".git", ".git/modules", ".git/modules/vendor", inner} <= below(main, found.mounts)


def test_mounts_come_with_every_folder_above_what_is_protected(main: Path) -> None:
    found = look(main)
    for path in found.protected:
        parent = os.path.dirname(path)  # noqa: PTH120
        while parent != str(main):
            assert parent in found.mounts
            parent = os.path.dirname(parent)  # noqa: PTH120


def test_files_that_a_config_includes_are_protected(main: Path) -> None:
    with (main / ".git" / "config").open("a") as config:
        config.write('[include]\n\tpath = ../settings/git.inc\n[includeIf "x"]\npath=/etc/passwd\n')
    (main / "settings").mkdir()
    (main / "settings" / "git.inc").touch()
    found = look(main)
    assert "settings/git.inc" in below(main, found.protected)
    assert "settings" in below(main, found.mounts)
    assert "/etc/passwd" not in found.protected


def test_what_an_included_file_includes_is_protected_and_what_a_commondir_names(
    main: Path,
) -> None:
    (main / "one").write_text("[include]\n\tpath = deep/two\n")
    (main / "deep").mkdir()
    (main / "deep" / "two").touch()
    (main / ".git" / "config").rename(main / "deep" / "config")
    with (main / "deep" / "config").open("a") as config:
        config.write("[include]\n\tpath = ../one\n")
    (main / ".git" / "commondir").write_text("../deep\n")
    assert {"deep/config", "one", "deep/two"} <= below(main, look(main).protected)


def test_a_git_folder_elsewhere_that_is_closed_is_refused(project: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0)
    (project / ".git").symlink_to(closed / "git")
    with pytest.raises(HostError, match="closed/git"):
        without_capabilities(lambda: look(project))


def test_a_git_that_leads_nowhere_is_none(project: Path) -> None:
    (project / ".git").symlink_to(".git")
    assert without_capabilities(lambda: look(project)).protected == ()


# Linked worktrees


def test_a_linked_worktree_brings_its_common_git_folder_protected(main: Path, git: Git) -> None:
    git(main, "worktree", "add", "../linked")
    linked = main.parent / "linked"
    found = look(linked)
    assert found.git_common == str(main / ".git")
    assert {f"{main}/.git/hooks", f"{main}/.git/config"} <= set(found.protected)
    assert str(linked / ".git") in found.protected


def test_a_worktree_named_by_a_relative_path_is_one_too(main: Path, git: Git) -> None:
    git(main, "worktree", "add", "../linked")
    linked = main.parent / "linked"
    (linked / ".git").write_text("gitdir: ../main/.git/worktrees/linked\n")
    assert look(linked).git_common == str(main / ".git")


def test_a_git_file_cannot_bring_in_somebody_elses_repository(main: Path, project: Path) -> None:
    """It names another repository, whose worktree it is not: git itself checks the way back."""
    private = main / ".git" / "worktrees" / "stolen"
    for text in (f"gitdir: {main}/.git\n", f"gitdir: {private}\n", "gitdir: ../main/.git\n"):
        (project / ".git").write_text(text)
        assert look(project).git_common is None


def test_a_git_file_cannot_bring_in_another_worktrees_repository(main: Path, git: Git) -> None:
    git(main, "worktree", "add", "../linked")
    thief = main.parent / "thief"
    thief.mkdir()
    (thief / ".git").write_text((main.parent / "linked" / ".git").read_text())
    assert look(thief).git_common is None


def test_a_made_up_worktree_folder_cannot_name_any_folder_as_common(
    project: Path, tmp_path: Path
) -> None:
    """Everything inside the project is a guest's to write, the way back included."""
    home = tmp_path.resolve() / "home"
    for name in ("HEAD", "objects", "refs"):
        (home / name).mkdir(parents=True)
    private = project / "fake" / "worktrees" / "x"
    private.mkdir(parents=True)
    (project / ".git").write_text(f"gitdir: {private}\n")
    (private / "gitdir").write_text(f"{project}/.git\n")
    for common in (str(home), "../../../../home", "/"):
        (private / "commondir").write_text(common + "\n")
        assert look(project).git_common is None


@pytest.mark.parametrize(
    "content",
    [b"", b"gitdir: ", b"gitdir: \n", b"gitdir: \0", b"\xff" * 100, b"gitdir: /\n", b"x" * 100_000],
)
def test_a_git_file_of_nonsense_is_a_file(project: Path, content: bytes) -> None:
    (project / ".git").write_bytes(content)
    found = look(project)
    assert found.git_common is None
    assert below(project, found.protected) == {".git"}


def test_a_config_of_nonsense_includes_nothing_that_can_be_named(main: Path) -> None:
    (main / ".git" / "config").write_bytes(b"[include]\npath = a\0b\n[include]\npath = ../c\n")
    (main / "c").touch()
    assert below(main, look(main).protected) == {".git/hooks", ".git/config", "c"}


def test_a_fifo_in_place_of_a_file_blocks_nobody(project: Path) -> None:
    os.mkfifo(project / ".git")
    assert look(project).git_common is None
    (project / ".git").unlink()
    (project / ".git").mkdir()
    os.mkfifo(project / ".git" / "config")
    assert look(project).protected == ()


def test_no_git_is_run(main: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository's config is code: this one would leave a mark."""
    with (main / ".git" / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = touch {tmp_path}/mark; false\n")

    def started(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "posix_spawn", started)
    look(main)
    repository.snapshot(str(main))
    assert not (tmp_path / "mark").exists()


# Masks


def test_masked_files_and_folders_are_found_and_nothing_below_those(project: Path) -> None:
    for path in ("secrets/deep", "src"):
        (project / path).mkdir(parents=True)
    for path in (".env", "secrets/.env", "src/.env", "src/main.py"):
        (project / path).touch()
    found = look(project, masks=(".env", "secrets", "secrets/.env", "src/.env"))
    assert below(project, found.masked_files) == {".env", "src/.env"}
    assert below(project, found.masked_folders) == {"secrets"}


def test_a_masked_link_is_left_alone(project: Path, tmp_path: Path) -> None:
    """It is a name only; an empty file bound over it would land on what it leads to."""
    (project / ".env").symlink_to(tmp_path)
    (project / "secrets").symlink_to(tmp_path)
    found = look(project, masks=(".env", "secrets"))
    assert (found.masked_files, found.masked_folders) == ((), ())


# What changed while a sandbox ran


def test_new_and_changed_hooks_are_told_of(main: Path) -> None:
    before = repository.snapshot(str(main))
    assert repository.changed(before, repository.snapshot(str(main))) == []
    hook = main / ".git" / "hooks" / "post-commit"
    hook.write_text("#!/bin/sh\n")
    assert repository.changed(before, repository.snapshot(str(main))) == [str(hook)]
    between = repository.snapshot(str(main))
    hook.write_text("#!/bin/sh\nevil\n")
    assert repository.changed(between, repository.snapshot(str(main))) == [str(hook)]


def test_a_commit_is_no_news(main: Path, git: Git) -> None:
    before = repository.snapshot(str(main))
    git(main, "commit", "--allow-empty", "-m", "second")
    assert repository.changed(before, repository.snapshot(str(main))) == []


def test_a_repository_that_appears_anywhere_is_told_of_once(main: Path, git: Git) -> None:
    before = repository.snapshot(str(main))
    (main / "a" / "b").mkdir(parents=True)
    git(main / "a" / "b" / "new", "init")
    found = repository.changed(before, repository.snapshot(str(main)))
    assert found == [str(main / "a" / "b" / "new" / ".git")]


def test_a_bare_repository_that_appears_is_told_of(main: Path, git: Git) -> None:
    before = repository.snapshot(str(main))
    git(main / "bare", "init", "--bare")
    found = repository.changed(before, repository.snapshot(str(main)))
    assert any(path.startswith(str(main / "bare")) for path in found)


@pytest.mark.parametrize(
    ("names", "path"),
    [
        ({"HEAD", "objects", "refs"}, "config"),
        ({"HEAD", "commondir"}, "config.worktree"),
        ({"objects", "refs"}, "config"),  # which another's commondir may name
    ],
)
def test_what_git_takes_for_a_repository_is_told_of_whatever_its_parts_are(
    project: Path, names: set[str], path: str
) -> None:
    folder = project / "a" / "b"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).symlink_to("/tmp")
    before = repository.snapshot(str(project))
    (folder / path).touch()
    assert repository.changed(before, repository.snapshot(str(project))) == [str(folder / path)]


def test_submodules_and_worktrees_of_nested_repositories_are_watched(
    project: Path, git: Git
) -> None:
    nested = project / "nested"
    git(nested, "init")
    git(nested, "commit", "--allow-empty", "-m", "first")
    git(nested, "worktree", "add", "tree")
    inner = nested / ".git" / "modules" / "a" / "b"
    git(nested, "init", "--bare", str(inner))
    before = repository.snapshot(str(project))
    paths = [inner / "hooks" / "pre-commit", nested / ".git/worktrees/tree/config.worktree"]
    for path in paths:
        path.touch()
    assert repository.changed(before, repository.snapshot(str(project))) == list(map(str, paths))


def test_every_place_that_settings_name_for_hooks_counts(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / ".gitconfig").write_text("[core]\n\thooksPath = ~/mine\n")
    git_folder = project / ".git"
    git_folder.mkdir()
    (git_folder / "config").write_text(
        "[core]\n\thooksPath = one\n\tHOOKSPATH = \n[include]\n\tpath = round\n"
    )
    (git_folder / "round").write_text('[include]\npath=round\n[core] hookspath = "/a b"\n')
    found = repository.hooks_paths(git_folder, str(project))
    assert found == [f"{tmp_path}/mine", f"{project}/one", "/a b"]
