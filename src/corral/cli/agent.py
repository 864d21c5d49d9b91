"""`corral agent`: the agents that corral has recipes for, their programs, their homes."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from .options import current_folder

EPILOG = """\b
Examples:
  corral agent list
  corral agent show claude             its recipe, to make one of your own from
  corral agent check claude            does it work here? asks no real model
  corral agent install codex --version 0.169.0
  corral agent update                  the newest versions of those that corral has installed
  corral agent home claude --reset     forget its history in this project

\b
A recipe of your own is a file ~/.config/corral/agents/NAME.toml.
"""
CHECK_EPILOG = """\b
Examples:
  corral agent check claude
  corral agent check mine --json

\b
Exit status: 0 when all that was tried works, 1 when something does not.
"""


def _agents(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    from ..agents import names

    return [name for name in names() if name.startswith(begun)]


_name = click.argument("name", metavar="NAME", shell_complete=_agents)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("agent", epilog=EPILOG)
def command() -> None:
    """List, show, check, install and update known agents; show and reset their homes."""


@command.command("list")
@_json
def show_all(as_json: bool) -> None:
    """Show every agent that corral has a recipe for, and where its program is."""
    from .agent_texts import rows

    found = rows(dict(os.environ))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{'AGENT':<16}{'PROGRAM':<34}WHAT IT IS")
    for row in found:
        click.echo(f"{row['name']:<16}{row['program'] or '-':<34}{row['summary']}")


@command.command("show")
@_name
@_json
def show(name: str, as_json: bool) -> None:
    """Show a recipe: the file as it is, or with --json what corral makes of it."""
    from ..agents import find, source_of
    from .agent_texts import as_value

    recipe = find(name)
    if as_json:
        click.echo(json.dumps(as_value(recipe), indent=2))
        return
    click.echo(f"# {recipe.origin}\n")
    click.echo(source_of(name), nl=False)


@command.command("check", epilog=CHECK_EPILOG)
@_name
@_json
@click.option("--timeout", metavar="TIME", default="10m", help="For its work: 30s, 10m (default).")
@click.option("--yes", is_flag=True, help="Install missing packages without asking.")
def check(name: str, as_json: bool, timeout: str, yes: bool) -> None:
    """Run an agent in a sandbox before a model that follows a script, and say what works.

    No real model is asked and no key of yours is used.
    """
    from ..agents import find
    from ..agents.checking import summary
    from ..spec.sizes import parse_duration
    from . import agent_checking
    from .agent_texts import step_line
    from .progress import Progress

    recipe, seconds = find(name), parse_duration(timeout)
    progress = Progress()
    try:
        steps = agent_checking.check(
            agent_checking.Wanted(recipe, dict(os.environ), yes, seconds), progress
        )
    finally:
        progress.stop()
    told: Any = summary(steps)
    if as_json:
        click.echo(json.dumps({"agent": name, **told}, indent=2))
    else:
        for step in steps:
            click.echo(step_line(step))
    sys.exit(0 if told["ok"] else 1)


@command.command("home")
@_name
@click.option("--agent", "number", type=int, default=1, metavar="N", help="Of agent N (1).")
@click.option("--reset", is_flag=True, help="Remove it: history, settings, everything.")
@_json
def home(name: str, number: int, reset: bool, as_json: bool) -> None:
    """Show where an agent keeps its state in this project, and how much that is."""
    from ..agents import find, homes, is_known
    from ..agents.validate import NAME
    from ..errors import ConfigError

    homes.refuse_number(number)
    if not NAME.fullmatch(name):
        raise ConfigError("that is not a name for an agent.", hint="See: corral agent list")
    folder = homes.home_folder(name, os.path.realpath(current_folder()), number)
    if reset:
        done = homes.reset_home(folder)
        if done and is_known(name):  # a kept sandbox that is stopped will look for its folders
            homes.ensure_home(find(name), os.path.realpath(current_folder()), number)
        click.echo(f"removed {folder}" if done else f"there is no {folder}")
        return
    there = folder.is_dir()
    files, size = homes.size_of(folder) if there else (0, 0)
    if as_json:
        value = {"folder": str(folder), "exists": there, "files": files, "bytes": size}
        click.echo(json.dumps(value))
        return
    click.echo(
        f"{folder}  {files} files, {size / 1e6:.1f} MB" if there else f"{folder}  (none yet)"
    )


@command.command("install")
@_name
@click.option("--version", metavar="V", help="An exact version; default: the recipe's.")
def install(name: str, version: str | None) -> None:
    """Install an agent's program for sandboxes, from npm or PyPI, and use that from now on.

    It is looked through if it is there already, and made again where it is damaged.
    """
    from .agent_installing import install as installed

    installed(name, version, dict(os.environ))


@command.command("update")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_agents)
def update(names: tuple[str, ...]) -> None:
    """Install the newest versions: of NAMEs, or of all that corral has installed."""
    from .agent_installing import update as updated

    updated(names, dict(os.environ))


@command.command("remove")
@_name
def remove(name: str) -> None:
    """Forget which version was installed: the machine's own holds again, or the recipe's.

    `corral gc` removes the files.
    """
    from .agent_installing import remove as removed

    removed(name)
