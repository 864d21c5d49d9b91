"""What `checkpoint`, `restore` and `fork` do with kept sandboxes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import click

from ..errors import CorralError, SandboxStateError
from ..events import Became, Notice, Report
from ..host.copies import remove_tree
from ..keeper import checkpoints
from ..keeper.launch import launch
from ..keeper.store import Record
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
    checkpoints.find(record, tag)
    if stop(record, 0.0):
        say(f"{name} was ended, to go back to {tag}.")
    with reporting(json=json) as (report, progress), contextlib.ExitStack() as changing:
        changing.enter_context(record.changing(say_waiting(record)))
        folder = checkpoints.find(record, tag)  # it may have been removed while we waited
        if record.is_kept():
            raise SandboxStateError(
                f"the sandbox {name} was started again meanwhile.", hint="Try again."
            )
        record.write_request(checkpoints.request_of(folder))
        run(record, changing, report, progress, detach=True, checkpoint=folder)
    return 0


def fork(name: str, count: int, *, json: bool) -> int:
    """`corral fork`: copies that go on from where the sandbox is; returns the exit status."""
    source = Record.find(name)
    with reporting(json=json) as (report, progress), contextlib.ExitStack() as held:
        names = checkpoints.free_names(name, count)
        records = [Record(each) for each in names]
        for record in records:
            held.enter_context(record.changing(say_waiting(record)))
            _clear(record)
        saved: Path | None = None
        try:
            request = source.request()
            forked = talk(name, lambda kept: kept.fork(names))
            saved = Path(forked.folder)
            if forked.notice is not None:
                report(Notice(level="warning", message=forked.notice))
            for record in records:
                record.write_request(checkpoints.forked_request(request, record))
            _start(records, saved, report)
        except BaseException:
            for record in records:
                if not record.is_kept():
                    record.remove()
            raise
        finally:
            if saved is not None:
                remove_tree(saved)
        progress.stop()
        for each in names:
            if json:
                as_json(Became(sandbox=each, state="running"))
            else:
                click.echo(each)
    return 0


def _clear(record: Record) -> None:
    """What a fork left that was ended half way."""
    if record.exists():
        raise SandboxStateError(
            f"a sandbox {record.name} was made meanwhile.", hint="Try again: it gets other names."
        )
    workspace = record.folder / checkpoints.WORKSPACE
    if workspace.is_dir():
        remove_tree(workspace)


def _start(records: Sequence[Record], saved: Path, report: Report) -> None:
    """Start each copy; when one fails, those before it run on."""
    for number, record in enumerate(records):
        try:
            launch(record, os.environ, report, saved)
        except CorralError as error:
            if number:
                names = ", ".join(each.name for each in records[:number])
                say(f"these copies run: {names}. The others are removed.")
            raise error
