"""Searches for keys that a door asks for while it runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from corral.events import silent
from corral.policy import Key
from corral.sandbox.doors import Door, _KeyKeeper, _listen

DOOR = Door(
    what="the gateway",
    module="",
    packages=(),
    config=b"",
    sockets=(),
    keys={"one": Key(kind="env", value=("X",))},
)


class Keeper(_KeyKeeper):
    """Its searches take a moment to end, like one that renews a login."""

    def __init__(self) -> None:
        super().__init__(DOOR, -1, {}, silent)
        self.said: list[str] = []
        self.began = asyncio.Event()

    async def find(self, rejected: Mapping[str, str]) -> None:
        self.began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            self.said.append("ended")


async def test_a_door_is_not_left_before_its_searches_have_ended() -> None:
    reader, writer = os.pipe()
    keeper = Keeper()
    listening = asyncio.create_task(_listen(reader, keeper, DOOR, silent, lambda _word: None))
    os.write(writer, b'{"again":{"one":""}}\n')
    await asyncio.wait_for(keeper.began.wait(), 10)
    listening.cancel()
    await asyncio.wait([listening])
    assert keeper.said == ["ended"]
    os.close(reader)
    os.close(writer)
