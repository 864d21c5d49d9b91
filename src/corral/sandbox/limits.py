"""A sandbox's limits on the host, put around its warden before that starts anything."""

from __future__ import annotations

import os

from ..plan import Plan
from ..plan.limits import scope
from ..plan.model import HostLimits
from ..proc import Bounds
from ..proc.groups import PREFIX, Group

# What systemd-run needs to find the user's systemd.
_BUS = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


def bounds(plan: Plan, token: str) -> Bounds:
    """What Helpers.start does about the plan's limits. token: no other sandbox has it."""
    return bounds_of(plan.limits, token, f"corral sandbox {plan.name}")


def bounds_of(limits: HostLimits | None, token: str, what: str) -> Bounds:
    """The same, for anything. what: as systemd is to show it."""
    if limits is None:
        return Bounds()
    if limits.way == "subtree":
        return Bounds(group=Group(limits.base, token, limits.controllers, limits.files))
    argv = scope(limits, f"{PREFIX}{token}", what)
    passed = {name: os.environ[name] for name in _BUS if name in os.environ}
    return Bounds(prefix=argv, environment=passed if limits.manager == "user" else {})
