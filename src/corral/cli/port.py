"""`corral port`: ports of this machine that lead into a kept sandbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .options import known_name

if TYPE_CHECKING:
    from ..policy import Publish

EPILOG = """\b
Examples:
  corral port add app 8080           127.0.0.1:8080 leads to port 8080 of its loopback
  corral port add app 8080:80        to port 80
  corral port add app 0:3000         any that is free; it is printed
  corral port add app 0.0.0.0:8080:80    from other machines, too
  corral port list app
  corral port remove app 8080
"""


@click.group("port", epilog=EPILOG)
def command() -> None:
    """Publish ports of a kept sandbox on this machine.

    A port leads to the loopback of agent 1, until it is removed or the sandbox stops. Those given
    to `corral up -p` come again with every start.
    """


@command.command("add")
@click.argument("name", shell_complete=known_name)
@click.argument("ports", nargs=-1, required=True, metavar="[HOST:]PORT[:GUEST]...")
def add(name: str, ports: tuple[str, ...]) -> None:
    """Publish ports of sandbox NAME; print where they are."""
    from ..sandbox.ports import shown
    from . import keeping

    wanted = [_publish(text) for text in ports]
    for each in wanted:
        port = keeping.talk(name, lambda kept: kept.publish(each))  # noqa: B023 - called at once
        click.echo(shown(port))


@command.command("list")
@click.argument("name", shell_complete=known_name)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the ports of sandbox NAME that are published."""
    import msgspec

    from ..sandbox.ports import shown
    from . import keeping

    ports = keeping.talk(name, lambda kept: kept.published())
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(ports), indent=2))
        return
    rows = [["HERE", "SANDBOX", "CONNECTIONS", "RECEIVED", "SENT"]]
    for port in ports:
        counts = (port.guest_port, port.connections, port.received, port.sent)
        rows.append([shown(port), *map(str, counts)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


@command.command("remove")
@click.argument("name", shell_complete=known_name)
@click.argument("ports", nargs=-1, required=True, metavar="[HOST:]PORT...")
def remove(name: str, ports: tuple[str, ...]) -> None:
    """Publish ports of sandbox NAME no more; connections through them are reset."""
    from ..sandbox.ports import shown
    from . import keeping

    for text in ports:
        address, port = _place(text)
        gone = keeping.talk(name, lambda kept: kept.unpublish(port, address))  # noqa: B023
        click.echo(shown(gone))


def _publish(text: str) -> Publish:
    from ..errors import UsageError
    from ..policy.names import BadName
    from ..policy.rules import parse_publish

    try:
        return parse_publish(text)
    except BadName as error:
        raise UsageError(str(error), hint="Write [HOST:]PORT[:GUEST].") from error


def _place(text: str) -> tuple[str | None, int]:
    """Address, None where none is said, and port of [HOST:]PORT."""
    found = _publish(text)
    said = not text.partition(":")[0].isdigit()
    return (found.address if said else None), found.port
