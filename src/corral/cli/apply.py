"""`corral apply`: changes of a sandbox under review, onto the user's folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from . import reviewing
from .reviewing import agent_option, inside, name_argument, paths_argument, say, say_all

if TYPE_CHECKING:
    from ..review.applying import Accept, Outcome
    from ..review.showing import Shown
    from ..review.store import Review

EPILOG = """\b
Examples:
  corral apply app                     everything that is neither dangerous nor in conflict
  corral apply app src README.md       these only
  corral apply app .vscode --yes-dangerous
  corral apply app --as fix            as a commit on a new branch; your folder stays as it is
  corral apply app --undo              take back what was applied last
  corral apply herd --agent 2          what one of several agents changed

\b
Dangerous changes - what git, an editor, an agent, a build service or an installer runs by itself,
programs, links that lead out, names that hide - are asked for one by one at a terminal, and
otherwise left. What you have changed yourself meanwhile is never overwritten.
Exit status: 0 when everything chosen was applied, 1 when some was left.
"""


@click.command("apply", epilog=EPILOG)
@name_argument
@paths_argument
@click.option("--yes-dangerous", is_flag=True, help="Apply dangerous changes among these, too.")
@click.option("--undo", is_flag=True, help="Take back what was applied last.")
@click.option(
    "--as", "--as-branch", "branch", metavar="BRANCH", help="Make a commit on a new branch."
)
@click.option("-m", "--message", metavar="TEXT", help="The message of that commit.")
@agent_option
def command(
    name: str,
    paths: tuple[str, ...],
    yes_dangerous: bool,
    undo: bool,
    branch: str | None,
    message: str | None,
    agent: int | None,
) -> None:
    """Apply what sandbox NAME has changed, or some paths of it, to your folder."""
    from ..review.store import Review

    if undo and (paths or branch or yes_dangerous):
        raise click.UsageError("--undo takes back all that was applied last, and nothing else.")
    if message is not None and branch is None:
        raise click.UsageError("--message is for --as.")
    review = Review.find(name)
    _check_still(review)
    chosen = inside(review, paths)
    several, agent = len(review.meta().agents) > 1, reviewing.whose(review, agent)
    if several and not undo:
        _tell_disagreements(review, agent, chosen)
    if undo:
        outcome = review.undo(agent)
        _told(outcome, "taken back", name)
    elif branch is not None:
        commit, outcome = review.branch(
            chosen, _accepting(yes_dangerous), branch, message or f"Changes of {name}", agent
        )
        if commit:
            click.echo(f"{branch} is {commit[:12]}: git log -p {branch}")
        _told(outcome, f"committed on {branch}", name)
    else:
        outcome = review.apply(chosen, _accepting(yes_dangerous), agent)
        _told(outcome, "applied", name)
    sys.exit(0 if outcome.whole else 1)


def _tell_disagreements(review: Review, agent: int, paths: list[str]) -> None:
    """Before anything is applied: who else has made something other of the same paths."""
    from ..review.everybody import look

    lines = []
    for one in look(review).disagreements(agent, paths):
        others = " and ".join(str(number) for number in one.agents if number != agent)
        what = f"agent {others} left something else" if others else "another agent's is in the way"
        lines.append(f"disagreement: {reviewing.shown_name(one.path)}: {what}")
    say_all(lines)


def _check_still(review: Review) -> None:
    """What is applied must be what was looked at: nobody may change it meanwhile."""
    from ..errors import SandboxStateError
    from ..keeper.store import Record

    if not review.is_running():
        return
    name = review.name
    record = Record(name)
    if record.exists() and record.status().state == "paused":
        return
    raise SandboxStateError(
        f"the sandbox {name} runs, and may change what you have looked at.",
        hint=f"Wait until it has ended, or: corral pause {name} (or corral stop {name}); then look "
        f"again: corral diff {name}",
    )


def _accepting(all_of_them: bool) -> Accept:
    def accept(one: Shown) -> bool:
        if all_of_them:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        name, why = reviewing.shown_name(one.change.path), reviewing.reasons(one.dangers)
        return click.confirm(f"{name}: {why}. Apply it?", default=False, err=True)

    return accept


def _told(outcome: Outcome, done: str, name: str) -> None:
    count = len(outcome.applied)
    click.echo(f"{count:,} change{'' if count == 1 else 's'} {done}.")
    say_all(
        [
            f"{'left' if one.change.problem else 'conflict'}: "
            f"{reviewing.shown_name(one.change.path)}: {one.standing.reason}"
            for one in outcome.conflicts
        ]
    )
    say_all(
        [
            f"dangerous, and left: {reviewing.shown_name(one.change.path)}: "
            f"{reviewing.reasons(one.dangers)}"
            for one in outcome.refused
        ]
    )
    if outcome.refused:
        say(f"apply these once you have read them: corral apply {name} PATH... --yes-dangerous")
    if outcome.conflicts:
        say(
            "what is in conflict stays as you have it; take over by hand what you want, then: "
            f"corral discard {name} PATH..."
        )
    for path in outcome.kept:
        say(f"a file of yours that was saved meanwhile is at {reviewing.shown_name(path)}")
