"""What a command was refused on the network, told once at its end."""

from __future__ import annotations

import shlex
from collections import Counter

from ..events import Connection, Event, Notice, Report
from ..policy import Network

MAX_KEPT = 500  # different ones; a guest can ask for any number
MAX_SHOWN = 8
# What a rule could permit (corral.policy.decision); about the others it could not help.
_PERMITTED_BY_A_RULE = ("not on the list", "port not on the list", "no network")


class Refusals:
    """A Report that counts refused connections and passes everything on."""

    def __init__(self, report: Report, network: Network) -> None:
        self._report = report
        self._network = network
        self._seen: Counter[tuple[str, int, str]] = Counter()
        self._others = 0

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Connection) and event.verdict == "denied":
            key = event.name, event.port, event.reason.partition(" (")[0]
            if key in self._seen or len(self._seen) < MAX_KEPT:
                self._seen[key] += 1
            else:
                self._others += 1
        self._report(event)

    def tell(self) -> None:
        """Say which connections were refused, and what would permit them, if any were."""
        if self._seen:
            self._report(Notice(level="warning", message=self._message()))

    def _message(self) -> str:
        count = self._seen.total() + self._others
        shown = self._seen.most_common(MAX_SHOWN)
        parts = [
            f"{_place(name, port)} ({reason}{f', {times} times' if times > 1 else ''})"
            for (name, port, reason), times in shown
        ]
        if len(self._seen) > len(shown) or self._others:
            parts.append("and others")
        options = dict.fromkeys(
            f"--allow {shlex.quote(self._rule(name, port))}"
            for (name, port, reason), _times in shown
            if reason in _PERMITTED_BY_A_RULE
        )
        one = count == 1
        message = f"{count} connection{' was' if one else 's were'} refused: {', '.join(parts)}."
        if options:
            message += f" To permit {'it' if one else 'them'}: {' '.join(options)}"
        return message

    def _rule(self, name: str, port: int) -> str:
        if port in self._network.ports and ":" not in name:
            return name
        return _place(name, port)


def _place(name: str, port: int) -> str:
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
