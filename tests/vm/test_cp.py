"""`corral cp`, and the SDK, with a sandbox that is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral import Sandbox
from corral.errors import CorralError
from corral_guest import tar
from tests.support.corral import command, environment, kept

NAME = f"cp-{os.getpid()}"
GNARLY = """
mkdir -p tree/sub && cd tree && echo hi > sub/file && chmod 751 sub/file && ln -s file sub/link
ln -s /etc/passwd ../leads-out
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def box(workspace: Path) -> Iterator[Sandbox]:
    """One that is kept, in which this module's tests may do what they like."""
    with kept(NAME, NAME, "-d", folder=workspace), Sandbox.connect(NAME) as connected:
        connected.exec(["sh", "-c", GNARLY], cwd="/tmp", check=True)
        yield connected


def corral(folder: Path, *arguments: str, **options: object) -> bytes:
    """What `corral ARGUMENTS` prints; it must succeed."""
    done = attempt(folder, *arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def attempt(folder: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    given = {} if "input" in options else {"stdin": subprocess.DEVNULL}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]  # options are many
        command(*arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=90,
        **given,
        **options,
    )


def test_folders_go_out_and_in_again(box: Sandbox, tmp_path: Path) -> None:
    corral(tmp_path, "cp", f"{NAME}:/tmp/tree", "out")
    made = tmp_path / "out" / "sub"
    assert (made / "file").read_text() == "hi\n"
    assert (made / "file").stat().st_mode & 0o777 == 0o751
    assert (made / "file").stat().st_uid == os.getuid()
    assert str((made / "link").readlink()) == "file"
    corral(tmp_path, "cp", "out", f"{NAME}:/var/tmp")
    found = box.exec(["stat", "-c", "%a %U", "/var/tmp/out/sub/file"]).stdout
    assert found == f"751 {box.exec(['id', '-un']).stdout}"


def test_a_link_that_leads_out_is_refused_and_followed_when_asked_for(
    box: Sandbox, tmp_path: Path
) -> None:
    refused = attempt(tmp_path, "cp", f"{NAME}:/tmp/leads-out", "copy")
    assert (refused.returncode, b"leads out" in refused.stderr) == (125, True)
    assert list(tmp_path.iterdir()) == []
    corral(tmp_path, "cp", "-L", f"{NAME}:/tmp/leads-out", "copy")
    assert (tmp_path / "copy").read_text() == box.files.read("/etc/passwd").decode()


def test_archives_go_through_pipes(box: Sandbox, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    archive.write_bytes(corral(tmp_path, "cp", f"{NAME}:/tmp/tree", "-"))
    with tarfile.open(archive) as found:
        assert set(found.getnames()) == {"tree", "tree/sub", "tree/sub/file", "tree/sub/link"}
    box.files.mkdir("/tmp/again")
    corral(tmp_path, "cp", "-", f"{NAME}:/tmp/again", input=archive.read_bytes())
    assert box.files.read("/tmp/again/tree/sub/file") == b"hi\n"
    noise = attempt(tmp_path, "cp", "-", f"{NAME}:/tmp/again", input=b"noise" * 500)
    assert (noise.returncode, b"cannot be read" in noise.stderr) == (125, True)


def test_what_goes_wrong_is_one_clear_error(box: Sandbox, tmp_path: Path) -> None:
    for arguments, reason in (
        ((f"{NAME}:/none", "x"), b"No such file"),
        (("none", f"{NAME}:/tmp"), b"none on this machine: No such file"),
        (("nobody:/tmp", "x"), b"no sandbox nobody"),
    ):
        done = attempt(tmp_path, "cp", *arguments)
        assert (done.returncode, reason in done.stderr) == (125, True), done.stderr
    assert attempt(tmp_path, "cp", "a", "b").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_a_copy_at_once_and_leaves_nothing(
    box: Sandbox, tmp_path: Path, number: signal.Signals
) -> None:
    """Into the sandbox from a pipe that stays silent; out of it, in the middle of a large file."""
    box.exec(["truncate", "-s", "300M", "/tmp/huge"], check=True)
    environ = environment()
    silent = subprocess.Popen(
        command("cp", "-", f"{NAME}:/tmp"), stdin=subprocess.PIPE, cwd=tmp_path, env=environ
    )
    assert silent.stdin is not None
    large = tar.header(tar.Entry(b"cut-off", tar.FILE, 0o644, 1 << 20))
    silent.stdin.write(tar.header(tar.Entry(b"seen", tar.FILE, 0o644)) + large + bytes(50_000))
    silent.stdin.flush()
    copying = subprocess.Popen(command("cp", f"{NAME}:/tmp/huge", "x"), cwd=tmp_path, env=environ)
    limit = time.monotonic() + 60

    def both_at_work() -> bool:
        arriving = any(each.stat().st_size for each in tmp_path.glob(".corral*/x"))
        return arriving and box.files.exists("/tmp/seen")

    while not both_at_work():
        assert time.monotonic() < limit, list(tmp_path.rglob("*"))
        time.sleep(0.05)
    for process in (silent, copying):
        process.send_signal(number)
        assert process.wait(10) == 128 + number
    silent.stdin.close()
    assert list(tmp_path.iterdir()) == []
    box.exec(["rm", "-f", "/tmp/huge", "/tmp/seen", "/tmp/cut-off"], check=True)


def test_the_sdk_uses_what_is_kept_and_leaves_it(box: Sandbox, workspace: Path) -> None:
    with Sandbox.connect(NAME) as other:
        assert (other.name, other.accel) == (NAME, box.accel)
        other.files.write("from-sdk", b"shared")
        assert (workspace / "from-sdk").read_bytes() == b"shared"
        lost = other.spawn(["sleep", "1000"])
        assert lost.status is None
    assert box.exec(["true"]).status == 0
    with pytest.raises(CorralError, match="no sandbox nobody"):
        Sandbox.connect("nobody").start()
