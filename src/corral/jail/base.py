"""The host's programs for a jail. What there is of them is looked at here, so it is not pure."""

from __future__ import annotations

from msgspec.structs import replace

from ..host.layout import program_folders
from .combinators import (
    Combinator,
    compose,
    fake_passwd,
    time_zone,
    tmpfs,
    try_fwd_env,
    try_ro_bind,
)
from .model import Expanded, Jail, Link


def programs() -> Combinator:
    """/usr, /opt and the like and what programs read in /etc, read-only; a home in memory.

    Of the environment LANG, LC_ALL and TERM. The same folders as a sandbox's toolbox has.
    """
    folders, links, etc = program_folders()

    def linked(before: Jail) -> Jail:
        made = tuple(Link(path, text) for path, text in links)
        return replace(before, parts=(*before.parts, *made))

    return compose(
        *(try_ro_bind(path) for path in (*folders, *etc)),
        linked,
        tmpfs(Expanded("~")),
        fake_passwd,
        time_zone(),
        *(try_fwd_env(name) for name in ("LANG", "LC_ALL", "TERM")),
    )
