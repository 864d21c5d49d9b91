"""`corral transcript`: what agents said to models, and models to them."""

from __future__ import annotations

import json

import click

EPILOG = """\b
Examples:
  corral transcript app                 all that is kept, readable
  corral transcript app -f --agent 2    and what comes, of one agent
  corral transcript app --json | jq 'select(.kind == "response") | .cost_usd'
"""


@click.command("transcript", epilog=EPILOG)
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--agent", type=int, metavar="N", help="Only of this agent.")
@click.option("--json", "as_json", is_flag=True, help="The records as they are, one a line.")
def command(name: str, follow: bool, agent: int | None, as_json: bool) -> None:
    """Show the requests to models of the sandboxes called NAME, and their answers."""
    from ..errors import UnknownSandboxError
    from ..gateway.config import TRANSCRIPT
    from ..journal import tail
    from ..sandbox.gateway import existing_folder
    from ..spec.text import printable
    from .conversation import Conversation

    folder = existing_folder(name)
    if folder is None:
        raise UnknownSandboxError(
            f"no sandbox called “{printable(name, 60)}” has asked a model.",
            hint="A gateway (--gateway anthropic) writes the transcript; `corral ps` lists names.",
        )
    conversation = Conversation()
    for lines in tail(folder / TRANSCRIPT, follow=follow):
        for line in lines.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if not isinstance(record, dict) or agent not in (None, record.get("agent")):
                continue
            if as_json:
                click.echo(json.dumps(record))  # in ASCII: a terminal may be reading
                continue
            for shown in conversation.lines(record):
                click.echo(shown)
