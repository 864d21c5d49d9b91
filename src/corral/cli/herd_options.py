"""Options of what stays: several agents, their recipes, a disk, actions."""

from __future__ import annotations

import click

from .options import F, decorated

_HERD = (
    click.option(
        "--agents", metavar="N", help="Several agents, each in a jail of its own: 1 to 32."
    ),
    click.option(
        "--agent-workspace",
        metavar="own|together|turns",
        help="Of several agents: a copy each (default), or one folder for all.",
    ),
)

_RECIPES = (
    click.option(
        "--import-settings",
        is_flag=True,
        help="Copy your own settings of the agent into its home, once, less credentials.",
    ),
    click.option(
        "--share-auth",
        is_flag=True,
        help="Let the agent use your subscription's login, through a gateway.",
    ),
)

_DISK = (
    click.option(
        "--disk", metavar="SIZE", help="A disk that keeps what is written to the system: 20g."
    ),
    click.option(
        "--agent-io-read", metavar="SIZE", help="Bytes a second that one agent reads from --disk."
    ),
    click.option(
        "--agent-io-write", metavar="SIZE", help="Bytes a second that one agent writes to it."
    ),
)


def herd_options(function: F) -> F:
    """Several agents, for `up`: a run has one."""
    return decorated(_HERD, function)


def recipe_options(function: F) -> F:
    """What an agent with a recipe may have of the user's own."""
    return decorated(_RECIPES, function)


def disk_options(function: F) -> F:
    """A disk, for `up`: what keeps nothing has none."""
    return decorated(_DISK, function)


def action_option(function: F) -> F:
    """`--action`, for `up`: tasks are given to what is kept."""
    return click.option(
        "--action",
        multiple=True,
        metavar="NAME=CMD",
        help="A command that tasks call by a name: 'test=pytest -q'. Repeatable.",
    )(function)
