"""`corral inspect`: all that is known of a kept sandbox."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import known_name

EPILOG = """\b
Examples:
  corral inspect app
"""


@click.command("inspect", epilog=EPILOG)
@click.argument("name", shell_complete=known_name)
def command(name: str) -> None:
    """Print what was asked for, what became of it and what runs in sandbox NAME, as JSON."""
    import msgspec

    from ..errors import CorralError
    from ..keeper import checkpoints
    from ..keeper.store import Record

    record = Record.find(name)
    status, request = record.status(), record.request()
    spec: dict[str, Any] = msgspec.to_builtins(request.spec)
    spec["run"]["env"] = [_shown(*pair) for pair in request.spec.run.env]
    found: dict[str, Any] = {
        "name": name,
        "folder": str(record.folder),
        "created": request.created,
        "status": msgspec.to_builtins(status),
        "spec": spec,
        "checkpoints": msgspec.to_builtins(checkpoints.listed(record)),
        "live": None,
    }
    if record.is_kept():
        from . import keeping

        try:
            found["live"] = keeping.talk(name, lambda kept: kept.inspect())
        except CorralError as error:  # it is just starting, or has just ended
            found["live"] = {"error": error.message}
    click.echo(json.dumps(found, indent=2))


def _shown(name: str, value: str) -> list[str]:
    """A variable, without the value of what looks like a credential."""
    from ..spec.credentials import holds_credential

    return [name, "(hidden)" if holds_credential(name, value) else value]
