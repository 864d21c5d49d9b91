"""Serve until ended, and tell each request on standard output, a line of JSON each.

    python -m corral.scripted [PORT] [< SCRIPT]

SCRIPT: a JSON array, one object a reply: {"text": "...", "tools": [["Bash", {"command": "ls"}]]}.
The first line of the output is the address.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgspec

from .model import Reply, Seen
from .server import Models


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    """A reply, as a script may have it."""

    text: str = ""
    tools: list[tuple[str, dict[str, Any] | str]] = []
    status: int = 200
    error: str = ""


def _script(data: bytes) -> tuple[Reply, ...]:
    said = msgspec.json.decode(data, type=list[_Said]) if data.strip() else []
    return tuple(
        Reply(text=one.text, tools=tuple(one.tools), status=one.status, error=one.error)
        for one in said
    )


async def _serve(port: int, script: tuple[Reply, ...]) -> None:
    asked: asyncio.Queue[Seen] = asyncio.Queue()
    async with Models(port, script=script, report=asked.put_nowait) as models:
        print(models.url, flush=True)
        while True:
            seen = await asked.get()
            print(
                json.dumps([seen.method, seen.path, seen.headers, seen.body], default=repr),
                flush=True,
            )


if __name__ == "__main__":
    given = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    asyncio.run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0, _script(given)))
