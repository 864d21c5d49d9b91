"""`corral discard`: throw changes of a sandbox under review away."""

from __future__ import annotations

import sys

import click

from . import reviewing
from .reviewing import agent_option, inside, name_argument, paths_argument

EPILOG = """\b
Examples:
  corral discard app             all changes, after a yes
  corral discard app src -y      those in one folder, without a question
  corral discard herd --agent 2  all of one of several agents

\b
Your folder stays as it is; the sandbox's snapshot goes, or gets back what these paths held.
"""


@click.command("discard", epilog=EPILOG)
@name_argument
@paths_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@agent_option
def command(name: str, paths: tuple[str, ...], yes: bool, agent: int | None) -> None:
    """Throw away what sandbox NAME has changed, or some paths of it."""
    from ..errors import ReviewError, UsageError
    from ..review.store import Review

    review = Review.find(name)
    chosen = inside(review, paths) if paths else []
    named = agent is not None
    if chosen:
        agent = reviewing.whose(review, agent)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("changes are thrown away only after a yes.", hint="Add --yes.")
        try:
            asked = review.meta().agents if agent is None else (agent,)
            count = sum(len(review.changes(chosen, number)) for number in asked)
        except ReviewError:  # damaged, or of a folder that is gone: all the more
            count = 0
        what = f"{count:,} change{'' if count == 1 else 's'}" if count else "what is there"
        who = f"agent {agent} of {name}" if named else name
        click.confirm(f"Throw away {what} of {who}?", abort=True, err=True)
    gone = review.discard(chosen, agent)
    for change in gone:
        click.echo(reviewing.shown_name(change.path))
    if not paths:
        click.echo(name)
