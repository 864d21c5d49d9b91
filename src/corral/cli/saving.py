"""What `checkpoint`, `restore` and `fork` do with kept sandboxes."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from ..errors import SandboxStateError
from ..events import Became, Report
from ..keeper import checkpoints, forking
from ..keeper.store import Record
from ..sandbox import host_facts, make_plan, prepare, saved
from .attach import as_json
from .keeping import reporting, run, say, say_waiting, stop, talk


def checkpoint(name: str, tag: str | None, *, replace: bool) -> str:
    """`corral checkpoint`; returns the tag."""
    chosen = checkpoints.checked_tag(tag) if tag else checkpoints.new_tag()
    talk(name, lambda kept: kept.checkpoint(chosen, replace=replace))
    return chosen


def remove(name: str, tag: str) -> None:
    """`corral checkpoint --remove`."""
    record = Record.find(name)
    with record.changing(say_waiting(record)):
        checkpoints.remove(record, tag)


def restore(name: str, tag: str, *, json: bool) -> int:
    """`corral restore`: end what runs, go on from the checkpoint; returns the exit status."""
    record = Record.find(name)
    with reporting(json=json) as (report, progress), contextlib.ExitStack() as changing:
        _check(checkpoints.find(record, tag), report)  # before anything is ended for it
        if stop(record, 0.0):
            say(f"{name} was ended, to go back to {tag}.")
        changing.enter_context(record.changing(say_waiting(record)))
        folder = checkpoints.find(record, tag)  # it may have been removed while we waited
        if record.is_kept():
            raise SandboxStateError(
                f"the sandbox {name} was started again meanwhile.", hint="Try again."
            )
        record.write_request(checkpoints.request_of(folder))
        run(record, changing, report, progress, detach=True, checkpoint=folder)
    return 0


def _check(folder: Path, report: Report) -> None:
    """Raises CheckpointError when nothing can go on from the checkpoint here."""
    request = checkpoints.request_of(folder)
    facts = host_facts(report)
    plan = make_plan(request.spec, facts, request.environ, kept=True)
    with saved.opened(folder, plan, prepare(plan, facts, report)):
        pass


def fork(name: str, count: int, *, json: bool) -> int:
    """`corral fork`: copies that go on from where the sandbox is; returns the exit status."""
    with reporting(json=json) as (report, progress):
        names = forking.fork(name, count, report, waiting=say_waiting)
        progress.stop()
        for each in names:
            if json:
                as_json(Became(sandbox=each, state="running"))
            else:
                click.echo(each)
    return 0
