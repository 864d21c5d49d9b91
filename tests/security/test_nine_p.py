"""9p, where QEMU itself serves the files: the same guarantees hold."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.plan.model import AGENT_UID_BASE
from corral.sandbox import Sandbox
from tests.security.attacks import (
    ALL_WRITES,
    WRITES,
    from_guest_root,
    from_jail,
    refused,
    state,
    tree,
)
from tests.support.sandboxes import sandbox_on

AGENT = AGENT_UID_BASE + 1


class Setting:
    """A sandbox over 9p with the read-only share `shared`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.workspace, self.shared = base / "workspace", base / "shared"
        tree(self.workspace)
        tree(self.shared)
        (base / "secret").write_text("secret")
        self.sandbox: Sandbox


@pytest.fixture(scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    found = Setting(tmp_path_factory.mktemp("nine-p"))
    overrides = {"machine.filesystem": "9p", "share": [f"{found.shared}:/mnt/shared"]}
    async with sandbox_on(found.workspace, overrides) as found.sandbox:
        yield found


async def test_a_read_only_share_stays_so(setting: Setting) -> None:
    before = state(setting.shared)
    for uid in (0, AGENT):
        outcome = await from_guest_root(
            setting.sandbox,
            WRITES + f'outcome.update(as_user({uid}, lambda: writes("/toolbox/mnt/shared")))',
        )
        assert len(outcome) == ALL_WRITES
        refused(outcome, "EROFS", "ENOTSUP", "EPERM", "EACCES", "EIO")
    base = f"/agents/1/export{setting.workspace}"
    control = await from_guest_root(
        setting.sandbox, WRITES + f"outcome.update(as_user({AGENT}, lambda: writes({base!r})))"
    )
    assert [how for how in control.values()].count("done") >= 15, control
    assert state(setting.shared) == before


async def test_no_set_id_file_and_no_device_reaches_the_host(setting: Setting) -> None:
    code = """
import stat as s
def make(name, flags, mode):
    os.close(os.open(f"{base}/{name}", flags, mode))
def all_of_it():
    os.umask(0)
    for bits in (0o4755, 0o2755, 0o6755):
        make(f"c{bits:o}", os.O_CREAT | os.O_WRONLY, 0o755)
        attempt(f"chmod {bits:o}", os.chmod, f"{base}/c{bits:o}", bits)
        attempt(f"open {bits:o}", make, f"o{bits:o}", os.O_CREAT | os.O_WRONLY, bits)
        attempt(f"mknod {bits:o}", os.mknod, f"{base}/n{bits:o}", s.S_IFREG | bits)
    attempt("character device", os.mknod, f"{base}/mem", s.S_IFCHR | 0o666, os.makedev(1, 1))
    capability = struct.pack("<IIIIII", 0x03000001, 0x80, 0, 0, 0, os.getuid())
    make("capable", os.O_CREAT | os.O_WRONLY, 0o755)
    attempt("capability", os.setxattr, f"{base}/capable", "security.capability", capability)
"""
    folder = setting.workspace / "setid"
    folder.mkdir()
    base = f"/agents/1/export{folder}"
    await from_guest_root(
        setting.sandbox,
        f"base = {base!r}\n{code}\noutcome.update(as_user({AGENT}, all_of_it))",
    )
    found = list(folder.iterdir())
    assert (folder / "capable").exists(), "the attack must have been made"
    assert not [p for p in found if p.lstat().st_mode & 0o6000]
    assert not [p for p in found if stat.S_ISCHR(p.lstat().st_mode)]
    assert "security.capability" not in os.listxattr(folder / "capable")


async def test_links_lead_nowhere(setting: Setting) -> None:
    (setting.workspace / "link").symlink_to(setting.base / "secret")
    assert (setting.workspace / "link").read_text() == "secret"
    outcome = await from_jail(
        setting.sandbox,
        f"""
attempt("link", lambda: open({str(setting.workspace)!r} + "/link").read())
attempt("parent", lambda: open({str(setting.workspace)!r} + "/../secret").read())
""",
    )
    refused(outcome, "ENOENT")
