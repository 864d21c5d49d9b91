"""Files from a guest that was taken over: what it sends in place of an answer harms nobody.

The attacker has root in the guest, and so whatever answers the host. It is played by a program that
runs in place of the built-in, over the same channel.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import pytest_asyncio

from corral.errors import ChannelError, CorralError, FileError, UnsafeArchiveError
from corral.sandbox import Execution, Sandbox
from corral.sandbox.files import Executor, Files
from corral_guest import tar
from corral_guest.tar import Entry
from tests.support.sandboxes import python, sandbox_on, shell, succeeded
from tests.unit.guest.test_tar import archive

FOLDER = Entry(b"x", tar.FOLDER, 0o755)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("copies")


@pytest_asyncio.fixture(scope="module")
async def sandbox(workspace: Path) -> AsyncIterator[Sandbox]:
    async with sandbox_on(workspace) as running:
        yield running


class Hostile:
    """Runs a program of the attacker's in place of every built-in."""

    def __init__(self, sandbox: Sandbox, program: Sequence[str]) -> None:
        self._sandbox = sandbox
        self._program = program

    async def exec(self, _argv: Sequence[str], **_options: Any) -> Execution:
        return await self._sandbox.exec(self._program)


def saying(sandbox: Sandbox, out: bytes, status: int = 0) -> Files:
    """Files of a guest that answers everything with these bytes."""
    script = f"printf %s {base64.b64encode(out).decode()} | base64 -d; exit {status}"
    return Files(cast(Executor, Hostile(sandbox, ["sh", "-c", script])))


def forever(sandbox: Sandbox, fd: int, start: bytes, piece: bytes) -> Files:
    """Files of a guest that never stops talking."""
    code = f"""if True:
        import os
        os.write({fd}, {start!r})
        while True:
            os.write({fd}, {piece!r} * 100)
    """
    return Files(cast(Executor, Hostile(sandbox, ["python3", "-c", code])))


ATTACKS = {
    "absolute": [Entry(b"/tmp/corral-attack", tar.FILE, 0o644)],
    "dot-dot": [FOLDER, Entry(b"x/../../attack", tar.FILE, 0o644)],
    "another-root": [Entry(b"attack", tar.FILE, 0o644)],
    "link-out": [FOLDER, Entry(b"x/l", tar.LINK, 0o777, target=b"../../secret")],
    "through-link": [
        FOLDER,
        Entry(b"x/l", tar.LINK, 0o777, target=b"."),
        Entry(b"x/l/f", tar.FILE, 0o644),
    ],
    "chain": [
        FOLDER,
        Entry(b"x/d", tar.FOLDER, 0o755),
        Entry(b"x/d/u", tar.LINK, 0o777, target=b".."),
        Entry(b"x/o", tar.LINK, 0o777, target=b"d/u/../secret"),
    ],
    "hard-link": [FOLDER, Entry(b"x/h", tar.HARD_LINK, 0o644, target=b"/etc/passwd")],
    "set-id": [Entry(b"x", tar.FILE, 0o6755, 4)],
    "twice": [FOLDER, Entry(b"x/f", tar.FILE, 0o644), Entry(b"x/f", tar.LINK, 0, target=b"x")],
    "long-name": [FOLDER, Entry(b"x/" + b"n" * 300, tar.FILE, 0o644)],
    "huge": [Entry(b"x", tar.FILE, 0o644, 1 << 50)],
    "deep": [Entry(b"/".join([b"x"] * 250), tar.FOLDER, 0o755)],
}


def below(folder: Path, pattern: str = "**/*") -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.glob(pattern)}


def attack(name: str) -> bytes:
    if name == "huge":
        return tar.header(ATTACKS[name][0])
    return archive(ATTACKS[name])


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_hostile_archive_makes_nothing_on_the_host(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("kept")
    place = tmp_path / "place"
    place.mkdir()
    files = saying(sandbox, attack(name))
    with pytest.raises(UnsafeArchiveError):
        await files.download("/tmp/x", place / "x")
    # As an archive for another program's eyes: of any size, and without its end no good.
    with pytest.raises(ChannelError if name == "huge" else UnsafeArchiveError):
        async for _ in files.pack("/tmp/x"):
            pass
    assert below(tmp_path) == {"place", "secret"}
    assert secret.read_text() == "kept"
    assert "corral-attack" not in below(Path("/tmp"), "corral-attack")


async def test_the_same_way_an_honest_archive_arrives(sandbox: Sandbox, tmp_path: Path) -> None:
    """The control: what is refused above is refused for what is in it."""
    good = archive([FOLDER, Entry(b"x/f", tar.FILE, 0o644, 3)])
    await saying(sandbox, good).download("/tmp/x", tmp_path / "x")
    assert (tmp_path / "x" / "f").read_bytes() == b"xxx"


def listing(**changes: object) -> bytes:
    record = {"name": "n", "kind": "file", "mode": 0, "size": 0, "time": 0, "target": "", **changes}
    return json.dumps(record).encode() + b"\n"


@pytest.mark.parametrize(
    "answer",
    [
        listing(name="../up"),
        listing(name=".."),
        listing(name="a\0b"),
        listing(size=-1),
        listing(more=1),
        listing() * 2,
        b"\xff\n",
        b"[" * 60_000,
    ],
)
async def test_a_hostile_listing_is_refused(sandbox: Sandbox, answer: bytes) -> None:
    with pytest.raises(ChannelError):
        await saying(sandbox, answer).list("/tmp")


@pytest.mark.parametrize(
    ("fd", "start", "piece"),
    [
        (1, b"", b"x"),
        (1, b"", listing()[:-1] + b"\n"),
        (1, tar._block(b"pax", b"x", 0o644, 1 << 33, 0, b""), b"a"),
        (1, tar.header(FOLDER), tar.header(FOLDER)),
        (2, b"", b'{"left_out": "x"}\n'),
    ],
    ids=["noise", "records", "headers", "entries", "complaints"],
)
async def test_a_guest_that_never_stops_takes_no_memory_and_no_time(
    sandbox: Sandbox, tmp_path: Path, fd: int, start: bytes, piece: bytes
) -> None:
    before = psutil.Process().memory_info().rss
    async with asyncio.timeout(60):
        for call in (
            forever(sandbox, fd, start, piece).list("/tmp"),
            forever(sandbox, fd, start, piece).download("/tmp/x", tmp_path / "x"),
            forever(sandbox, fd, start, piece).read("/tmp/x", limit=1 << 20),
        ):
            with pytest.raises(CorralError) as caught:
                async with asyncio.timeout(20):
                    await call
            assert isinstance(caught.value, ChannelError | FileError | UnsafeArchiveError)
    assert below(tmp_path) == set()
    assert psutil.Process().memory_info().rss - before < 64 << 20


SWAP = """if True:
    import os, shutil
    def clear():
        try:
            os.unlink('swap/f')
        except OSError:
            shutil.rmtree('swap/f', ignore_errors=True)
    os.makedirs('swap', exist_ok=True)
    print('up', flush=True)
    while True:
        try:
            clear(); os.symlink(OUTSIDE, 'swap/f')
            clear(); os.mkdir('swap/f')
            open('swap/f/secret', 'w').write('of the guest')
        except OSError:
            pass
"""


async def test_swapping_links_in_the_workspace_leads_no_copy_astray(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """The host copies into a folder and out of it while whoever can write there swaps links.

    Swapped on the host, as fast as can be: through a file server the race would be slower, and
    QEMU's virtiofsd 7.2 does not live through it.
    """
    outside, raced = tmp_path / "outside", tmp_path / "raced"
    for folder in (outside, raced):
        folder.mkdir()
    (outside / "secret").write_text("of the host")
    files = Files(sandbox)
    succeeded(await shell(sandbox, "mkdir -p /tmp/d/swap/f; echo planted > /tmp/d/swap/f/secret"))
    swapping = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"OUTSIDE = {str(outside)!r}\n{SWAP}"),
        cwd=raced,
        stdout=asyncio.subprocess.PIPE,
    )
    assert swapping.stdout is not None
    assert await swapping.stdout.readline() == b"up\n"
    for _ in range(25):
        with contextlib.suppress(FileError):
            await files.upload(raced / "swap", "/tmp/up")
        with contextlib.suppress(FileError):
            await files.download("/tmp/d/swap", raced / "swap")
    assert swapping.returncode is None
    swapping.kill()
    await swapping.wait()
    assert below(outside) == {"secret"}
    assert (outside / "secret").read_text() == "of the host"
    found = await shell(sandbox, "grep -r 'of the host' /tmp/up; true")
    assert found.stdout == "", "nothing of the host's was sent"


async def test_what_works_on_files_in_the_guest_has_no_more_rights_than_the_agent(
    sandbox: Sandbox,
) -> None:
    files = Files(sandbox)
    ours = dict(
        line.split(":\t") for line in (await files.read("/proc/self/status")).decode().splitlines()
    )
    theirs = dict(
        line.split(":\t")
        for line in (await python(sandbox, "print(open('/proc/self/status').read())"))
        .stdout.strip()
        .splitlines()
    )
    for name in ("Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
        assert ours[name] == theirs[name], name
    assert (ours["NoNewPrivs"], ours["Seccomp"]) == ("1", "2")
    for path in ("/agents", "/toolbox", "/corral/init.pyc"):
        assert not await files.exists(path), "the guest's own root is not there"
