"""`corral stats`: what kept sandboxes use of this machine."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral stats                all that run
  corral stats app --watch    every second, until Ctrl-C
  corral stats --json         for scripts
"""

INTERVAL = 1.0  # seconds


@click.command("stats", epilog=EPILOG)
@click.argument("name", required=False, shell_complete=known_name)
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, watch: bool, as_json: bool) -> None:
    """Show processor time, memory, disk and network of sandbox NAME, or of all that run.

    Memory is what this host has given it: the guest's RAM as far as it is used, and the
    proportional set size of all its processes; what sandboxes share is divided among them.
    """
    from ..keeper.store import Record, names

    if name is not None:
        Record.find(name)
    while True:
        rows = _measure([name] if name else names(), needed=name is not None)
        if as_json:
            click.echo(json.dumps(rows, indent=None if watch else 2))
        else:
            _print(rows, clear=watch)
        if not watch:
            return
        time.sleep(INTERVAL)


def _measure(names: list[str], *, needed: bool) -> list[dict[str, Any]]:
    from ..errors import CorralError
    from ..keeper.store import Record
    from . import keeping

    rows = []
    for name in names:
        if not needed and not Record(name).is_kept():
            continue
        try:
            rows.append({"name": name, **keeping.talk(name, lambda kept: kept.stats())})
        except CorralError:  # it has just ended, or not quite begun
            if needed:
                raise
    return rows


def _print(rows: list[dict[str, Any]], *, clear: bool) -> None:
    from .connections import amount

    shown = [("NAME", "STATE", "CPU TIME", "MEMORY", "DISK", "NETWORK", "PROCESSES", "COMMANDS")]
    for row in rows:
        usage = row["usage"]
        shown.append(
            (
                row["name"],
                row["state"],
                f"{usage['cpu']:.1f} s",
                f"{usage['memory'] / (1 << 20):.0f} MiB",
                f"{usage['disk'] / (1 << 20):.0f} MiB" if usage["disk"] else "-",
                amount(usage["received"] + usage["sent"]),
                str(usage["processes"]),
                str(row["commands"]),
            )
        )
    widths = [max(len(line[column]) for line in shown) for column in range(len(shown[0]))]
    if clear:
        click.clear()
    for line in shown:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
