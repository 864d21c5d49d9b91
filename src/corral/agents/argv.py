"""The command lines and variables of an agent. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import ConfigError, UsageError
from .model import Reached, Recipe

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def interactive(
    recipe: Recipe, args: Sequence[str] = (), reached: Reached | None = None
) -> tuple[str, ...]:
    """The program as a person uses it, with the user's own arguments after the recipe's.

    reached: the gateway to its model, None for none.
    """
    return (*_filled(recipe, recipe.table.interactive, reached, {}), *args)


def headless(recipe: Recipe, prompt: str, reached: Reached | None = None) -> tuple[str, ...]:
    """The program working on one prompt to its end. Raises ConfigError, UsageError."""
    if not recipe.table.headless:
        raise ConfigError(
            f"the recipe {recipe.name} does not say how it takes a prompt.",
            hint=f"Give it headless = [...] with {{prompt}}, in {recipe.origin}.",
        )
    if "\0" in prompt or not prompt.strip():
        raise UsageError("a prompt is text that is not empty and has no NUL.")
    return tuple(_filled(recipe, recipe.table.headless, reached, {"prompt": prompt}))


def environment(recipe: Recipe, home: str, reached: Reached | None = None) -> dict[str, str]:
    """The recipe's variables. home: the agent's, in the sandbox."""
    given = dict(recipe.table.env)
    if reached is not None and (provider := recipe.table.gateway.get(reached.dialect)):
        given |= provider.env
    words = _words_of(reached)
    return {name: _expanded(_fill(value, words), home) for name, value in given.items()}


def _filled(
    recipe: Recipe, argv: Sequence[str], reached: Reached | None, words: Mapping[str, str]
) -> list[str]:
    provider = recipe.table.gateway.get(reached.dialect) if reached is not None else None
    known = {**_words_of(reached), **words}
    filled: list[str] = []
    for word in argv:
        if word == "{provider}":
            filled += [_fill(each, known) for each in (provider.args if provider else ())]
        else:
            filled.append(_fill(word, known))
    return filled


def _words_of(reached: Reached | None) -> dict[str, str]:
    if reached is None:
        return {}
    host = reached.url.removeprefix("http://").partition("/")[0]
    return {"base_url": reached.url, "model_host": host}


def _fill(text: str, words: Mapping[str, str]) -> str:
    """One pass: what a prompt says in braces stays as it is."""
    return _PLACEHOLDER.sub(lambda found: words.get(found[1], found[0]), text)


def _expanded(value: str, home: str) -> str:
    return home + value[1:] if value == "~" or value.startswith("~/") else value
