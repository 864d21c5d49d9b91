"""`corral shell`: look around in a kept sandbox."""

from __future__ import annotations

import os
import sys
import time

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral shell app

\b
Commands may come through a pipe: echo 'id; pwd' | corral shell app
Exit status: the shell's, as with `corral exec`.
"""

_SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")


@click.command("shell", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
def command(name: str) -> None:
    """Open a shell in sandbox NAME: bash where it has that, else sh."""
    began = time.monotonic()
    from . import inside
    from .attach import Command

    asked = Command(argv=_SHELL, terminal=None, stdin=True, as_json=False)
    sys.exit(inside.run(name, asked, user=None, environ=dict(os.environ), began=began))
