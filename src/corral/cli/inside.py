"""A command of the user's in a kept sandbox, for `exec` and `shell`."""

from __future__ import annotations

import asyncio
import posixpath
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..channel import Execution
from ..channel.failures import printable
from ..errors import ConfigError, CorralError, SandboxStateError
from ..events import Failed, Report, Started, silent
from ..keeper.client import Kept, connect
from .attach import Attachment, Command, as_json

_KILL_TIME = 5.0  # seconds


def run(
    name: str,
    command: Command,
    *,
    agent: int = 1,
    user: str | None,
    environ: Mapping[str, str],
    began: float,
) -> int:
    """Run it to its end; returns its status. Raises CorralError unless JSON is wanted."""
    try:
        return asyncio.run(_run(name, command, agent, user, environ, began))
    except CorralError as error:
        if not command.as_json:
            raise
        as_json(Failed(message=error.message, hint=error.hint, status=error.exit_status))
        return error.exit_status


class _Agent:
    """One agent of a kept sandbox."""

    def __init__(self, kept: Kept, number: int) -> None:
        self._kept = kept
        self._number = number

    async def exec(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        workdir: str | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Execution:
        """Start a command in its jail."""
        return await self._kept.exec(
            argv,
            environment=environment,
            workdir=workdir,
            terminal=terminal,
            agent=self._number,
        )


async def _run(
    name: str,
    command: Command,
    agent: int,
    user: str | None,
    environ: Mapping[str, str],
    began: float,
) -> int:
    report: Report = as_json if command.as_json else silent
    attachment = Attachment(report)

    async def connected() -> int:
        async with connect(name) as kept:
            _check_user(kept, user)
            hello = kept.hello

            def started() -> Started:
                return Started(
                    sandbox=name,
                    accel=hello.accel,
                    carrier=hello.carrier,
                    seconds=round(time.monotonic() - began, 3),
                )

            placed = _placed(command, hello.workdir, environ)
            try:
                return await attachment.run(_Agent(kept, agent), placed, started)
            except asyncio.CancelledError:
                # The user has had enough of it: Ctrl-C three times.
                if attachment.execution is not None:
                    async with asyncio.timeout(_KILL_TIME):
                        await attachment.execution.signal(signal.SIGKILL, group=True)
                raise

    return await attachment.during(connected)


def _placed(command: Command, workdir: str, environ: Mapping[str, str]) -> Command:
    """With an absolute folder, and the kind of the user's terminal."""
    import dataclasses

    folder = None if command.workdir is None else posixpath.join(workdir, command.workdir)
    term = None if "TERM" in command.environment else environ.get("TERM", "xterm")
    return dataclasses.replace(command, workdir=folder, term=term)


def _check_user(kept: Kept, user: str | None) -> None:
    ours = kept.hello.user
    if user is not None and user != ours:
        raise SandboxStateError(
            f"commands in the sandbox {kept.name} run as {ours}, not as {printable(user)}.",
            hint=f"Its user is decided when it is started: corral stop {kept.name}, then "
            f"corral up {kept.name} -d --user {printable(user)}",
        )


def variables(named: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of --env: NAME=VALUE, or NAME for the user's own. Raises ConfigError.

    What looks like a credential is warned about on standard error.
    """
    import click

    from ..spec.credentials import credential_warning
    from ..spec.values import Base, parse_env

    found = {}
    nowhere = Base(str(Path("/")), "/", "/")
    for item in named:
        variable = parse_env(item, nowhere)
        value = variable.value if variable.value is not None else environ.get(variable.name)
        if value is None:
            raise ConfigError(
                f"{variable.name} is to be taken from your environment, and is not set there.",
                hint=f"Set it, or give a value: {variable.name}=VALUE.",
            )
        found[variable.name] = value
        if (warning := credential_warning(variable.name, value)) is not None:
            click.echo(f"corral: warning: {warning}", err=True)
    return found
