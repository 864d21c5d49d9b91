"""`corral agents`: how the agents of a kept sandbox are."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from .options import known_name

if TYPE_CHECKING:
    from ..keeper.messages import AgentRow

EPILOG = """\b
Examples:
  corral agents herd                state, task, processor time, memory, tokens of each
  corral agents herd --watch        every second, until Ctrl-C
  corral agents herd --json | jq '.[] | select(.state == "dead") | .reason'
"""

INTERVAL = 1.0  # seconds
_TASK, _REASON = 30, 60  # characters that are shown


@click.command("agents", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, watch: bool, as_json: bool) -> None:
    """Show how the agents of the sandbox NAME are.

    STATE is starting, idle, working, stuck (it gives no sign of life) or dead, with the reason.
    MEMORY holds what an agent keeps in its home and /tmp, too. TOKENS and COST are of all requests
    to models, as the gateway counts them. OUTPUT tells how long ago a command last wrote something.
    """
    from . import keeping

    while True:
        rows = keeping.talk(name, lambda kept: kept.agent_rows())
        if as_json:
            shown = [_plain(row) for row in rows]
            click.echo(json.dumps(shown, indent=None if watch else 2))
        else:
            if watch:
                click.clear()
            for line in _table(rows):
                click.echo(line)
        if not watch:
            return
        time.sleep(INTERVAL)


def _plain(row: AgentRow) -> dict[str, Any]:
    """A row as JSON: the status at the top."""
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(row)
    status: dict[str, Any] = found.pop("status")
    return {**status, **found}


def _table(rows: tuple[AgentRow, ...]) -> list[str]:
    shown = [("AGENT", "STATE", "TASK", "CPU", "MEMORY", "PROCESSES", "TOKENS", "COST", "OUTPUT")]
    notes = []
    for row in rows:
        status, spent = row.status, row.spent
        tokens = spent.input + spent.output + spent.cache_read + spent.cache_write
        shown.append(
            (
                str(status.number),
                status.state.value,
                _one_line(row.task or "-", _TASK),
                f"{status.cpu:.1f} s" if status.cpu is not None else "-",
                f"{status.memory / (1 << 20):.0f} MiB" if status.memory is not None else "-",
                str(status.pids) if status.pids is not None else "-",
                str(tokens) if spent.requests else "-",
                f"{spent.usd:.2f} USD" if spent.requests else "-",
                _ago(status.quiet),
            )
        )
        notes += _notes(row)
    widths = [max(len(line[column]) for line in shown) for column in range(len(shown[0]))]
    lines = []
    for line in shown:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines + notes


def _notes(row: AgentRow) -> list[str]:
    """What does not fit in a column."""
    status = row.status
    found = [_one_line(status.reason, _REASON)] if status.reason else []
    if status.oom_kills:
        found.append(f"{status.oom_kills} processes ended for lack of memory")
    if status.restarts:
        found.append(f"its jail was made again {_times(status.restarts)}")
    return [f"agent {status.number}: {'; '.join(found)}"] if found else []


def _one_line(text: str, most: int) -> str:
    from ..channel.failures import printable

    return printable(text.replace("\n", " "))[:most]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit} ago"
    return f"{int(seconds)}s ago"
