"""Client programs that tests run in a sandbox: installed once, into a folder of the cache.

They are not among corral's own dependencies, and what they need may conflict with those.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from corral.paths import cache_dir

SDKS = ("anthropic>=0.70", "openai>=2")


def python_sdks() -> Path:
    """A folder for PYTHONPATH with the SDKs of the model APIs, for the system's Python."""
    version = _output("/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    key = hashlib.sha256(f"{version} {SDKS}".encode()).hexdigest()[:12]
    folder = cache_dir() / "tests" / f"sdks-{key}"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            unfinished = folder.with_suffix(f".{os.getpid()}")
            shutil.rmtree(unfinished, ignore_errors=True)
            _output(
                *(sys.executable, "-m", "pip", "install", "-q", "--no-compile"),
                *("--disable-pip-version-check", "--target", str(unfinished)),
                *("--python-version", version, "--only-binary=:all:", *SDKS),
            )
            # The host's Python writes the bytecode; under emulation it would take a minute.
            _output("/usr/bin/python3", "-m", "compileall", "-q", str(unfinished))
            unfinished.rename(folder)
    return folder


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
