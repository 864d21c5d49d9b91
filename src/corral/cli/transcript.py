"""`corral transcript`: what agents did, and what they and their models said, in order."""

from __future__ import annotations

import json

import click

MODEL = ("request", "response", "refused")  # the gateway's
KINDS = ("model", "command", "output", "agent", "task", "files")
_OF = {"started": "command", "ended": "command", **dict.fromkeys(MODEL, "model")}

EPILOG = """\b
Examples:
  corral transcript app                 all that is kept, readable
  corral transcript app -f --agent 2    and what comes, of one agent
  corral transcript app --kind model    only what was asked of models
  corral transcript app --kind output --kind files
  corral transcript app --json | jq 'select(.kind == "response") | .cost_usd'
"""


@click.command("transcript", epilog=EPILOG)
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--agent", type=int, metavar="N", help="Only of this agent.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Only of this kind. Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="The records as they are, one a line.")
def command(
    name: str, follow: bool, agent: int | None, kinds: tuple[str, ...], as_json: bool
) -> None:
    """Show what agents of the sandboxes called NAME did, and their requests to models.

    In the order of time: commands and what their terminals showed, tasks and the files that they
    changed, states, and what models were asked and answered.
    """
    from ..errors import UnknownSandboxError
    from ..paths import state_dir
    from ..spec.text import printable
    from . import doings
    from .conversation import Conversation
    from .merged import Merged

    merged = Merged(state_dir() / "logs" / name, name)
    if "/" in name or name.startswith(".") or merged.is_empty:
        raise UnknownSandboxError(
            f"no sandbox called “{printable(name, 60)}” has asked a model or run a command.",
            hint="The name is that of --name, else the folder's. `corral ps -a` lists those "
            "that are kept.",
        )
    conversation = Conversation()
    for record in merged.records(follow=follow):
        kind = str(record.get("kind"))
        if agent not in (None, record.get("agent")):
            continue
        if kinds and _OF.get(kind, kind) not in kinds:
            continue
        if as_json:
            click.echo(json.dumps(record))  # in ASCII: a terminal may be reading
            continue
        for shown in conversation.lines(record) if kind in MODEL else doings.lines(record):
            click.echo(shown)
