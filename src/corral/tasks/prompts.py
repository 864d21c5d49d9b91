"""An agent program as its recipe says, for a prompt or a person. Pure."""

from __future__ import annotations

from ..agents import Reached, Recipe, environment, headless, interactive
from ..agents.validate import dialects
from ..errors import TaskError
from ..policy import GATEWAY_DOMAIN
from .commands import Command, Place
from .model import Prompt


def recipe_name(task: Prompt, place: Place) -> str:
    """Which recipe is meant. Raises TaskError."""
    name = task.agent or place.recipe
    if name is None:
        raise TaskError(
            f"agent {place.agent} has no recipe, and the prompt names none.",
            hint='Name one: {"action": "prompt", "agent": "claude", "prompt": ...}; there are: '
            "corral agent list",
        )
    return name


def command(task: Prompt, place: Place, recipe: Recipe) -> Command:
    """The command for a prompt. Raises ConfigError, UsageError."""
    reached = _reached(recipe, place)
    return Command(
        argv=headless(recipe, task.prompt, reached),
        environment=_variables(recipe, place, reached),
        timeout=None if task.timeout_ms is None else task.timeout_ms / 1000,
        output=recipe.table.output,
    )


def at_a_terminal(place: Place, recipe: Recipe) -> Command:
    """The command for a person at a terminal."""
    reached = _reached(recipe, place)
    return Command(
        argv=interactive(recipe, (), reached), environment=_variables(recipe, place, reached)
    )


def _variables(recipe: Recipe, place: Place, reached: Reached | None) -> dict[str, str]:
    """What the sandbox was started with counts: the recipe's, or what the user said instead."""
    variables = environment(recipe, place.home, reached)
    return {name: value for name, value in variables.items() if name not in place.variables}


def _reached(recipe: Recipe, place: Place) -> Reached | None:
    """The first of the agent's gateways that the program can talk to."""
    fitting = dialects(recipe.table)
    for gateway in place.gateways:
        if gateway.dialect in fitting:
            path = "/v1" if gateway.dialect == "openai" else ""
            url = f"http://{gateway.name}.{GATEWAY_DOMAIN}{path}"
            return Reached(name=gateway.name, dialect=gateway.dialect, url=url)
    return None
