"""What the verbs of kept sandboxes have in common: start one, stop one, talk to one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from ..errors import CorralError, SandboxStateError
from ..events import Became, CommandEnded, CommandStarted, Event, Failed, Report
from ..keeper import leftovers
from ..keeper.client import Kept, connect
from ..keeper.launch import launch
from ..keeper.life import keep
from ..keeper.model import ALIVE, Request, planning_environment
from ..keeper.notify import notify
from ..keeper.store import Record, remove_logs
from ..sandbox import host_facts, make_plan, prepare
from ..spec.text import harmless
from . import narration, terminal
from .attach import as_json
from .options import Wanted
from .progress import Progress
from .session import wanted_spec

T = TypeVar("T")


def up(
    wanted: Wanted,
    folder: Path,
    environ: Mapping[str, str],
    *,
    detach: bool,
    share_auth: bool = False,
    import_settings: bool = False,
) -> int:
    """`corral up`; returns the exit status."""
    with reporting(json=wanted.as_json) as (report, progress):
        spec = wanted_spec(
            *(wanted, folder, environ, report),
            share_auth=share_auth,
            import_settings=import_settings,
        )
        record = Record(spec.name)
        with contextlib.ExitStack() as changing:
            changing.enter_context(record.changing(say_waiting(record)))
            _check_free(record, spec.workspace.path)
            facts = host_facts(report, assume_yes=wanted.assume_yes)
            # Here, where a person can be asked and sees what is fetched; the keeper finds it done.
            prepare(make_plan(spec, facts, environ, kept=True), facts, report)
            record.write_request(
                Request(
                    spec=spec,
                    environ=planning_environment(environ),
                    created=time.time(),
                    debug=wanted.debug,
                )
            )
            console = terminal.STDERR if wanted.console else None
            run(record, changing, report, progress, detach=detach, console=console)
    return 0


def start(name: str, *, detach: bool, json: bool = False) -> int:
    """`corral start`; returns the exit status."""
    with reporting(json=json) as (report, progress):
        record = Record.find(name)
        with contextlib.ExitStack() as changing:
            changing.enter_context(record.changing(say_waiting(record)))
            record.request()  # it may have been removed while we waited
            if record.is_kept():
                say(f"{name} is {record.status().state} already.")
                return 0
            run(record, changing, report, progress, detach=detach)
    return 0


def run(
    record: Record,
    changing: contextlib.ExitStack,
    report: Report,
    progress: Progress,
    *,
    detach: bool,
    console: int | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Start the record's sandbox; in front, until it is stopped.

    checkpoint: the folder of one to go on from, only with detach.
    """
    record.settle()
    if detach:
        launch(record, os.environ, report, checkpoint)
        progress.stop()
        if report is as_json:
            as_json(Became(sandbox=record.name, state="running"))
        else:
            click.echo(record.name)
        return

    def ready() -> None:
        changing.close()
        progress.stop()
        notify("READY=1")
        say(f"{record.name} is up. Ctrl-C stops it.")

    with record.keeping():
        keep(record, report, ready=ready, console_echo=console)


def stop(record: Record, seconds: float) -> bool:
    """Stop it and wait until it is gone; False when it did not run."""
    if not record.is_kept():
        return False
    try:
        talk(record.name, lambda kept: kept.stop(seconds))
    except SandboxStateError:  # it does not listen yet, or has just ended
        record.end_keeper()
    except CorralError:
        if record.is_kept():
            raise
    record.wait_until_left()
    return True


def remove(name: str, *, force: bool) -> None:
    """`corral rm`; changes that are held back stay, for `corral diff`."""
    record = Record(name)
    if not record.exists() and any([remove_logs(name), leftovers.remove(record)]):
        return  # of `corral run`, or of a fork that was cut off
    record = Record.find(name)
    if force:
        stop(record, 0.0)
    with record.changing(say_waiting(record)):
        if not record.exists():
            return  # somebody else has removed it while we waited
        if record.is_kept():
            raise SandboxStateError(
                f"the sandbox {name} is {record.status().state}.",
                hint=f"Stop it first (corral stop {name}), or remove it with --force.",
            )
        record.remove()


def talk(name: str, action: Callable[[Kept], Awaitable[T]]) -> T:
    """Do something with a sandbox that runs."""

    async def connected() -> T:
        async with connect(name) as kept:
            return await action(kept)

    return asyncio.run(connected())


def say(text: str) -> None:
    """A line for a person, on standard error."""
    print(f"corral: {harmless(text)}", file=sys.stderr, flush=True)


def show_end(record: Record) -> None:
    """Say what a person should know of how it ended."""
    status = record.status()
    for message in status.notices:
        say(f"warning: {message}")
    with contextlib.suppress(CorralError):
        spec = record.request().spec
        if spec.reviewed:
            from ..review.working import summary

            for _level, message in summary(spec):
                say(message)
    if status.problem is not None:
        say(f"it had ended by itself: {status.problem.message}")


def say_waiting(record: Record) -> Callable[[], None]:
    return lambda: say(f"another command starts or removes {record.name}; waiting for it ...")


def _check_free(record: Record, workspace: str) -> None:
    if not record.exists():
        return
    name, status = record.name, record.status()
    if status.state in ALIVE:
        raise SandboxStateError(
            f"the sandbox {name} is {status.state} already.",
            hint=f"Use it (corral exec {name} -- CMD), stop it (corral stop {name}), or give this "
            "one another name: corral up NAME",
        )
    kept = record.request().spec.workspace
    if kept.copy is not None and not kept.review:
        raise SandboxStateError(
            f"the sandbox {name} is a fork, with a workspace of its own in {kept.copy}.",
            hint=f"Start it: corral start {name}. Or give this one another name: corral up NAME",
        )
    other = kept.path
    if other != workspace:
        raise SandboxStateError(
            f"the name {name} belongs to the sandbox on {other}.",
            hint=f"Give this one another name (corral up NAME), or remove that: corral rm {name}",
        )


@contextlib.contextmanager
def reporting(*, json: bool) -> Iterator[tuple[Report, Progress]]:
    """Where events go, until the end; with JSON an error is an event, too."""
    progress = Progress()
    told = _in_front(progress)
    try:
        yield (as_json if json else told), progress
    except CorralError as error:
        progress.stop()
        if not json:
            raise
        as_json(Failed(message=error.message, hint=error.hint, status=error.exit_status))
        sys.exit(error.exit_status)
    finally:
        progress.stop()


def _in_front(progress: Progress) -> Report:
    def tell(event: Event) -> None:
        if isinstance(event, CommandStarted | CommandEnded | Became):
            if not isinstance(event, Became) or event.state not in ("starting", "running"):
                found = {"time": time.time(), **msgspec.to_builtins(event)}
                print(narration.line(found), file=sys.stderr, flush=True)
        else:
            progress(event)

    return tell
