"""`corral task`: give agents of a kept sandbox work, and ask what came of it."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .options import known_name
from .words import split

EPILOG = """\b
Examples:
  corral task app '{"action": "run", "argv": ["pytest", "-q"]}'
  corral task app --run -- pytest -q            the same
  corral task app --code python script.py --timeout 30s
  corral task app --prompt "fix the failing test" --agent 2
  corral task app test -k parser                the project's own: [actions.test]
  corral task app - < tasks.jsonl               one a line; results come as JSON lines
  corral task list app
  corral task cancel app 7

\b
Exit status: the command's; 124 when it ran too long; 130 when it was cancelled; 125 when it could
not be started or is lost; with -, 0 when every task is done, else 1.
"""
SEND_EPILOG = """\b
Examples:
  corral task send app --run -- make
"""
RESULT_EPILOG = """\b
Examples:
  corral task result app 7          waits until it has ended
  corral task result app 7 --json
"""


class _Task(click.Group):
    """`corral task NAME ...` is `corral task send NAME ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["send", *args]
        return super().parse_args(ctx, args)


class _Send(click.Command):
    """What follows an action's name, or the command with --run, is its own.

    A file, JSON or - has no words of its own, so options may follow it.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options, name, rest = split(self, args)
        if rest and _runs(options, rest[0]):
            if "--run" not in options and rest[1:2] == ["--"]:
                del rest[1]  # as npm and cargo have it; an action needs none
            args = [*options, "--", *name, *rest]
        return super().parse_args(ctx, args)


def _runs(options: list[str], first: str) -> bool:
    """Whether the first word of a task is an action's name or a command."""
    if any(each.partition("=")[0] in ("--code", "--prompt") for each in options):
        return False
    return first != "-" and not first.lstrip().startswith("{")


@click.group("task", cls=_Task, epilog=EPILOG)
def command() -> None:
    """Give an agent of sandbox NAME a task: corral task NAME [OPTIONS] TASK.

    TASK is a JSON object, the name of one of the project's actions with its arguments, or - for
    JSON lines from standard input. What follows an action's name, or the command with --run, is its
    own, also options: those of corral stand before it. See docs/tasks.md.
    """


@command.command("send", cls=_Send, epilog=SEND_EPILOG)
@click.argument("name", shell_complete=known_name)
@click.argument("words", nargs=-1, metavar="[TASK | - | CMD [ARG]... | FILE]")
@click.option("--agent", type=int, metavar="N", help="Which agent does it; default: 1.")
@click.option("--id", "number", metavar="ID", help="What to call it; default: a number.")
@click.option("--run", is_flag=True, help="The words are a command, run without a shell.")
@click.option(
    "--code", "language", metavar="LANGUAGE", help="The word is a file of code, or -: python, bash."
)
@click.option("--prompt", metavar="TEXT", help="Have an agent program work on this.")
@click.option("--recipe", metavar="NAME", help="Which program, with --prompt: claude, say.")
@click.option("-w", "--workdir", metavar="DIR", help="Where it starts, with --run and --code.")
@click.option(
    "-e",
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set a variable, with --run and --code. Repeatable.",
)
@click.option("--timeout", metavar="TIME", help="End it after this time: 30s, 5m.")
@click.option(
    "-d", "--detach", is_flag=True, help="Print its id and return; it is done all the same."
)
@click.option("--events", is_flag=True, help="Print all messages, as JSON lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def send(name: str, words: tuple[str, ...], **options: Any) -> None:
    """Give an agent of sandbox NAME a task, and wait for its result.

    What follows an action's name, or the command with --run, is its own, also options.

    Interrupted, the task goes on: `corral task result` has it later.
    """
    from . import tasking

    asked = tasking.Asked(words=words, environ=dict(os.environ), **options)
    if words == ("-",) and asked.language is None:
        sys.exit(tasking.lines(name, asked))
    sys.exit(tasking.one(name, asked))


@command.command("list", epilog="\b\nExamples:\n  corral task list app")
@click.argument("name", shell_complete=known_name)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def listed(name: str, as_json: bool) -> None:
    """List the tasks of sandbox NAME: those that wait, run, and ended last."""
    from . import tasking

    tasking.listed(name, as_json=as_json)


@command.command("result", epilog=RESULT_EPILOG)
@click.argument("name", shell_complete=known_name)
@click.argument("number", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def result(name: str, number: str, as_json: bool) -> None:
    """Show how task ID of sandbox NAME ended, once it has."""
    from . import tasking

    sys.exit(tasking.result(name, number, as_json=as_json))


@command.command("cancel", epilog="\b\nExamples:\n  corral task cancel app 7")
@click.argument("name", shell_complete=known_name)
@click.argument("number", metavar="ID")
def cancel(name: str, number: str) -> None:
    """End task ID of sandbox NAME, with all that it has started."""
    from . import keeping

    keeping.talk(name, lambda kept: kept.tasks.cancel(number))


@command.command("schema", epilog="\b\nExamples:\n  corral task schema")
def schema() -> None:
    """Print the JSON Schema of tasks and messages."""
    import json

    from ..tasks.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
