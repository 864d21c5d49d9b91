"""`corral diff`: what a sandbox under review has changed, in git's format."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ..errors import ReviewError
from . import reviewing
from .reviewing import agent_option, inside, known_review, paths_argument, say_all

if TYPE_CHECKING:
    from ..review.patch import Pair
    from ..review.showing import Shown
    from ..review.store import Review

    Entry = tuple[Pair, Iterator[bytes]]

EPILOG = """\b
Examples:
  corral diff                      the sandboxes that have changes
  corral diff app                  all changes, in a pager at a terminal
  corral diff app src/main.py      of one file, or one folder
  corral diff app --stat           how much of which file
  corral diff app > app.patch      for `git apply`, binary files included
  corral diff app .git             what it changed in the repository
  corral diff herd                 of several agents: who changed what, where two disagree
  corral diff herd --agent 2       what one of them changed

\b
At a terminal nothing in a file or a name can drive it: what cannot be printed is shown as ^[ or
<U+202E>. Redirected, contents are as they are.
"""


@click.command("diff", epilog=EPILOG)
@click.argument("name", required=False, shell_complete=known_review)
@paths_argument
@click.option("--stat", is_flag=True, help="How many lines of which file, no contents.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON array: of all changes, or of the sandboxes."
)
@agent_option
def command(
    name: str | None, paths: tuple[str, ...], stat: bool, as_json: bool, agent: int | None
) -> None:
    """Show what sandbox NAME has changed in its workspace, against what it began with.

    What lies in a git folder is shown only when it is named. Of several agents: who changed what,
    and where two disagree; with --agent what one of them changed.
    """
    from ..review.shelf import names
    from ..review.store import Review

    if name is None:
        if stat or agent is not None:
            raise click.UsageError("Say of which sandbox: corral diff lists those with changes.")
        _sandboxes(names(), as_json=as_json)
        return
    review = Review.find(name)
    chosen = inside(review, paths)
    if agent is None and len(review.meta().agents) > 1:
        _everybody(review, chosen, as_json=as_json)
        return
    agent = reviewing.whose(review, agent)
    if stat or as_json:
        _listed(review, chosen, agent, as_json=as_json)
    else:
        _patch(review, chosen, agent)


def _sandboxes(names: Iterable[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"name": name} for name in names], indent=1))
        return
    for name in names:
        click.echo(name)


def _everybody(review: Review, paths: Sequence[str], *, as_json: bool) -> None:
    from ..review.everybody import look

    found = look(review, paths)
    if as_json:
        click.echo(json.dumps(reviewing.everybody_values(found), indent=1))
        return
    for line in reviewing.everybody(review.name, found):
        click.echo(line)


def _listed(review: Review, paths: Sequence[str], agent: int, *, as_json: bool) -> None:
    from ..review import showing
    from . import terminal

    with review.comparison(agent) as (comparison, here):
        changes = showing.chosen(comparison.changes(), paths)
        shown = showing.counted(comparison, showing.judged(comparison, here, changes))
    if as_json:
        click.echo(json.dumps(reviewing.as_values(shown), indent=1))
        return
    moved = {one.pair.moved_from for one in shown}
    listed = [one for one in shown if one.change.path not in moved]
    for line in reviewing.stat(listed, terminal.size()[1]):
        click.echo(line)
    say_all(
        [
            f"dangerous: {reviewing.shown_name(one.change.path)}: {reviewing.reasons(one.dangers)}"
            for one in shown
            if one.dangers
        ]
    )


def _patch(review: Review, paths: Sequence[str], agent: int) -> None:
    from ..host.system import sound_path

    notes: dict[str, list[str]] = {}
    person = sys.stdout.isatty()
    with contextlib.closing(_entries(review, paths, agent, notes, binary=not person)) as entries:
        if person:
            os.environ.setdefault("LESS", "FRX")  # as git does
            lines = (
                line
                for pair, patch in entries
                for line in _for_a_person(notes[pair.change.path], patch)
            )
            colour = "NO_COLOR" not in os.environ
            with sound_path():  # no pager that a sandbox put on it
                click.echo_via_pager(lines, color=colour)
            return
        _write(entries)
    said = [f"{reviewing.shown_name(path)}: {note}" for path in notes for note in notes[path]]
    say_all(said)


def _entries(
    review: Review, paths: Sequence[str], agent: int, notes: dict[str, list[str]], *, binary: bool
) -> Generator[Entry]:
    """Each entry of the diff; notes get what is to be said of each path before the first one.

    A generator, so that what goes wrong with writing them is no failure to read the changes.
    """
    from ..review import showing

    with review.comparison(agent) as (comparison, here):
        changes = showing.chosen(comparison.changes(), paths)
        found = showing.judged(comparison, here, changes)
        notes |= {one.change.path: list(_notes(one)) for one in found}
        yield from showing.patches(comparison, changes, binary=binary)


def _for_a_person(notes: list[str], patch: Iterator[bytes]) -> Iterator[str]:
    for note in notes:
        yield click.style(f"! {note}", fg="red", bold=True) + "\n"
    rest, hunk = b"", False
    for piece in patch:  # a line may come in two pieces
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            # A file's own lines begin with a sign or a space: it cannot end its hunk.
            hunk = (hunk or line.startswith(b"@@")) and not line.startswith(b"diff ")
            yield reviewing.coloured(line, hunk=hunk) + "\n"
    if rest:
        yield reviewing.coloured(rest, hunk=hunk) + "\n"


def _notes(one: Shown) -> Iterator[str]:
    if one.dangers:
        yield f"dangerous: {reviewing.reasons(one.dangers)}"
    if one.standing.state == "conflict":
        yield f"conflict: {one.standing.reason}"
    if one.change.problem:
        yield f"cannot be applied: {one.change.problem}"


def _write(entries: Iterable[Entry]) -> None:
    """All of a patch to standard output. Raises ReviewError, BrokenPipeError."""
    try:
        # Not by sys.stdout, which would try again at exit to write what could not be written.
        with open(sys.stdout.fileno(), "wb", closefd=False) as output:
            for _pair, patch in entries:
                output.writelines(patch)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ReviewError(
            f"the patch cannot be written: {error.strerror or error}.",
            hint="Make room where it is written to, or write it elsewhere.",
        ) from error
