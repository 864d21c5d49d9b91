"""One command that runs in a kept sandbox."""

from __future__ import annotations

import asyncio

import msgspec

from ..sandbox import Execution


class Running(msgspec.Struct):
    """A command that runs. argv: shortened, printable. over: set when it runs no more."""

    number: int
    argv: tuple[str, ...]
    since: float
    execution: Execution
    over: asyncio.Event
