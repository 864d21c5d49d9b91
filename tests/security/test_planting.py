"""What a guest leaves in the workspace for the host to run: refused where it can be, else told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import corral
from corral.errors import ConfigError, HostError
from corral.host.layout import Workspace, survey
from corral.host.repository import changed, snapshot
from corral.spec import PROTECTED
from tests.security.attacks import state
from tests.security.test_repository import git, repository
from tests.support.rights import without_capabilities
from tests.support.sandboxes import plan_for

PLANT = r"""
try() { "$@" 2>/dev/null && echo "DONE: $*"; }
# corral's own program
for f in src/corral/__init__.py src/corral_guest/wire.py corral pyproject.toml; do
    try sh -c "echo owned >> $f"
    try rm -f $f
    try mv $f away
    try ln -sf /tmp/x $f
done
try touch src/corral/planted.py
try touch src/corral/__pycache__/planted.pyc
# what every Python that looks for modules in src runs when it starts, isolated (-I) or not
try touch src/sitecustomize.py src/usercustomize.py
for d in src src/corral src/corral/cli src/corral_guest; do try mv $d $d.away; try rmdir $d; done
# what git on the host would obey, and cannot be kept away
mkdir -p sub/.git/hooks bare/objects bare/refs "evil$(printf '\033')]0;x/.git"
printf '[core]\n\tfsmonitor = touch owned\n' > sub/.git/config
echo 'ref: refs/heads/main' > bare/HEAD; cp sub/.git/config bare/config
cp sub/.git/config "evil$(printf '\033')]0;x/.git/config"
echo evil > .git/commondir
cp sub/.git/config .git/config.worktree
echo gitdir: /tmp > nested
mkfifo pipe
echo ran
"""


def test_a_clone_of_corral_is_protected_and_what_is_planted_is_told(tmp_path: Path) -> None:
    clone = repository(tmp_path / "clone")
    source = Path(corral.__file__).parents[1]
    for name in ("corral", "corral_guest"):
        shutil.copytree(source / name, clone / "src" / name)
    (clone / "corral").write_text("#!/bin/sh\n")
    (clone / "pyproject.toml").write_text("[project]\n")
    own = [clone / "src" / "corral", clone / "src" / "corral_guest"]

    def program() -> list[object]:
        files = [p for p in own[0].rglob("*.py")] + [clone / "corral", clone / "pyproject.toml"]
        return [(str(p), p.stat().st_ino, p.read_bytes()) for p in files] + [state(own[1])]

    environment = {
        **os.environ,
        "PYTHONPATH": str(clone / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CORRAL_MEMORY": "768MiB",
        "CORRAL_CPUS": "1",
    }
    before = program()
    done = subprocess.run(
        [sys.executable, "-m", "corral", "run", "--", "sh", "-c", PLANT],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n", "every attack on corral itself must fail"
    assert program() == before
    told = [line for line in done.stderr.splitlines() if "appeared or changed" in line]
    for path in (".git/commondir", ".git/config.worktree", "sub/.git", "bare/config"):
        assert any(f"{clone}/{path} " in line for line in told), f"{path} is not told: {told}"
    assert any("evil\\x1b]0;x/.git" in line for line in told)
    assert "\x1b" not in done.stderr, "a name chosen by the guest drives the terminal"


def test_a_writable_share_may_not_hold_corral(tmp_path: Path) -> None:
    package = Path(corral.__file__).parent
    for folder in (package.parent, package.parent.parent):
        with pytest.raises(ConfigError, match=r"corral itself|overlaps|home"):
            plan_for(tmp_path, {"share": [f"{folder}:/mnt/x:rw"]})
    plan_for(tmp_path, {"share": [f"{package.parent}:/mnt/x:ro"]})
    with pytest.raises(ConfigError, match="corral itself"):
        plan_for(package)


def test_git_on_the_host_would_run_what_a_guest_plants(tmp_path: Path) -> None:
    """Why appearances are told: the danger is real, so the test of the notice means something."""
    project = repository(tmp_path / "project")
    before = snapshot(str(project))
    sub = repository(tmp_path / "planted")
    git(sub, "config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    head = git(sub, "-c", "core.fsmonitor=", "rev-parse", "HEAD").strip()
    sub.rename(project / "sub")
    git(project, "update-index", "--add", "--cacheinfo", f"160000,{head},sub")
    git(project, "status")
    assert (tmp_path / "ran").exists()
    assert f"{project}/sub/.git" in changed(before, snapshot(str(project)))


@pytest.mark.parametrize("what", ["config", "hook", "gitfile", "link", "moved hooks"])
def test_every_change_of_what_git_obeys_is_noticed(tmp_path: Path, what: str) -> None:
    project = repository(tmp_path / "project")
    inner = repository(project / "libs" / "inner")
    (project / "libs" / "hooks").mkdir()
    git(inner, "config", "core.hooksPath", str(project / "libs" / "hooks"))
    before = snapshot(str(project))
    (inner / "file").write_text("an ordinary change")
    git(inner, "commit", "-qam", "two")
    assert changed(before, snapshot(str(project))) == [], "ordinary work is not told"
    match what:
        case "config":
            path = inner / ".git" / "config"
            path.write_text(path.read_text().replace("bare = false", "bare = 1    "))
            os.utime(path, (1, 1))
        case "hook":
            path = inner / ".git" / "hooks" / "post-checkout"
            path.touch()
        case "gitfile":
            path = project / "libs" / ".git"
            path.write_text("gitdir: /tmp\n")
        case "link":
            path = inner / ".git"
            path.rename(inner / "aside")
            path.symlink_to("aside")
        case "moved hooks":
            path = project / "libs" / "hooks" / "pre-commit"
            path.touch()
    assert str(path) in changed(before, snapshot(str(project)))


def test_a_guest_cannot_make_the_host_wait_for_a_fifo(tmp_path: Path) -> None:
    """Everything that corral reads in a workspace may be one the next time."""
    for name in ("corral.toml", ".git", ".git/config", ".git/commondir", ".git/hooks"):
        workspace = tmp_path / name.replace("/", "-")
        (workspace / ".git").mkdir(parents=True)
        if name == ".git":
            (workspace / ".git").rmdir()
        os.mkfifo(workspace / name)
        code = (
            "import sys; from pathlib import Path\n"
            "from corral.errors import CorralError\n"
            "from corral.host.repository import snapshot\n"
            "from tests.support.sandboxes import plan_for\n"
            "snapshot(sys.argv[1])\n"
            "try: plan_for(Path(sys.argv[1]))\n"
            "except CorralError: pass\n"
        )
        subprocess.run(
            [sys.executable, "-c", code, str(workspace)],
            cwd=Path(__file__).parents[2],
            check=True,
            timeout=20,
        )


def test_what_looks_like_a_repository_hides_nothing_below(tmp_path: Path) -> None:
    """A guest could make one of the workspace itself."""
    project = tmp_path / "project"
    for name in ("HEAD", "objects", "refs"):
        (project / name).mkdir(parents=True)
    before = snapshot(str(project))
    (project / "sub" / ".git").mkdir(parents=True)
    after = snapshot(str(project))
    assert changed(before, after) == [f"{project}/sub/.git"]


def _survey(folder: Path, *masked: str) -> Workspace:
    return survey(
        str(folder),
        unprotect=(),
        protected=PROTECTED,
        is_masked=(lambda path, _is_folder: path in masked) if masked else None,
    ).workspace


@pytest.mark.parametrize("what", [".git", ".git/modules", ".git/modules/libs", ".git/worktrees"])
def test_a_git_folder_that_a_guest_has_closed_is_refused(tmp_path: Path, what: str) -> None:
    """What is in it could not be protected, and the guest can open it again."""
    main = repository(tmp_path / "project")
    closed = main / what
    closed.mkdir(parents=True, exist_ok=True)
    closed.chmod(0)
    with pytest.raises(HostError, match="cannot be looked at") as raised:
        without_capabilities(lambda: _survey(main))
    closed.chmod(0o700)
    assert str(closed) in raised.value.message and "chmod" in (raised.value.hint or "")
    _survey(main)


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400])
def test_a_folder_of_the_users_that_cannot_be_searched_for_masks_is_refused(
    tmp_path: Path, mode: int
) -> None:
    """A guest could close a folder in one run, and open it in the next, with no mask in it."""
    project = tmp_path / "project"
    (project / "a" / "b").mkdir(parents=True)
    (project / "a" / "b" / ".env").touch()
    (project / "a" / "b").chmod(mode)
    with pytest.raises(HostError, match="a/b"):
        without_capabilities(lambda: _survey(project, "a/b/.env"))
    assert without_capabilities(lambda: _survey(project)).masked_files == ()
