"""Which words of a command line are corral's own, and which are those of what it runs."""

from __future__ import annotations

from collections.abc import Sequence

import click


def split(command: click.Command, args: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The command's own options, its first word if it comes before --, and all from the second.

    Options may stand before and after the first word. A -- between is left out.
    """
    valued = {
        spelling
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.is_flag
        for spelling in parameter.opts
    }
    options: list[str] = []
    first: list[str] = []
    rest = list(args)
    while rest:
        if rest[0] == "--":
            return options, first, rest[1:]
        if not rest[0].startswith("-") or rest[0] == "-":
            if first:
                break
            first.append(rest.pop(0))
            continue
        option = rest.pop(0)
        options.append(option)
        if rest and _wants_value(option, valued):
            options.append(rest.pop(0))
    return options, first, rest


def _wants_value(option: str, valued: set[str]) -> bool:
    """Whether the next word is this option's value."""
    if option.startswith("--"):
        return option in valued
    letters = option[1:]
    taking = next((at for at, each in enumerate(letters) if f"-{each}" in valued), None)
    return taking is not None and taking == len(letters) - 1
