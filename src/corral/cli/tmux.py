"""`corral tmux`: all agents of a sandbox side by side, with its log and its console."""

from __future__ import annotations

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral tmux herd               a pane for each agent; Ctrl-b d leaves it
  corral tmux herd --detach      set it up, and do not look at it
  corral tmux herd --capture 2   print what the pane of agent 2 shows
  corral tmux herd --kill        close it; the agents go on

\b
Needs tmux, and the package libtmux, which `corral doctor` tells how to install. It runs beside
your own tmux, with a socket (tmux -L corral-NAME) and a configuration of its own.
"""


@click.command("tmux", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.option("-d", "--detach", is_flag=True, help="Set it up, and do not attach.")
@click.option("--capture", type=click.IntRange(min=1), metavar="N", help="Print agent N's screen.")
@click.option("--kill", is_flag=True, help="Close it; agents and their sessions go on.")
def command(name: str, detach: bool, capture: int | None, kill: bool) -> None:
    """Open a tmux session for sandbox NAME: a pane for each agent, its log, its console."""
    from ..terminals import MAIN
    from . import keeping, panes

    if sum((detach, capture is not None, kill)) > 1:
        raise click.UsageError("Only one of --detach, --capture, --kill at once.")
    if capture is not None:
        screen = (capture, MAIN)
        click.echo(keeping.talk(name, lambda kept: kept.capture_session(screen)), nl=False)
    elif kill:
        if not panes.kill(name):
            keeping.say(f"there is no tmux session for {name}.")
    else:
        panes.open_all(name)
        if not detach:
            panes.attach(name)
