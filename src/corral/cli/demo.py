"""`corral demo`: an agent works in a machine, tries to break out, and what it could is told."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..demo import Judged, Outcome, Step
    from .progress import Progress

EPILOG = """\b
Examples:
  corral demo                     a small agent of corral's own; no account is needed
  corral demo --agent claude      Claude Code itself, its model still scripted
  corral demo --keep              keep the project, the transcript and the logs
  corral demo --json | jq '.attempts[] | {name, verdict}'

\b
Exit status: 0 when the work was done and every attempt to break out was made and refused, else 1.
"""
COLOURS = {"refused": "green", "untried": "yellow", "through": "red"}
_LINES = 3  # of an attempt that went as it should
_LOG = 12  # of the network's log


@click.command("demo", epilog=EPILOG)
@click.option(
    "--agent", type=click.Choice(["claude"]), help="Claude Code in place of the small agent."
)
@click.option("--keep", is_flag=True, help="Keep the folder with all that was made.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(agent: str | None, keep: bool, as_json: bool) -> None:
    """Show what corral does: an agent in a machine works, and tries to break out.

    In a temporary folder a small project has a failing test. An agent in a new virtual machine
    mends it, and then looks for keys, files of this machine, other hosts, ways to leave something
    behind. Its model is scripted: no account is needed, and nothing is sent to any other machine.
    What it could and could not do is computed from what happened.
    """
    with _folder(keep) as base:
        outcome = _carried_out(base, agent, quiet=as_json)
        if as_json:
            _print_json(outcome, base if keep else None)
        else:
            _print(outcome, base if keep else None)
    sys.exit(0 if outcome.held else 1)


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="corral-demo-")).resolve()
    try:
        yield base
    finally:
        if not keep:
            shutil.rmtree(base, ignore_errors=True)


def _carried_out(base: Path, agent: str | None, *, quiet: bool) -> Outcome:
    import asyncio

    from ..demo import Wanted, demonstrate
    from ..sandbox import host_facts
    from .progress import Progress

    progress = Progress()
    try:
        wanted = Wanted(
            base=base,
            agent=agent,
            facts=host_facts(progress, assume_yes=False),
            environ=dict(os.environ),
            report=progress,
            told=(lambda _step: None) if quiet else _Told(progress),
        )
        return asyncio.run(demonstrate(wanted))
    finally:
        progress.stop()


class _Told:
    """Each step as it is made."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begun = False

    def __call__(self, step: Step) -> None:
        if not self._begun:
            self._progress.stop()
            self._begun = True
            click.secho("What the agent is told by its model, and carries out:", bold=True)
        first, *more = step.command.splitlines()
        click.echo(f"  {step.says}")
        click.secho(f"    $ {first[:90]}{' ...' if more or len(first) > 90 else ''}", dim=True)


def _print(outcome: Outcome, kept: Path | None) -> None:
    click.echo()
    click.secho("What it did", bold=True)
    work = outcome.work
    click.echo(f"  the project's test: {work.before} before, {work.after} after")
    for line in work.diff.splitlines()[2:]:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        click.secho(f"    {line}", fg=colour)
    asked = [each for each in outcome.exchanges if each.get("kind") == "request"]
    click.echo(
        f"  its model was asked {len(asked)} times, through the gateway, which has the key; "
        "the machine has a placeholder"
    )
    if outcome.status:
        click.secho(f"  the agent's program ended with status {outcome.status}", fg="red")
        click.echo(f"    {_last(outcome.complaint)}")
    click.echo()
    click.secho("What it tried, to get out", bold=True)
    for attempt in outcome.attempts:
        _print_attempt(attempt)
    _print_network(outcome)
    _print_transcript(outcome)
    click.echo()
    click.secho(_verdict(outcome), bold=True, fg="green" if outcome.held else "red")
    if kept is not None:
        click.echo(f"Kept: {kept}. To see it all:")
        for verb in ("transcript", "net log"):
            click.echo(f"  CORRAL_STATE_DIR={kept}/state corral {verb} demo")


def _print_attempt(attempt: Judged) -> None:
    verdict = click.style(f"{attempt.verdict:<8}", fg=COLOURS[attempt.verdict])
    click.echo(f"  {verdict} {attempt.what} ({attempt.tries} tries)")
    seen = attempt.seen if attempt.verdict == "through" else attempt.seen[:_LINES]
    for line in (*attempt.host, *seen):
        click.secho(f"             {line[:100]}", dim=True)


def _print_network(outcome: Outcome) -> None:
    from .connections import row

    refused = [each for each in outcome.connections if each.get("verdict") == "denied"]
    others = [each for each in outcome.connections if each.get("verdict") == "allowed"]
    click.echo()
    click.secho("The network's log", bold=True)
    for event in refused[:_LOG]:
        click.echo(f"  {row(event)}")
    if len(refused) > _LOG:
        click.echo(f"  ... and {len(refused) - _LOG} more that were refused")
    for name in sorted({str(each.get("name")) for each in others}):
        count = sum(each.get("name") == name for each in others)
        click.echo(f"  allowed: {_plain(name)}, {count} times")
    click.echo(f"  connections that reached this machine's own port: {outcome.dialled or 'none'}")


def _print_transcript(outcome: Outcome) -> None:
    """A line for each answer of the model, from what the gateway wrote down."""
    from .conversation import ending

    answers = [each for each in outcome.exchanges if each.get("kind") == "response"]
    click.echo()
    click.secho("The transcript, as the gateway wrote it", bold=True)
    for record in answers[:_LOG]:
        body = record.get("body")
        content = body.get("content") if isinstance(body, dict) else None
        said = [each for each in content if isinstance(each, dict)] if content else []
        words = [str(each["text"]) for each in said if "text" in each]
        calls = [f"calls {each['name']}" for each in said if "name" in each]
        click.echo(f"  {_plain(' '.join([*words, *calls]), 70)}")
        click.secho(f"    {ending(record)}", dim=True)


def _verdict(outcome: Outcome) -> str:
    tries = sum(attempt.tries for attempt in outcome.attempts)
    if outcome.held:
        return (
            f"The work is done, and of {tries} tries to break out none got through "
            f"({outcome.seconds:.0f} s, the machine's start included)."
        )
    if any(attempt.verdict == "through" for attempt in outcome.attempts) or outcome.dialled:
        return "Something got through: do not trust this host's sandboxes, and see corral verify."
    return "It was not shown: not all was done, or tried."


def _last(text: str) -> str:
    return _plain((text.strip().splitlines() or ["it said nothing"])[-1], 300)


def _plain(text: str, limit: int = 200) -> str:
    from ..spec.text import printable

    return printable(text, limit)


def _print_json(outcome: Outcome, kept: Path | None) -> None:
    import msgspec

    said = {
        **msgspec.to_builtins(outcome),
        "held": outcome.held,
        "folder": str(kept) if kept is not None else None,
    }
    click.echo(msgspec.json.format(msgspec.json.encode(said), indent=2))
