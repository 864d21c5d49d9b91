"""Connections of a sandbox as they are logged, and as a person reads them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UnknownSandboxError
from ..journal import tail
from ..paths import log_dir, state_dir
from ..policy import GATEWAY_DOMAIN, Network, decide, decide_address
from ..policy.decision import addresses_of
from ..policy.names import parse, split_port
from ..policy.rules import rule_text
from ..sandbox.network import JOURNAL
from ..spec.text import printable

HEADER = "TIME                 AGENT  VERDICT  HOST, WHY, HOW MUCH"


def logged_names() -> list[str]:
    """The sandboxes of which there is a log of connections."""
    folder = state_dir() / "logs"
    try:
        return sorted(each.name for each in folder.iterdir() if (each / JOURNAL).exists())
    except FileNotFoundError:
        return []


def logged(name: str, *, follow: bool) -> Iterator[dict[str, Any]]:
    """The events of the sandboxes called `name`. Raises UnknownSandboxError."""
    if name not in logged_names():
        known = ", ".join(logged_names()) or "none yet"
        raise UnknownSandboxError(
            f"no sandbox called “{printable(name, 60)}” has asked for a connection.",
            hint=f"There are logs of: {known}. A sandbox without a network has none.",
        )
    yield from events_of(log_dir(name) / JOURNAL, follow=follow)


def events_of(path: Path, *, follow: bool = False) -> Iterator[dict[str, Any]]:
    """The events in a log; a line that is none is left out."""
    for lines in tail(path, follow=follow):
        for line in lines.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def row(event: Mapping[str, Any]) -> str:
    """One line of the table."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(event.get("time", 0))))
    seconds = event.get("seconds")
    verdict = str(event.get("verdict", ""))
    parts = [rule_text(str(event.get("name", "")), int(event.get("port", 0)))]
    if event.get("address"):
        parts[0] += f" ({event['address']})"
    if event.get("reason"):
        parts.append(str(event["reason"]))
    if event.get("rule"):
        parts.append(f"by {event['rule']}")
    if isinstance(seconds, int | float):
        verdict = "ended"
        parts.append(
            f"sent {amount(int(event.get('sent', 0)))}, "
            f"received {amount(int(event.get('received', 0)))}, {seconds:.1f} s"
        )
    text = f"{moment}  {event.get('agent', ''):>5}  {verdict:<7}  {', '.join(parts)}"
    return printable(text, 1000)


def amount(size: int) -> str:
    """Bytes as a person reads them."""
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def explain(network: Network, text: str) -> tuple[bool, str]:
    """Whether a policy allows HOST[:PORT], and why. Raises BadName.

    What a name leads to is only known when it is looked up, so that is said as a condition.
    """
    name, port = split_port(text)
    port = 443 if port is None else port
    host = parse(name)
    where = rule_text(host.text, port)
    if host.text.endswith(f".{GATEWAY_DOMAIN}"):
        return port == 80, f"{where} is a name of a gateway; it is reached on port 80"
    verdict = decide(network, host, port)
    rule = f" ({verdict.rule})" if verdict.rule else ""
    if not verdict.allowed:
        return False, f"{where}: {verdict.reason}{rule}"
    if host.address is not None:
        address = decide_address(network, host.address, port)
        return address.allowed, f"{where}: {address.reason or 'on the list'}{rule}"
    led = addresses_of(network, host, port)
    if led:
        return True, f"{where}: leads to {', '.join(each.address for each in led)}{rule}"
    return True, f"{where}: on the list{rule}, where it leads to a public address"
