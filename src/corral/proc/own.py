"""A short-lived child of ours that works for the user: in their environment, with their files.

It is not confined: it runs what the user configured, `pass` or a keyring say, which need what only
the user's own session has. It ends with the thread that started it.

So what a sandbox can write must not lead it anywhere: it does not start in the workspace, where git
and others find their configuration, and imports nothing by the user's PYTHONPATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ProcessError

_LAST_WORDS = 2000  # characters of what it says when it fails
_FOLDER = "/"
# Seconds that it has to end when it is asked to: a login that it renews has to be written down.
_GRACE = 10.0
# What is run first: our own modules are where this process has them from.
_BEGIN = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_SOURCE = str(Path(__file__).resolve().parents[2])


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a module of ours, by this Python.

    -E -P: no PYTHON* variable and no current folder says where modules are; a sandbox may have
    written there. Programs that it starts still get the variables.
    """
    return (sys.executable, "-E", "-P", "-c", _BEGIN, _SOURCE, module, *arguments)


async def ask(
    module: str,
    question: bytes,
    *,
    environment: Mapping[str, str],
    fds: Sequence[int] = (),
    stdout: int,
    timeout: float,  # noqa: ASYNC109 - the child is ended, too
) -> None:
    """Run a module of ours by this Python, with `question` on its input, until it has ended.

    stdout: a descriptor that its output goes to; who reads it is not our business. fds: further
    ones that it keeps, at their numbers. It starts in the root folder, in a process group of its
    own; what it starts in it, it ends on SIGTERM.
    Raises ProcessError when it fails or takes more than `timeout` seconds.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *python(module),
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            cwd=_FOLDER,
            pass_fds=tuple(fds),
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessError(f"{module} was not started: {error.strerror}.") from error
    try:
        async with asyncio.timeout(timeout):
            _none, complaints = await child.communicate(question)
    except TimeoutError as error:
        raise ProcessError(f"{module} did not end within {timeout:g} seconds.") from error
    finally:
        if child.returncode is None:
            await asyncio.shield(_end(child))
    if child.returncode != 0:
        words = complaints.decode(errors="replace")[-_LAST_WORDS:].strip()
        raise ProcessError(f"{module} failed with status {child.returncode}.", detail=words or None)


async def _end(child: asyncio.subprocess.Process) -> None:
    """Ask it to end; after a while kill it with all of its group."""
    try:
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            child.terminate()
            async with asyncio.timeout(_GRACE):
                await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, 9)
            await child.wait()
