"""The kernel and the base image, booted for real, and the tools that are fetched for real.

These use the network (the distribution's package archive) where the user's cache lacks something.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from corral.events import silent
from corral.images import (
    contents,
    ensure_base_image,
    ensure_kernel,
)
from corral.images.fetch import TOOLS, cached_tool, fetch_tool
from corral.plan.build import CARRIER_MODULES, MODULES, NINE_P_MODULES, VIRTIOFS_MODULES

PYTHON = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]

INIT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mount(b"proc", b"/proc", b"proc", 0, None)
for name in sorted(os.listdir("/modules")):
    fd = os.open("/modules/" + name, os.O_RDONLY)
    if libc.syscall(313, fd, b"", 0) != 0:  # finit_module
        print("MODULE", name, os.strerror(ctypes.get_errno()))
    os.close(fd)
for name in NEEDED.split():
    __import__(name)
print("PID", os.getpid(), "SITE", "site" in sys.modules, "PREFIX", sys.prefix)
print("BWRAP", os.spawnv(os.P_WAIT, "/usr/bin/bwrap", ["bwrap", "--version"]))
if os.fork() == 0:
    os.setuid(1000)
    code = "import corral_guest.jailed, os; print('UID', os.getuid())"
    os.execv("/usr/bin/python3", ["python3", "-I", "-S", "-E", "-c", code])
os.wait()
print("FILESYSTEMS", *open("/proc/filesystems").read().split())
sys.stdout.flush()
libc.reboot(0x4321FEDC)  # power off
"""


@pytest.mark.parametrize("extra", [(), NINE_P_MODULES], ids=["cloud", "generic"])
def test_python_starts_as_pid_1_and_imports_all_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...]
) -> None:
    kernel = ensure_kernel(
        wanted=None,
        modules=(*MODULES, *CARRIER_MODULES["serial"], *VIRTIOFS_MODULES, *extra),
        report=silent,
    )
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(tmp_path))
    guest = Path(contents.__file__).resolve().parents[2] / "corral_guest"
    needed = " ".join(contents.needed_modules(guest))
    monkeypatch.setattr(contents, "INIT", f"NEEDED = {needed!r}\n{INIT}")
    bwrap = Path("/usr/bin/bwrap").resolve()
    image = ensure_base_image(kernel, PYTHON, bwrap, silent)
    console = boot(kernel.image, image.path)
    assert "MODULE" not in console
    assert "PID 1 SITE False PREFIX /usr" in console
    assert "BWRAP 0" in console
    assert "UID 1000" in console
    assert {"virtiofs", "overlay", *extra[:1]} <= set(console.split())


def boot(kernel: Path, image: Path) -> str:
    """What the guest prints until it powers off."""
    options = "-accel tcg -cpu max -M q35 -m 512M -nodefaults -no-user-config -display none"
    command_line = "console=ttyS0 reboot=t panic=-1 quiet random.trust_cpu=on"
    result = subprocess.run(
        [
            *("qemu-system-x86_64", *options.split(), "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(kernel), "-initrd", str(image)),
            *("-append", f"{command_line} rdinit=/usr/bin/python3 -- -I -S -E /corral/init.pyc"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    print(result.stdout, result.stderr)
    return result.stdout


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_of_a_newer_debian_runs_here(name: str) -> None:
    program = fetch_tool(name, silent)
    ran = subprocess.run([*program.argv, "--version"], capture_output=True, text=True, check=True)
    assert program.version in ran.stdout
    assert cached_tool(name) == program
    assert all(Path(folder).is_dir() for folder in program.binds)
