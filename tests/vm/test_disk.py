"""A disk keeps what programs write to the system; a full host is an error in the guest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sandboxes import guest_root, lines, python, shell, succeeded, with_disk

MIB = 1 << 20


def taken(file: Path) -> int:
    """Bytes of the host's disk that a file takes."""
    return file.stat().st_blocks * 512


CHANGES = """
set -e
echo kept > /etc/kept; echo kept > /opt/kept; echo kept > ~/kept; echo kept > /var/tmp/kept
echo gone > /tmp/gone; echo gone > /run/gone
echo 'tester:x:777:777::/:/bin/sh' >> /etc/passwd
rm /usr/bin/git; mkdir -p /usr/local/lib/mine; mv /usr/local/lib/mine /usr/local/lib/yours
cp /bin/sh /opt/set-id; chmod 6755 /opt/set-id; mknod /opt/null c 1 3 2>/dev/null || true
"""
LOOK = """
cat /etc/kept /opt/kept ~/kept /var/tmp/kept
test ! -e /tmp/gone; test ! -e /run/gone
tail -n 1 /etc/passwd
test ! -e /usr/bin/git; test -d /usr/local/lib/yours
cat /etc/hostname
"""


async def test_what_is_written_to_the_system_is_kept_over_a_stop(
    project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "disk.qcow2"
    async with with_disk(project, file) as sandbox:
        assert taken(file) < 16 * MIB, "an empty disk takes next to nothing"
        succeeded(await shell(sandbox, CHANGES))
        succeeded(await python(sandbox, "open('/opt/big', 'wb').write(b'x' * (100 << 20))"))
        succeeded(await guest_root(sandbox, "import os; os.sync()"))
        assert taken(file) > 100 * MIB
        succeeded(await shell(sandbox, "rm /opt/big"))
        # The journal frees the blocks with the commit that sync waits for.
        succeeded(await guest_root(sandbox, "import os; os.sync(); os.sync()"))
        assert taken(file) < 50 * MIB, "what is deleted is freed on the host"
        before = int(lines(await shell(sandbox, "df --output=size -k / | tail -1"))[0])
    assert file.stat().st_mode & 0o777 == 0o600
    async with with_disk(project, file, "2GiB") as sandbox:
        found = lines(await shell(sandbox, f"set -e{LOOK}"))
        assert found == ["kept"] * 4 + ["tester:x:777:777::/:/bin/sh", "project"]
        after = int(lines(await shell(sandbox, "df --output=size -k / | tail -1"))[0])
        assert after > 1.9 * before, "a larger disk is larger in the guest"
        options = (await guest_root(sandbox, "print(open('/proc/mounts').read())")).stdout
        (mounted,) = [line for line in options.splitlines() if " /disk " in line]
        assert {"nosuid", "nodev"} <= set(mounted.split()[3].split(","))
        status = lines(await shell(sandbox, "grep NoNewPrivs /proc/self/status; ls -l /opt/set-id"))
        assert status[0].split() == ["NoNewPrivs:", "1"]
    assert not file.with_name("disk.qcow2.new").exists()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB on the host."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small file system")
async def test_a_full_disk_of_the_host_is_an_error_in_the_guest_which_lives(
    project: Path, small: Path
) -> None:
    write = "import os; f = open('/opt/big', 'wb'); f.write(bytes(range(256)) * (100 << 12)); "
    async with with_disk(project, small / "disk.qcow2") as sandbox:
        result = await python(sandbox, write + "f.flush(); os.fsync(f.fileno())")
        assert result.status != 0 and "Input/output error" in result.stderr, result
        assert lines(await shell(sandbox, "echo alive > here; cat here")) == ["alive"]
    assert (project / "here").read_text() == "alive\n"
