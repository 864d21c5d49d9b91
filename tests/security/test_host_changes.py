"""What changes on the host while a sandbox starts or runs does not widen what it sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.events import silent
from corral.sandbox import start
from tests.security.attacks import tree
from tests.support.sandboxes import plan_for, shell, succeeded

# Both run in a mount namespace whose mounts spread like a usual host's, so that nothing of the real
# host changes. The first may mount there, the second is the user: a sandbox.
MOUNTER = """
import os, subprocess, sys
base, *command = sys.argv[1:]
inner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert inner.stdout.readline() == "up\\n"
for place in (base + "/workspace/folder", base + "/shared/folder"):
    subprocess.run(["mount", "-t", "tmpfs", "late", place], check=True)
    open(place + "/late", "w").close()
subprocess.run(["mount", "--bind", base + "/outside", "/opt"], check=True)
text, _ = inner.communicate("go\\n")
print(text)
sys.exit(inner.returncode)
"""
USER = """
import asyncio, json, os, sys
from pathlib import Path
from tests.support.sandboxes import guest_root, sandbox_on, shell

base = Path(sys.argv[1])
places = [base / "workspace" / "folder", base / "shared" / "folder"]

async def main():
    found = {}
    shares = {"share": [f"{base / 'shared'}:/mnt/shared"]}
    async with sandbox_on(base / "workspace", shares) as sandbox:
        print("up", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        found["host"] = [os.listdir(place) for place in places]
        seen = {"workspace": places[0], "shared": "/mnt/shared/folder", "opt": "/opt"}
        for name, path in seen.items():
            found[name] = (await shell(sandbox, f"ls -A {path}")).stdout.split()
        show = "print(os.listdir('/toolbox/opt'), os.listdir('/toolbox/mnt/shared/folder'))"
        found["root"] = (await guest_root(sandbox, 'import os; ' + show)).stdout
        found["written"] = (await shell(sandbox, f"touch {places[0]}/fromguest")).status
    print(json.dumps(found))

asyncio.run(main())
"""


def test_a_mount_made_later_does_not_appear_in_the_guest(tmp_path: Path) -> None:
    for name in ("workspace", "shared", "outside"):
        tree(tmp_path / name)
    (tmp_path / "outside" / "leaked").touch()
    root, user = [], []
    if os.getuid():
        root = ["--user", "--map-root-user"]
        ids = [f"--map-user={os.getuid()}", f"--map-group={os.getgid()}"]
        user = ["unshare", "--user", *ids]
    mounter = [
        "unshare",
        *root,
        "--mount",
        "--propagation",
        "shared",
        sys.executable,
        "-c",
        MOUNTER,
    ]
    done = subprocess.run(
        [*mounter, str(tmp_path), *user, sys.executable, "-c", USER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["host"] == [["late"], ["late"]], "the host has the mounts"
    assert found["workspace"] == [] and found["shared"] == []
    assert "leaked" not in found["opt"] and "leaked" not in found["root"]
    assert "late" not in found["root"]
    assert found["written"] == 0, "the guest wrote below the mount, where it belongs"
    assert (tmp_path / "workspace" / "folder" / "fromguest").exists()


@pytest.mark.parametrize("what", ["share", "workspace", "parent", "git", "protected"])
async def test_a_link_put_in_place_of_a_checked_folder_is_refused(
    tmp_path: Path, what: str
) -> None:
    """Another sandbox that can write there could swap it between the check and the bind."""
    victim = tmp_path / "victim"
    tree(victim / "workspace" / ".git" / "hooks")
    tree(victim / "shared")
    (tmp_path / "project").mkdir()
    workspace, shared = tmp_path / "project" / "workspace", tmp_path / "project" / "shared"
    tree(workspace)
    tree(shared)
    (workspace / ".git").mkdir()
    (workspace / ".git" / "hooks").mkdir()
    (workspace / ".git" / "config").touch()
    plan, parts = plan_for(workspace, {"share": [f"{shared}:/mnt/shared:rw"]})
    path, target = {
        "share": (shared, victim),
        "workspace": (workspace, victim / "workspace"),
        "parent": (tmp_path / "project", victim),
        "git": (workspace / ".git", victim / "workspace" / ".git"),
        "protected": (workspace / ".git" / "hooks", victim / "workspace" / ".git" / "hooks"),
    }[what]
    path.rename(tmp_path / "aside")
    path.symlink_to(target)
    with pytest.raises(CorralError) as caught:
        async with start(plan, parts, silent):
            pytest.fail("it started, and shows what a link named")
    assert "Too many levels of symbolic links" in str(caught.value)


async def test_swapping_during_the_start_never_shows_what_a_link_names(tmp_path: Path) -> None:
    """The race itself: every start is refused, or shows the right folder."""
    workspace, victim = tmp_path / "workspace", tmp_path / "victim"
    tree(workspace)
    (workspace / ".git" / "hooks").mkdir(parents=True)
    (workspace / ".git" / "config").touch()
    (victim / "hooks").mkdir(parents=True)
    (victim / "config").write_text("the victim's")
    (victim / "secret").write_text("the victim's")
    plan, parts = plan_for(workspace)
    (workspace / "link").symlink_to(victim)
    stop = threading.Event()
    git, link, aside = workspace / ".git", workspace / "link", workspace / "aside"

    def swap() -> None:
        while not stop.is_set():
            git.rename(aside)
            link.rename(git)
            git.rename(link)
            aside.rename(git)

    thread = threading.Thread(target=swap)
    thread.start()
    refusals = 0
    try:
        for _ in range(2):
            try:
                async with start(plan, parts, silent) as sandbox:
                    text = await shell(sandbox, "ls -A .git; cat .git/config; touch .git/planted")
                    assert "victim" not in text.stdout and "secret" not in text.stdout
                    succeeded(await shell(sandbox, "true"))
            except CorralError:
                refusals += 1
    finally:
        stop.set()
        thread.join()
    assert not (victim / "planted").exists()
    assert refusals <= 2
