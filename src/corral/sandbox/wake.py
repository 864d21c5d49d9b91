"""What a guest is told when its machine begins to run, or goes on: who it is, and the time."""

from __future__ import annotations

import secrets
import time

from ..channel import Channel
from ..plan import Plan

_SEED_BYTES = 32  # as much as the kernel's generator holds (drivers/char/random.c)
# The guest's clock is set again until that took fewer seconds.
_CLOCK_TOLERANCE, _CLOCK_TRIES = 0.04, 5
_TIMEOUT = 60.0  # seconds, under emulation and on a busy host


async def wake(channel: Channel, plan: Plan) -> None:
    """The time, about, entropy and the host name. Raises GuestError, ChannelError."""
    seed, hostname = secrets.token_hex(_SEED_BYTES), plan.setup["hostname"]
    told = {"clock": time.time_ns(), "seed": seed, "hostname": hostname}
    await channel.call("wake", told, timeout=_TIMEOUT)


async def set_clock(channel: Channel) -> None:
    """The time, of a guest that answers at once: it is late by less than that takes.

    Raises GuestError, ChannelError.
    """
    for _ in range(_CLOCK_TRIES):
        began = time.monotonic()
        await channel.call("clock", {"clock": time.time_ns()}, timeout=_TIMEOUT)
        if time.monotonic() - began < _CLOCK_TOLERANCE:
            break
