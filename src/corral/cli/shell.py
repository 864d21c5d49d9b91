"""`corral shell`: look around in a kept sandbox."""

from __future__ import annotations

import os
import sys
import time

import click

from .options import agent_option, known_name

EPILOG = """\b
Examples:
  corral shell app
  corral shell herd --agent 2

\b
Commands may come through a pipe: echo 'id; pwd' | corral shell app
Exit status: the shell's, as with `corral exec`.
"""


@click.command("shell", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@agent_option
def command(name: str, agent: int) -> None:
    """Open a shell in sandbox NAME: bash where it has that, else sh."""
    began = time.monotonic()
    from ..terminals import SHELL
    from . import inside
    from .attach import Command

    asked = Command(argv=SHELL, terminal=None, stdin=True, as_json=False)
    environ = dict(os.environ)
    sys.exit(inside.run(name, asked, agent=agent, user=None, environ=environ, began=began))
