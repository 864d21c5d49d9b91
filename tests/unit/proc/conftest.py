"""A warden with real processes below it, and ways to see what is left of them."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from corral.host import Need, measure
from corral.proc import Helpers
from tests.support import leftovers


@pytest.fixture(scope="session")
def bwrap() -> tuple[str, ...]:
    """How bubblewrap is run here."""
    found = measure(need=Need(kvm=False, user_namespaces=False)).bwrap
    assert found is not None, "bubblewrap is needed: corral doctor --fix"
    return found.argv


@pytest_asyncio.fixture
async def helpers(bwrap: tuple[str, ...]) -> AsyncIterator[Helpers]:
    """A warden of one test."""
    async with Helpers.start(bwrap, root=os.getuid() == 0, run_folder=None) as started:
        yield started


@pytest.fixture
def mark() -> str:
    """A word by which the processes of one test are told from all others."""
    return f"mark-{uuid.uuid4().hex}"


def marked(mark: str) -> list[psutil.Process]:
    """The processes with this word in their command line."""
    return [process for process in leftovers.family() if mark in " ".join(process.cmdline())]


@pytest.fixture
def sleeper(tmp_path: Path, mark: str) -> tuple[str, ...]:
    """argv of a process that says `up`, and stays whatever it is asked."""
    program = tmp_path / "sleeper.py"
    program.write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'no\\n'))\n"
        "os.write(1, b'up\\n')\n"
        "while True: signal.pause()\n"
    )
    return (sys.executable, "-I", "-S", str(program), mark)
