"""`corral doctor`: what this host gives, what is missing, how to get it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..errors import CorralError

if TYPE_CHECKING:
    from ..events import Event
    from ..host.checks import Check

MARKS = {"ok": ("ok", "green"), "warn": ("warning", "yellow"), "fail": ("missing", "red")}


EPILOG = """\b
Examples:
  corral doctor          what is there, what is missing, how to get it
  corral doctor --fix    mend what can be mended, after a yes
  corral doctor --json   the same for scripts
"""


@click.command("doctor", epilog=EPILOG)
@click.option("--fix", is_flag=True, help="Mend what can be mended: packages, AppArmor profile.")
@click.option("--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON.")
def command(fix: bool, yes: bool, as_json: bool) -> None:
    """Show what this host gives, what is missing, and how to get it.

    The exit status is 1 when something that corral needs is missing.
    """
    from ..host import doctor

    facts, found = doctor.examine()
    problem: CorralError | None = None
    if fix:
        try:
            if doctor.apply_fixes(facts, found, assume_yes=yes, report=_progress):
                _facts, found = doctor.examine()
        except CorralError as error:
            problem = error
        finally:
            if sys.stderr.isatty():
                click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        _print_json(found, problem)
    else:
        _print_table(found)
    if problem is not None:
        if not as_json:
            raise problem
        sys.exit(1)
    sys.exit(1 if doctor.failed(found) else 0)


def _progress(event: Event) -> None:
    from ..events import Phase

    if isinstance(event, Phase) and sys.stderr.isatty():
        click.echo(f"\r\x1b[K{event.message}", nl=False, err=True)
    elif isinstance(event, Phase) and "%" not in event.message:
        click.echo(event.message, err=True)


def _print_json(found: list[Check], problem: CorralError | None) -> None:
    import msgspec

    answer = {
        "ok": all(check.status != "fail" for check in found),
        "checks": found,
        "error": None if problem is None else {"message": problem.message, "hint": problem.hint},
    }
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))


def _print_table(found: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found:
        word, colour = MARKS[check.status]
        name = Text(check.name, style="bold")
        table.add_row(Text(word, style=colour), name, Text(check.finding))
    Console(highlight=False).print(table)
    hints = [check for check in found if check.hint and check.status != "ok"]
    for check in hints:  # not in the table, whose wrapping would spoil a command for copying
        click.echo(f"\n{check.name}: {check.hint}")
    if any(check.fix for check in found):
        click.echo("\n`corral doctor --fix` can mend some of this.")
