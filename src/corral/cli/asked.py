"""An agent that is asked for by its name, from the name to a Spec and a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ..agents import Recipe, find, interactive, is_known
from ..events import Report
from ..host.limits import capacity
from ..spec import Extra, collect, refuse_untrusted
from .options import Wanted


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """An agent as the command line asks for it. args: the user's own, after the recipe's."""

    recipe: Recipe
    args: tuple[str, ...]
    import_settings: bool
    share_auth: bool


def asked_for(
    cmd: tuple[str, ...], *, import_settings: bool = False, share_auth: bool = False
) -> Asked | None:
    """The agent that a command's first word names, None for a plain command. Raises ConfigError.

    A `--` between the name and the agent's own arguments is left out.
    """
    if not is_known(cmd[0]):
        return None
    args = cmd[2:] if cmd[1:2] == ("--",) else cmd[1:]
    return Asked(find(cmd[0]), args, import_settings, share_auth)


def prepared(
    asked: Asked, wanted: Wanted, folder: Path, environ: Mapping[str, str], report: Report
) -> tuple[Extra, tuple[str, ...]]:
    """What the agent adds to the settings, and its command line. Raises CorralError."""
    from ..agents.preparing import prepare
    from ..agents.using import reach

    loaded = collect(
        folder, wanted.overrides, environ, config_file=wanted.config_file, capacity=capacity()
    )
    refuse_untrusted(loaded)
    use = prepare(
        asked.recipe,
        loaded,
        environ,
        report,
        reach(asked.recipe, loaded, environ, share_auth=asked.share_auth),
        import_settings=asked.import_settings,
    )
    return use.extra(), use.argv(interactive(asked.recipe, asked.args, use.reached))
