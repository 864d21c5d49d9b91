"""What a guest is told when its machine begins to run, or goes on: who it is, and the time."""

from __future__ import annotations

import secrets
import time

from ..channel import Channel
from ..plan import Plan

_SEED_BYTES = 32  # as much as the kernel's generator holds (drivers/char/random.c)
# The guest's clock is set again until it was told the time within this many seconds.
_CLOCK_TOLERANCE, _CLOCK_TRIES = 0.04, 5


async def wake(channel: Channel, plan: Plan) -> None:
    """The clock, entropy and the host name. Raises GuestError, ChannelError."""
    seed = secrets.token_hex(_SEED_BYTES)
    hostname = plan.setup["hostname"]
    for _ in range(_CLOCK_TRIES):
        began = time.monotonic()
        await channel.call("wake", {"clock": time.time_ns(), "seed": seed, "hostname": hostname})
        if time.monotonic() - began < _CLOCK_TOLERANCE:
            return  # so late at most was the time that it got
        seed = ""
