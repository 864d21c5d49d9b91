"""The disk of a kept sandbox is the guest's to write, and nobody else's to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import BootError, SandboxError
from tests.support import leftovers
from tests.support.sandboxes import guest_root, python, succeeded, with_disk

WRECK = """
import os
fd = os.open("/dev/vda", os.O_RDWR)
fake = bytes.fromhex("514649fb00000003") + (512).to_bytes(8, "big") + (11).to_bytes(4, "big")
os.pwrite(fd, fake.ljust(512, bytes(1)) + b"/etc/passwd" + bytes(8192), 0)
os.fsync(fd)
"""

# Links that lead to the jail's first root while the tree is put in place, before and after the
# change of roots, and to a /proc whose descriptors lead there, too.
PLANT = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.umount2(b"/proc", 2) == 0
os.rename("/proc", "/proc.was")
os.symlink("/toolbox/../agent/root/planted", "/proc")
os.mkdir("/planted")
os.makedirs("/other/deep")
os.symlink("/other/deep", "/toolbox")
os.makedirs("/other/agent/root/planted/self/fd")
for number in range(3, 60):
    os.symlink("/var/..", f"/other/agent/root/planted/self/fd/{number}")
"""
LOOK = """
import os
print(sorted(os.listdir(WORKSPACE)), os.path.ismount(WORKSPACE), os.listdir("/other/deep"))
seen = [line.split() for line in open("/other/agent/root/planted/self/mountinfo")]
print([line[4] for line in seen if line[3] != "/" and not line[4].startswith("/dev/")])
"""


async def test_links_that_an_earlier_life_left_lead_nowhere_but_the_agents_own_tree(
    project: Path, tmp_path: Path
) -> None:
    (project / "marker").touch()
    file = tmp_path / "disk.qcow2"
    async with with_disk(project, file, seccomp="none") as sandbox:  # else it unmounts nothing
        succeeded(await python(sandbox, PLANT, workdir="/"))
    async with with_disk(project, file) as sandbox:
        code = f"WORKSPACE = {str(project)!r}\n{LOOK}"
        seen = succeeded(await python(sandbox, code, workdir="/")).splitlines()
    assert seen == ["['marker'] True []", "[]"]


async def test_a_guest_that_wrecks_its_disk_harms_itself_only(
    project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "disk.qcow2"
    async with with_disk(project, file) as sandbox:
        header = file.read_bytes()[:104]
        succeeded(await guest_root(sandbox, WRECK))
        assert file.read_bytes()[:104] == header, "the guest's bytes are inside the format"
    with pytest.raises(BootError, match="the disk cannot be mounted"):
        async with with_disk(project, file):
            pytest.fail("it started")
    assert leftovers.wait_until_gone(10) == []


async def test_a_file_that_names_another_file_is_not_taken_for_a_disk(
    project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "disk.qcow2"
    async with with_disk(project, file):
        pass
    whole = file.read_bytes()
    backing = (len(whole)).to_bytes(8, "big") + (11).to_bytes(4, "big")
    file.write_bytes(whole[:8] + backing + whole[20:] + b"/etc/passwd")
    with pytest.raises(SandboxError, match="no disk that corral made"):
        async with with_disk(project, file):
            pytest.fail("it started")
