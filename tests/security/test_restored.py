"""Sandboxes restored from one template share nothing that should be their own."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.events import silent
from corral.sandbox import Sandbox, template_for
from corral.templates import store
from tests.support.sandboxes import guest_root, plan_for, sandbox_on, shell, succeeded

_ID = Path("/etc/machine-id")
HOST_ID = _ID.read_text().strip() if _ID.is_file() else None


@pytest.fixture(scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Sandbox, Sandbox]]:
    """Two sandboxes restored from one template."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    async with sandbox_on(folders[0]) as one, sandbox_on(folders[1]) as two:
        yield one, two


# What a program draws, through the kernel, Python and OpenSSL.
DRAWS = {
    "boot_id": "cat /proc/sys/kernel/random/boot_id",
    "uuid": "cat /proc/sys/kernel/random/uuid",
    "urandom": "head -c 32 /dev/urandom | od -An -tx1",
    "random": "head -c 32 /dev/random | od -An -tx1",
    "python": "python3 -c 'import os, random, uuid, secrets;"
    'print(os.urandom(16), random.random(), uuid.uuid4(), secrets.token_hex(8), hash("x"))\'',
    "openssl": "python3 -c 'import ssl; print(ssl.RAND_bytes(32).hex())'",
    "mktemp": "mktemp -u /tmp/XXXXXXXXXXXX",
    "layout": "head -1 /proc/self/maps",
}


@pytest.mark.parametrize("source", DRAWS)
async def test_two_restores_never_draw_the_same(two: tuple[Sandbox, Sandbox], source: str) -> None:
    drawn = [succeeded(await shell(each, DRAWS[source])) for each in two]
    assert drawn[0].strip()
    assert drawn[0] != drawn[1]


async def test_the_first_bytes_of_all_differ(tmp_path: Path) -> None:
    """What the guest's root draws before anything else does."""
    first = "import os; print(os.urandom(32).hex())"
    seen = set()
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with sandbox_on(folder) as sandbox:
            seen.add(succeeded(await guest_root(sandbox, first)))
    assert len(seen) == 3


async def test_each_has_a_name_and_an_id_of_its_own(two: tuple[Sandbox, Sandbox]) -> None:
    assert [succeeded(await shell(each, "hostname")).strip() for each in two] == [
        each.plan.name for each in two
    ]
    ids = [succeeded(await shell(each, "cat /etc/machine-id")).strip() for each in two]
    assert ids[0] != ids[1]
    assert all(len(each) == 32 and int(each, 16) for each in ids)
    assert HOST_ID not in ids
    outer = "import os; print(os.uname().nodename)"
    assert [succeeded(await guest_root(each, outer)).strip() for each in two] == [
        each.plan.name for each in two
    ]


async def test_nothing_of_the_template_is_left_in_the_jail(two: tuple[Sandbox, Sandbox]) -> None:
    """The root that the jail was made with is gone, and with it what it held."""
    assert (await shell(two[0], "ls -d /new /run/corral /toolbox /agents 2>/dev/null")).stdout == ""
    mounts = succeeded(await shell(two[0], "cat /proc/self/mountinfo")).splitlines()
    roots = [line for line in mounts if line.split()[4] == "/"]
    assert len(roots) == 1 and " overlay " in roots[0]


@pytest.fixture
def own_templates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A store of this test's own; the rest of the cache is everybody's."""
    folder = tmp_path / "templates"
    folder.mkdir()
    monkeypatch.setattr(store, "_root", lambda: folder)
    return folder


async def test_nothing_of_the_user_is_in_a_template(
    project: Path, own_templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the workspace's path nor a variable, and no host name of a sandbox."""
    plan, parts = plan_for(project, {"run.env": ["SECRET=tell-tale-value"], "name": "tell-tale"})
    assert "tell-tale" in plan.setup["hostname"]  # type: ignore[operator]
    found = await template_for(plan, parts, silent)
    assert found is not None
    data = os.pread(found.state, 1 << 24, 0)
    for offset in range(0, os.fstat(found.memory).st_size, 1 << 24):
        data += os.pread(found.memory, 1 << 24, offset).strip(b"\0")
    found.close()
    assert b"corral" in data
    assert b"tell-tale" not in data
    assert socket.gethostname().encode() + b"\n" not in data or len(socket.gethostname()) < 6
