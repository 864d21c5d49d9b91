"""How an agent is: its state, when it was heard of last, and what it uses.

An agent's jail is asked for a sign of life every BEAT seconds. One that gives none for STUCK_AFTER
is stuck: stopped by its own agent, perhaps, or without any processor time.
"""

from __future__ import annotations

import time

from . import boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STARTING, IDLE, WORKING, STUCK, DEAD = "starting", "idle", "working", "stuck", "dead"
BEAT = 5.0  # seconds
STUCK_AFTER = 15.0  # seconds; an emulated agent among many that work may need some


class Vitals:
    """Of one agent, over all lives of its jail. Times are those of time.monotonic().

    running: its commands, by number. told: the state that the host knows of. reason: why it is in
    its state, in corral's own words. kills, used: by lack of memory, and of processors, in earlier
    lives.
    """

    __slots__ = (
        "_asked",
        "_heard",
        "_kills",
        "_stuck",
        "_used",
        "dead",
        "number",
        "output",
        "reason",
        "running",
        "told",
        "up",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.output: float | None = None
        self._heard: float | None = None
        self._kills = 0
        self._used = 0
        self.told = ""
        self.begin()

    def begin(self) -> None:
        """A life of its jail begins."""
        self.up = False
        self.dead = False
        self.reason = ""
        self.running: set[int] = set()
        self._asked: float | None = None
        self._stuck = False

    @property
    def state(self) -> str:
        """The state it is in."""
        if self.dead:
            return DEAD
        if not self.up:
            return STARTING
        if self._stuck:
            return STUCK
        return WORKING if self.running else IDLE

    def beat(self, now: float) -> bool:
        """Time has passed. Whether to ask it for a sign of life now."""
        if not self.up or self.dead:
            return False
        if self._asked is None:
            self._asked = now
            return True
        if not self._stuck and now - self._asked >= STUCK_AFTER:
            self._stuck = True
            self.reason = "it gives no sign of life"
        return False

    def heard(self, now: float) -> None:
        """It said something."""
        self._heard = now
        self._asked = None
        if self._stuck:
            self._stuck = False
            self.reason = ""

    def spoke(self) -> None:
        """A command of its wrote something."""
        self.output = time.monotonic()

    def stood(self, now: float) -> None:
        """It could not answer meanwhile, through no fault of its own: its patience begins anew."""
        if self._asked is not None:
            self._asked = now

    def end(self, folder: str, reason: str) -> None:
        """Its jail is lost. folder: its control group, which knows if memory was the cause."""
        self.dead = True
        self.running.clear()
        events = _fields(f"{folder}/memory.events")
        self._kills += events.get("oom_kill", 0)
        self._used += _fields(f"{folder}/cpu.stat").get("usage_usec", 0)
        # Of the group as a whole where the kernel (5.18) counts that: else of any process.
        short = events.get("oom_group_kill", events.get("oom_kill", 0))
        self.reason = "it had no memory left" if short else reason

    def report(self, folder: str, now: float) -> dict[str, Any]:
        """What the host is told when it asks. folder: of its control group.

        quiet, heard: seconds since it wrote something, and since a sign of life; null for never.
        What this kernel does not account for is null.
        """
        kills = used = 0
        if not self.dead:
            kills = _fields(f"{folder}/memory.events").get("oom_kill", 0)
            used = _fields(f"{folder}/cpu.stat").get("usage_usec", 0)
        return {
            "number": self.number,
            "state": self.state,
            "reason": self.reason,
            "pids": _number(f"{folder}/pids.current"),
            "memory": _number(f"{folder}/memory.current"),
            "cpu_usec": self._used + used,
            "oom_kills": self._kills + kills,
            "commands": len(self.running),
            "quiet": None if self.output is None else round(now - self.output, 3),
            "heard": None if self._heard is None else round(now - self._heard, 3),
        }


def _number(path: str) -> int | None:
    try:
        return int(boot.read(path))
    except FileNotFoundError:
        return None


def _fields(path: str) -> dict[str, int]:
    """The numbers of a "flat keyed" file (cgroup-v2.rst)."""
    try:
        text = boot.read(path)
    except FileNotFoundError:
        return {}
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}
