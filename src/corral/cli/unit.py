"""`corral unit`: a kept sandbox as a systemd unit."""

from __future__ import annotations

import os
import sys

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral unit app             put it into ~/.config/systemd/user/corral@app.service
  corral unit app --system    put it into /etc/systemd/system/corral@app.service

The first lines of the unit say how it is switched on.
"""

# What decides where corral looks for its files.
_VARIABLES = (
    *("CORRAL_STATE_DIR", "CORRAL_CACHE_DIR", "CORRAL_CONFIG_DIR"),
    *("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"),
)


@click.command("unit", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
@click.option("--system", is_flag=True, help="A unit of the system, run as you, not of your own.")
def command(name: str, system: bool) -> None:
    """Print a systemd unit that starts, stops and restarts sandbox NAME.

    It starts what `corral up` was asked for, with its limits as the unit's.
    """
    from ..host.system import System
    from ..host.users import find_user
    from ..keeper import unit
    from ..keeper.store import Record

    spec = Record.find(name).request().spec
    user = find_user(System(), None)
    runtime = f"/run/user/{user.uid}"
    host = unit.Host(
        user=user.name,
        uid=user.uid,
        program=(sys.executable, "-P", "-m", "corral"),
        environ={name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
        # Else run folders are in /tmp, for the unit as for commands that look for it.
        runtime=runtime if os.environ.get("XDG_RUNTIME_DIR") == runtime else "",
    )
    click.echo(unit.render(name, spec, host, "system" if system else "user"), nl=False)
