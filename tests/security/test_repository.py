"""The project's repository: what the host's git obeys cannot be changed, whatever is tried."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.errors import ConfigError, CorralError
from corral.plan.model import AGENT_UID_BASE
from corral.proc.bwrap import Bind
from corral.sandbox import Sandbox
from tests.security.attacks import from_guest_root, from_jail, refused, state
from tests.support.sandboxes import plan_for, sandbox_on, shell, succeeded

AGENT = AGENT_UID_BASE + 1


def git(folder: Path, *arguments: str) -> str:
    """git, with nothing of the user's configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(
        ["git", *name, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository(folder: Path) -> Path:
    """A repository with one commit, a hook, a submodule's git folder and an included file."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "file").write_text("one\n")
    (folder / ".gitshared").write_text("[color]\n\tui = false\n")
    (folder / "corral.toml").write_text("[machine]\ncpus = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "config", "include.path", "../.gitshared")
    (folder / ".git" / "hooks" / "pre-commit").write_text("#!/bin/sh\nexit 0\n")
    inner = folder / ".git" / "modules" / "libs" / "inner"
    inner.parent.mkdir(parents=True)
    shutil.copytree(folder / ".git", inner, ignore=shutil.ignore_patterns("modules"))
    return folder


class Setting:
    """A repository with a linked worktree `second`, outside the workspace."""

    def __init__(self, base: Path) -> None:
        self.workspace = repository(base / "project")
        git(self.workspace, "worktree", "add", "-q", str(base / "second"))
        self.second = base / "second"
        self.sandbox: Sandbox

    def obeyed(self) -> dict[str, object]:
        """All that git on the host obeys."""
        root = self.workspace / ".git"
        inner, tree = root / "modules/libs/inner", root / "worktrees/second"
        found: dict[str, object] = {}
        for path in (root / "hooks", inner / "hooks"):
            found |= {f"{path}/{name}": state for name, state in state(path).items()}
        files = [root / "config", inner / "config", tree / "commondir"]
        files += [self.workspace / ".gitshared", self.workspace / "corral.toml"]
        for path in files:
            status = path.lstat()
            found[str(path)] = (status.st_ino, status.st_mode, status.st_ctime_ns, path.read_text())
        for path in (
            root,
            root / "modules",
            root / "modules/libs",
            inner,
            root / "worktrees",
            tree,
        ):
            found[str(path)] = (path.lstat().st_ino, path.lstat().st_mode & 0o170000)
        return found


@pytest.fixture(scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    found = Setting(tmp_path_factory.mktemp("repository"))
    async with sandbox_on(found.workspace) as found.sandbox:
        yield found


async def test_git_works_in_the_sandbox(setting: Setting) -> None:
    """The control: everything but what is protected can be written."""
    commit = "git -c user.name=a -c user.email=a@b commit -qam two"
    text = f"echo two > file && {commit} && git log --oneline"
    assert len(succeeded(await shell(setting.sandbox, text)).splitlines()) == 2
    assert len(git(setting.workspace, "log", "--oneline").splitlines()) == 2


ATTACKS = """
import shutil
def put(path, text="[core]\\n\\tfsmonitor = touch /tmp/owned\\n"):
    with open(path, "w") as file:
        file.write(text)
def exchange(one, other):
    check(libc.renameat2(-100, one.encode(), -100, other.encode(), 2), one)
def attacks():
    os.chdir(base)
    git = ".git"
    inner, tree = git + "/modules/libs/inner", git + "/worktrees/second"
    os.makedirs("evil/hooks", exist_ok=True)
    put("evil/config")
    os.path.lexists("evil/link") or os.symlink("evil", "evil/link")
    for path in (git + "/config", inner + "/config", tree + "/commondir", ".gitshared",
                 "corral.toml", git + "/hooks/pre-commit", inner + "/hooks/pre-commit"):
        attempt("write " + path, put, path)
        attempt("append " + path, lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)))
        attempt("truncate " + path, os.truncate, path, 0)
        attempt("unlink " + path, os.unlink, path)
        attempt("rename away " + path, os.rename, path, "evil/away")
        attempt("rename over " + path, os.rename, "evil/config", path)
        attempt("exchange " + path, exchange, "evil/config", path)
        attempt("hard link " + path, os.link, path, "evil/linked")
        attempt("chmod " + path, os.chmod, path, 0o777)
    for path in (git + "/hooks", inner + "/hooks"):
        attempt("new hook in " + path, put, path + "/post-checkout")
        attempt("hook by rename in " + path, os.rename, "evil/config", path + "/post-merge")
        attempt("hook by link in " + path, os.symlink, "/tmp/x", path + "/post-commit")
    for path in (git, git + "/hooks", git + "/modules", git + "/modules/libs", inner,
                 inner + "/hooks", git + "/worktrees", tree):
        attempt("rename away " + path, os.rename, path, "evil/away")
        attempt("rename beside " + path, os.rename, path, path + ".away")
        attempt("exchange " + path, exchange, path, "evil/hooks")
        attempt("exchange with a link " + path, exchange, path, "evil/link")
        attempt("remove " + path, os.rmdir, path)
    for path in (git, git + "/modules", git + "/worktrees"):
        shutil.rmtree("evil/copy", ignore_errors=True)
        attempt("rename copy over " + path, os.rename, "evil/hooks", path)
    attempt("rename the workspace", os.rename, base, base + ".away")
"""
REFUSALS = ("EROFS", "EBUSY", "EXDEV", "EPERM", "EACCES", "ENOTEMPTY", "EINVAL")


async def test_hooks_and_config_cannot_be_changed_from_the_jail(setting: Setting) -> None:
    before = setting.obeyed()
    code = f"base = {str(setting.workspace)!r}\n" + ATTACKS + "attacks()\n"
    outcome = await from_jail(setting.sandbox, code)
    refused(outcome, *REFUSALS)
    assert len(outcome) == 7 * 9 + 6 + 40 + 3 + 1
    assert setting.obeyed() == before


async def test_nor_by_the_guests_root_with_the_agents_id(setting: Setting) -> None:
    before = setting.obeyed()
    base = f"/agents/1/export{setting.workspace}"
    code = ATTACKS.replace("import shutil\n", "").replace(
        'shutil.rmtree("evil/copy", ignore_errors=True)', "pass"
    )
    outcome = await from_guest_root(
        setting.sandbox,
        f"base = {base!r}\n{code}\noutcome.update(as_user({AGENT}, attacks))",
    )
    assert "broken" not in outcome, outcome
    refused(outcome, *REFUSALS)
    assert setting.obeyed() == before


async def test_deleting_the_repository_leaves_what_git_obeys(setting: Setting) -> None:
    before = setting.obeyed()
    text = (
        "cp -a .git /tmp/copy; rm -rf .git 2>/dev/null; mv /tmp/copy .git 2>/dev/null;"
        "ln -sfn /tmp .git; echo gitdir: /tmp > .git; git config core.fsmonitor x;"
        "git config --worktree core.fsmonitor x; git init -q --template=/tmp;"
        "cp -a /tmp/copy/. .git/ 2>/dev/null; true"
    )
    await shell(setting.sandbox, text)
    assert setting.obeyed() == before


def _sources(workspace: Path) -> set[str]:
    """What of the host an agent's export would be made of. A refusal is as good."""
    try:
        plan, _parts = plan_for(workspace)
    except (ConfigError, CorralError):
        return set()
    tree = (*plan.agents[0].export.tree, *plan.toolbox.tree)
    return {step.source for step in tree if isinstance(step, Bind)}


@pytest.mark.parametrize(
    "how",
    ["gitfile", "claimed", "claimed by link", "linked folder", "relative link", "inner link"],
)
def test_a_git_folder_that_the_project_names_shares_nothing_of_another(
    tmp_path: Path, how: str
) -> None:
    other = repository(tmp_path / "other")
    (other / "private").write_text("private")
    git(other, "worktree", "add", "-q", str(tmp_path / "real"))
    workspace = tmp_path / "project"
    workspace.mkdir()
    dot_git = workspace / ".git"
    match how:
        case "gitfile":
            dot_git.write_text(f"gitdir: {other}/.git\n")
        case "claimed":  # another's worktree, which names its own folder and not this one
            dot_git.write_text(f"gitdir: {other}/.git/worktrees/real\n")
        case "claimed by link":  # a worktree record made here, whose common folder is elsewhere
            record = workspace / "fake" / "worktrees" / "w"
            record.mkdir(parents=True)
            (record / "gitdir").write_text(f"{dot_git}\n")
            (record / "commondir").write_text(f"{other}/.git\n")
            (record / "HEAD").write_text("ref: refs/heads/main\n")
            dot_git.write_text(f"gitdir: {record}\n")
        case "linked folder":
            dot_git.symlink_to(other / ".git")
        case "relative link":
            dot_git.symlink_to("../other/.git")
        case "inner link":
            dot_git.mkdir()
            (dot_git / "hooks").symlink_to(other)
            (dot_git / "config").symlink_to(other / "private")
            (dot_git / "modules").symlink_to(other)
            (dot_git / "worktrees").symlink_to(other / ".git" / "worktrees")
    found = _sources(workspace)
    assert str(workspace) in found
    assert not [path for path in found if path.startswith(str(other))], found


def test_a_real_linked_worktree_brings_its_repository_protected(tmp_path: Path) -> None:
    main = repository(tmp_path / "main")
    git(main, "worktree", "add", "-q", str(tmp_path / "linked"))
    git(main, "worktree", "add", "-q", str(tmp_path / "another"))
    plan, _parts = plan_for(tmp_path / "linked")
    tree = [step for step in plan.agents[0].export.tree if isinstance(step, Bind)]
    common = main / ".git"
    read_only = {step.source for step in tree if step.access.value == "--ro-bind"}
    assert read_only >= {
        str(tmp_path / "linked" / ".git"),
        *(f"{common}/{name}" for name in ("hooks", "config", "worktrees/linked/commondir")),
        f"{common}/worktrees/another/commondir",
        f"{common}/modules/libs/inner/config",
    }
    assert str(main) not in {step.source for step in tree}, "only its .git comes along"
    mounted = [step.source for step in tree]
    assert {f"{common}/worktrees", f"{common}/worktrees/linked", f"{common}/modules"} <= set(
        mounted
    )
