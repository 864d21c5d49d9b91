"""The command line as a process of its own, for tests that talk to it while it runs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from corral.paths import run_root

# Small machines: many run on a machine that tests.
UP_PATIENCE = 110.0  # seconds; a restore may take 40 on a busy machine, and then it is booted
SMALL = {"CORRAL_CPUS": "1", "CORRAL_MEMORY": "768MiB"}


def command(*arguments: str) -> list[str]:
    """argv of `corral ARGUMENTS`."""
    return [sys.executable, "-m", "corral", *arguments]


def environment(further: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's own, with a small machine."""
    return {**SMALL, **os.environ, **(further or {})}


def launch(
    folder: Path, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start `corral ARGUMENTS` in `folder`, with pipes for its streams unless told otherwise."""
    streams = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(
        command(*arguments), cwd=folder, env=environment(env), **{**streams, **options}
    )


@contextlib.contextmanager
def kept(name: str, *options: str, folder: Path) -> Iterator[str]:
    """The sandbox that `corral up OPTIONS` keeps on a folder, by its name; what that has said.

    It is removed at the end, also when it was not up in time: for a fixture of a module a second
    try comes then, which needs the name.
    """

    def done(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=UP_PATIENCE,
        )

    try:
        up = done("up", *options)
        assert up.returncode == 0, up.stderr
        yield up.stdout
    except BaseException:
        done("rm", "-f", name)
        raise
    removed = done("rm", "-f", name)
    assert removed.returncode == 0, removed.stderr


def left_behind() -> list[str]:
    """What runs of this test session have left: run folders, and processes that name one."""
    root = run_root()
    found = [str(folder) for folder in root.iterdir()]
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:  # it has just ended, or is another's
                continue
            if f"{root}/".encode() in line:
                found.append(os.fsdecode(line.replace(b"\0", b" ")))
    return found
