"""`corral config init|show|schema`: write a corral.toml, see what results, get its schema."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from ..errors import ConfigError, CorralError
from ..spec.files import CONFIG_NAME, current_folder, write_atomically
from ..spec.text import printable

EPILOG = """\b
Examples:
  corral config init                           propose a corral.toml for this folder
  corral config show                           what holds here, and where each value is from
  corral config schema > corral.schema.json    for your editor
"""


@click.group(name="config", help="Write, show and describe the configuration.", epilog=EPILOG)
def command() -> None:
    pass


@command.command(name="init", help="Write a commented corral.toml for the current folder.")
@click.option("--force", is_flag=True, help="Replace a corral.toml that exists.")
def init(force: bool) -> None:
    from ..spec.load import home_of
    from ..spec.propose import described, files_in, propose, render

    folder = current_folder()
    target = folder / CONFIG_NAME
    if os.path.lexists(target) and not force:
        raise ConfigError(
            f"{printable(str(target))} exists already.",
            hint="Edit it, or replace it with --force.",
        )
    try:
        proposal = propose(files_in(folder), os.environ.get("PATH", ""), home_of(os.environ))
        text = render(proposal)
        write_atomically(target, text.encode(), mode=0o666 & ~_umask())
    except OSError as error:
        raise CorralError(
            f"{printable(str(target))} cannot be written: {error.strerror}.",
            hint="Make the folder writable.",
        ) from error
    click.echo(text, nl=False)
    click.echo(f"Wrote {printable(str(target))}.", err=True)
    for line in described(proposal):
        click.echo(f"  {line}", err=True)
    if proposal.tools:
        click.echo("It shares folders of yours; accept it as it is with: corral trust", err=True)


@command.command(name="show", help="Show the merged configuration and where each value is from.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A configuration file in place of the project's corral.toml.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(config_file: Path | None, as_json: bool) -> None:
    from ..host.limits import capacity
    from ..spec.load import collect
    from ..spec.show import as_data, as_toml

    loaded = collect(current_folder(), {}, os.environ, config_file=config_file, capacity=capacity())
    if as_json:
        click.echo(json.dumps(as_data(loaded), indent=2))
    else:
        click.echo(as_toml(loaded), nl=False)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    if loaded.refused and loaded.project is not None:
        click.echo(
            f"warning: {printable(loaded.project.path)} is not accepted and asks for more than "
            "it may; until you run corral trust, corral run refuses it.",
            err=True,
        )


@command.command(name="schema", help="Print the JSON Schema of corral.toml.")
def schema() -> None:
    from ..spec.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
