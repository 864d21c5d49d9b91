"""Whatever is asked that cannot be meant ends in one clear error, before anything is started.

Through the command line, as a user meets it; tests/unit/spec has the finer points.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral.errors import CorralError
from tests.conftest import Corral
from tests.support.faults import assert_nothing_left

WIDENS = "asks for more than a project may without your consent"


def refused(corral: Corral, *options: str, **how: object) -> str:
    """Run corral with these options, which it must refuse in one error; returns that."""
    # A command line is bytes; what is no UTF-8 comes back as escapes.
    done = corral("run", *options, "--", "true", errors="backslashreplace", **how)
    assert done.returncode == CorralError.exit_status, (done.returncode, done.stderr)
    assert done.stdout == ""
    assert done.stderr.startswith("corral: error: "), done.stderr
    assert done.stderr.count("corral: ") == 1, done.stderr
    assert "Traceback" not in done.stderr and "internal" not in done.stderr
    assert_nothing_left()
    return done.stderr


@pytest.mark.parametrize(
    ("text", "widening"),
    [
        ('[[share]]\nsource = "/etc"\n', "share: read-only access to /etc"),
        ('[workspace]\nunprotect = [".git/hooks"]\n', "workspace.unprotect: .git/hooks"),
        ('[run]\npass_env = ["HOME"]\n', "run.env: HOME (its value is taken from your"),
        ('[run]\ntools = ["/opt"]\n', "run.tools"),
        ('[machine]\nkernel = "/boot/vmlinuz"\n', "machine.kernel"),
        ('[run]\nuser = "root"\n', "run.user"),
    ],
)
def test_an_untrusted_project_that_widens_anything(
    corral: Corral, project: Path, text: str, widening: str
) -> None:
    file = project / "corral.toml"
    file.write_text(text)
    error = refused(corral)
    assert f"{file} {WIDENS}" in error
    assert widening in error
    assert f"corral trust {file}" in error, "how to accept it"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[machine]\nmemroy = "1g"\n', "machine.memroy is not a known key.\n  Did you mean machi"),
        ("[workspce]\nread_only = true\n", "workspce is not a known key.\n  Did you mean works"),
        ("[machine\n", "is not valid TOML"),
        ("[machine]\ncpus = [1]\n", "machine.cpus: expected a whole number or text, not a list"),
        (b'[run]\nworkdir = "/\xff"\n', "is not UTF-8"),
    ],
)
def test_a_configuration_that_says_nothing_known(
    corral: Corral, project: Path, text: str | bytes, said: str
) -> None:
    file = project / "corral.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    error = refused(corral)
    assert str(file) in error
    assert said in error


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--cpus", "0", "1 to 128 are possible"),
        ("--cpus", "129", "1 to 128 are possible"),
        ("--cpus", "many", "Write it like 2 or 2cpu"),
        ("--memory", "1m", "64MiB to 1TiB"),
        ("--memory", "1025g", "64MiB to 1TiB"),
        ("--memory", "-5g", "is not a size"),
        ("--timeout", "soon", "Write it like 30s"),
        ("--timeout", "0s", "more than 0"),
        ("--accel", "xen", "none of auto, kvm, tcg"),
        ("--carrier", "pigeon", "none of auto, vsock, serial"),
        ("--image", "debian", "none of host"),
        ("--name", "Not A Name", "[a-z0-9]"),
        ("--user", "somebody-else", "cannot run as somebody-else"),
        ("--config", "/no/such.toml", "/no/such.toml does not exist"),
        ("--kernel", "/no/vmlinuz", "/no/vmlinuz"),
    ],
)
def test_a_value_out_of_range_or_of_no_meaning(
    corral: Corral, option: str, value: str, said: str
) -> None:
    assert said in refused(corral, option, value)


def test_more_than_this_machine_has(corral: Corral) -> None:
    cpus = os.cpu_count() or 1
    if cpus < 128:
        assert f"this machine has {len(os.sched_getaffinity(0))}" in refused(
            corral, "--cpus", "128"
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory < 1024 << 30, "no test for a machine as large as that"
    assert "this machine has" in refused(corral, "--memory", "1024g")


def test_a_share_that_is_no_folder(corral: Corral, tmp_path: Path) -> None:
    assert "does not exist" in refused(corral, "--share", str(tmp_path / "nothing"))
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(corral, "--share", str(tmp_path / "file"))


def test_shares_that_overlap(corral: Corral, project: Path, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    inside = refused(corral, "--share", str(tmp_path / "a"), "--share", str(tmp_path / "a/b"))
    assert "overlaps" in inside and str(tmp_path / "a/b") in inside
    assert "overlaps the workspace" in refused(corral, "--share", str(tmp_path))
    (project / "sub").mkdir()
    assert "overlaps the workspace" in refused(corral, "--share", str(project / "sub"))
    same = refused(corral, "--share", f"{tmp_path}/a:/data", "--share", f"{tmp_path}/a/b:/data")
    assert "overlaps" in same


NAMES = {
    "a comma": b"one,two",
    "a newline": b"one\ntwo",
    "a control character": b"one\x1btwo",
    "bytes that are not UTF-8": b"one\xfftwo",
}


@pytest.mark.parametrize(("what", "name"), NAMES.items(), ids=list(NAMES))
def test_a_path_that_no_option_could_carry(
    corral: Corral, tmp_path: Path, what: str, name: bytes
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    folder.mkdir()
    for error in (refused(corral, "--share", str(folder)), refused(corral, cwd=folder)):
        assert f"has {what} in its path" in error
        assert "\x1b" not in error and "one\ntwo" not in error, "it drives no terminal"


def test_a_path_with_a_colon(corral: Corral, tmp_path: Path) -> None:
    folder = tmp_path / "one:two"
    folder.mkdir()
    assert "two" in refused(corral, "--share", str(folder)), "what follows a colon is the target"
    assert "has a colon in its path" in refused(corral, cwd=folder)
    named = tmp_path / "config.toml"
    named.write_text(f'[[share]]\nsource = "{folder}"\n')
    assert "has a colon in its path" in refused(corral, "--config", str(named))


def test_a_link_out_of_the_project_is_no_share(
    corral: Corral, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    (project / "link").symlink_to(tmp_path / "secret")
    error = refused(corral, "--share", str(project / "link"))
    assert f"is a link out of {project}, to {tmp_path}/secret" in error


@pytest.mark.parametrize("folder", ["/", "~", "~/.."])
def test_a_workspace_that_holds_everything(corral: Corral, folder: str) -> None:
    error = refused(corral, cwd=Path(folder).expanduser().resolve())
    assert "would be open to the sandbox" in error
    assert "--force" in error


def test_a_share_of_everything(corral: Corral) -> None:
    assert "--force" in refused(corral, "--share", "/:/host")


def test_a_kernel_that_is_none(corral: Corral, tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(os.urandom(100_000))
    error = refused(corral, "--kernel", str(kernel))
    assert f"{kernel} is not a Linux kernel image" in error
    assert "Name a vmlinuz or vmlinux" in error


def test_a_workspace_that_is_gone(corral: Corral, tmp_path: Path) -> None:
    code = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); "
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code} os.execv(sys.executable, sys.argv[1:])",
            *(sys.executable, "-m", "corral", "run", "--", "true"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 125
    assert done.stderr.startswith("corral: error: ") and "Traceback" not in done.stderr
