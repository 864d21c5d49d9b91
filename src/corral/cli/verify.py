"""`corral verify`: attack a sandbox on this host, and say what held."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .options import current_folder

if TYPE_CHECKING:
    from ..verify import Probe, Result
    from .progress import Progress

COLOURS = {"proven": "green", "degraded": "yellow", "failed": "red"}
EPILOG = """\b
Examples:
  corral verify                        every probe, on a workspace of its own
  corral verify --spec                 the sandbox that `corral run` would give this project
  corral verify --only network         one family, or one probe: --only link-race
  corral verify --list                 the probes, and what each tries
  corral verify --json | jq '.results[] | select(.verdict != "proven")'

\b
Exit status: 0 when all is proven, 1 when something failed, 3 when nothing failed and something
could not be proven on this host.
"""


@click.command("verify", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--spec", is_flag=True, help="Attack a sandbox of this project's own configuration.")
@click.option(
    "--only", multiple=True, metavar="FAMILY|ID", help="A family of probes, or one. Repeatable."
)
@click.option("--list", "listing", is_flag=True, help="List the probes; attack nothing.")
def command(as_json: bool, spec: bool, only: tuple[str, ...], listing: bool) -> None:
    """Attack a sandbox on this host, and say what held.

    Each guarantee of docs/threat-model.md has probes. A probe is an attack from inside a sandbox,
    or a look at what an attack would need. A guarantee is proven when each of its attacks was made
    and refused; degraded when one could not be made here, with the reason; failed when one went
    through. Nothing is sent to any other machine. With --spec the project is not changed: what
    needs a workspace of its own is left out, and a scratch file is removed again.
    """
    from ..verify import exit_status, select

    probes = select(only)
    if listing:
        _list(probes, as_json)
        return
    results = _carried_out(probes, spec, as_json)
    if as_json:
        _print_json(results)
    else:
        _print_table(results, len(probes) - len(results))
    sys.exit(exit_status(results))


def _carried_out(probes: tuple[Probe, ...], spec: bool, as_json: bool) -> list[Result]:
    """With what is going on shown on standard error, where a person watches."""
    import asyncio

    from ..verify import Wanted, verify
    from .progress import Progress

    progress = Progress()
    live = _Live(len(probes), shown=sys.stderr.isatty(), progress=progress)
    wanted = Wanted(
        probes=probes,
        environ=dict(os.environ),
        project=current_folder() if spec else None,
        report=progress,
        began=live.began,
        done=live.done,
    )
    try:
        return asyncio.run(verify(wanted))
    finally:
        progress.stop()


class _Live:
    """What goes on, on one line; what did not hold, on lines of their own."""

    def __init__(self, count: int, *, shown: bool, progress: Progress) -> None:
        self._count = count
        self._shown = shown
        self._progress = progress
        self._done = 0

    def began(self, probe: Probe) -> None:
        from ..events import Phase

        message = f"{self._done}/{self._count} {probe.family}: {probe.id}"
        self._progress(Phase(name="verify", message=message))

    def done(self, result: Result) -> None:
        from ..events import Notice

        self._done += 1
        if result.verdict != "proven" and self._shown:
            message = f"{result.verdict}: {result.id}: {result.seen}"
            self._progress(Notice(level="warning", message=message))


def _list(probes: Sequence[Probe], as_json: bool) -> None:
    import msgspec

    from ..verify import GUARANTEES

    if as_json:
        answer = [
            {
                "id": probe.id,
                "family": probe.family,
                "guarantee": GUARANTEES[probe.guarantee].text,
                "says": probe.says,
                "cites": probe.cites,
            }
            for probe in probes
        ]
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
        return
    width = max((len(probe.id) for probe in probes), default=0)
    family = ""
    for probe in probes:
        if probe.family != family:
            click.echo(f"{family and chr(10)}{probe.family}")
            family = probe.family
        cites = f" ({', '.join(probe.cites)})" if probe.cites else ""
        click.echo(f"  {probe.id:<{width}}  {probe.says}{cites}")


def _print_json(results: Sequence[Result]) -> None:
    import msgspec

    from ..verify import GUARANTEES, by_guarantee, worst

    guarantees = [
        {
            "guarantee": GUARANTEES[key].text,
            "section": GUARANTEES[key].section,
            "verdict": worst(result.verdict for result in found),
            "probes": [result.id for result in found],
        }
        for key, found in by_guarantee(results).items()
    ]
    answer = {
        "verdict": worst(result.verdict for result in results),
        "guarantees": guarantees,
        "results": results,
    }
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


def _print_table(results: Sequence[Result], left_out: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..verify import GUARANTEES, by_guarantee, worst

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True, justify="right")
    found = by_guarantee(results)
    for key, guarantee in GUARANTEES.items():
        if key in found:
            verdict = worst(result.verdict for result in found[key])
            held = sum(result.verdict == "proven" for result in found[key])
            count = f"{held}/{len(found[key])}"
            table.add_row(Text(verdict, style=COLOURS[verdict]), Text(guarantee.text), count)
    console = Console(highlight=False)
    console.print(table)
    for result in results:  # not in the table: a reason is to be read whole
        if result.verdict != "proven":
            mark = (result.verdict, COLOURS[result.verdict])
            words = f": {result.seen}\n  {result.says}"
            console.print(Text.assemble("\n", mark, " ", (result.id, "bold"), words))
    verdicts = [result.verdict for result in results]
    counted = ", ".join(f"{verdicts.count(v)} {v}" for v in COLOURS if v in verdicts)
    click.echo(f"\n{len(results)} probes: {counted or 'none'}.")
    if left_out:
        click.echo(
            f"{left_out} more need a workspace of their own: `corral verify` without --spec."
        )
