"""One command that runs in a kept sandbox."""

from __future__ import annotations

import asyncio

import msgspec

from ..sandbox import Execution


class Running(msgspec.Struct):
    """A command that runs. argv: shortened, printable. over: set when it runs no more.

    session: of which it is the program, or "". quiet: of corral's own, and no work of the agent's.
    """

    number: int
    argv: tuple[str, ...]
    since: float
    execution: Execution
    over: asyncio.Event
    agent: int
    session: str = ""
    quiet: bool = False
