"""`corral ps`: the kept sandboxes."""

from __future__ import annotations

import json
import time

import click

from ..spec.text import harmless

EPILOG = """\b
Examples:
  corral ps              those that run
  corral ps -a           all, and why one failed
  corral ps -a --json    for scripts
"""


@click.command("ps", epilog=EPILOG)
@click.option("-a", "--all", "everyone", is_flag=True, help="Those that do not run, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(everyone: bool, as_json: bool) -> None:
    """List kept sandboxes: name, state, since when, folder."""
    from ..errors import CorralError
    from ..keeper.model import ALIVE
    from ..keeper.store import Record, names

    rows: list[dict[str, object]] = []
    for name in names():
        record = Record(name)
        try:
            status, request = record.status(), record.request()
        except CorralError as error:
            rows.append({"name": name, "state": "unreadable", "problem": error.message})
            continue
        if everyone or status.state in ALIVE:
            rows.append(
                {
                    "name": name,
                    "state": status.state,
                    "since": round(status.since, 3),
                    "workspace": request.spec.workspace.on_host,
                    "problem": status.problem.message if status.problem else None,
                }
            )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print(rows)


def _print(rows: list[dict[str, object]]) -> None:
    shown = [("NAME", "STATE", "SINCE", "WORKSPACE")]
    for row in rows:
        since = row.get("since")
        moment = _ago(time.time() - float(str(since))) if since else ""
        shown.append((str(row["name"]), str(row["state"]), moment, str(row.get("workspace", ""))))
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    for line in shown:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        click.echo(harmless("  ".join([*cells, line[3]]).rstrip()))
    for row in rows:
        if row.get("problem"):
            click.echo(harmless(f"{row['name']}: {row['problem']}"), err=True)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit} ago"
    return f"{max(0, int(seconds))}s ago"
