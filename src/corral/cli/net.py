"""`corral net log|check|learn`: what a sandbox reached, may reach, and needs."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import click

from .options import current_folder, sandbox_options, stream_options, wanted

EPILOG = """\b
Examples:
  corral net log app -f                    connections as they are made and refused
  corral net log app --denied --json       for scripts
  corral net check pypi.org                what this folder's configuration says to it
  corral net learn -- npm install          which hosts does it need?
"""
LEARN_EPILOG = """\b
Examples:
  corral net learn -- npm install
  corral net learn --write -- npm test     and write the list into corral.toml
"""


def _logged(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    from .connections import logged_names

    return [name for name in logged_names() if name.startswith(begun)]


@click.group("net", epilog=EPILOG)
def command() -> None:
    """Show what a sandbox reached on the network, may reach, and needs."""


@command.command("log")
@click.argument("name", shell_complete=_logged)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, as they are kept.")
@click.option("--agent", type=int, metavar="N", help="Only those of agent N.")
@click.option("--denied", is_flag=True, help="Only those that were refused or failed.")
def log(name: str, follow: bool, as_json: bool, agent: int | None, denied: bool) -> None:
    """Show every connection of the sandboxes called NAME: allowed, denied, failed, and why."""
    from . import connections

    def wanted(event: dict[str, Any]) -> bool:
        return (agent is None or event.get("agent") == agent) and (
            not denied or event.get("verdict") != "allowed"
        )

    if not as_json:
        click.echo(connections.HEADER)
    for event in connections.logged(name, follow=follow):
        if wanted(event):
            text = json.dumps(event) if as_json else connections.row(event)
            if text:
                click.echo(text)
                sys.stdout.flush()


@command.command("check")
@click.argument("target", metavar="HOST[:PORT]")
@sandbox_options
def check(target: str, **parameters: Any) -> None:
    """Say what the configuration of this folder, with these options, says to HOST.

    Nothing is looked up and nothing is connected to. The exit status is 0 when it is allowed, 1
    when it is not.
    """
    from ..errors import UsageError
    from ..policy import BadName
    from .connections import explain
    from .progress import Progress
    from .session import wanted_spec

    choice, progress = wanted(parameters), Progress()
    try:
        spec = wanted_spec(choice, current_folder(), dict(os.environ), progress)
    finally:
        progress.stop()
    try:
        allowed, said = explain(spec.network, target)
    except BadName as error:
        raise UsageError(str(error)) from error
    if choice.as_json:
        click.echo(json.dumps({"host": target, "allowed": allowed, "reason": said}))
    else:
        click.echo(f"{'allowed' if allowed else 'denied'}: {said}")
    sys.exit(0 if allowed else 1)


@command.command("learn", context_settings={"allow_interspersed_args": False}, epilog=LEARN_EPILOG)
@click.argument("cmd", nargs=-1, required=True, metavar="CMD [ARG]...")
@stream_options
@click.option("--write", is_flag=True, help="Write the list into this folder's corral.toml.")
@sandbox_options
def learn(
    cmd: tuple[str, ...], terminal: bool | None, stdin: bool, write: bool, **parameters: Any
) -> None:
    """Run CMD with the public internet allowed, and propose the smallest allow list.

    CMD can send what it finds in the sandbox anywhere: run only what you trust that far. Private
    addresses stay refused. With --json the proposal is JSON, and CMD's output goes as it is.
    """
    from . import learning, session

    as_json = bool(parameters.pop("as_json"))
    choice = learning.widened(wanted({**parameters, "as_json": False}))
    began = time.time()
    click.echo(learning.WARNING, err=True)
    request = session.Request(
        argv=cmd, wanted=choice, terminal=terminal, stdin=stdin, began=time.monotonic()
    )
    folder = current_folder()
    status = session.run(request, folder, dict(os.environ))
    learning.show(choice, folder, began, as_json=as_json, write=write)
    sys.exit(status)
