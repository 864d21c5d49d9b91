"""Events of a kept sandbox as lines for a person: `corral logs`, and `corral up` in front."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..spec.text import harmless, printable

_STATES = {
    "starting": "starting",
    "running": "running",
    "paused": "paused",
    "stopping": "stopping",
    "stopped": "stopped",
    "failed": "failed",
}


def line(event: Mapping[str, Any]) -> str:
    """One event, as it is in the event log, in words; its time first."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(event.get("time", 0))))
    tell = _TELL.get(str(event.get("event")), _other)
    return f"{moment}  {harmless(tell(event))}"


def _state(event: Mapping[str, Any]) -> str:
    return _STATES.get(str(event.get("state")), "in a state that is not known")


def _phase(event: Mapping[str, Any]) -> str:
    return str(event.get("message"))


def _notice(event: Mapping[str, Any]) -> str:
    return f"{event.get('level')}: {event.get('message')}"


def _output(event: Mapping[str, Any]) -> str:
    return f"the command wrote to {event.get('stream')}"


def _started(event: Mapping[str, Any]) -> str:
    how = f"{event.get('accel')}, {event.get('carrier')}"
    return f"the command runs in {event.get('sandbox')} ({how}) after {event.get('seconds')} s"


def _exited(event: Mapping[str, Any]) -> str:
    return f"the command ended with status {event.get('status')} after {event.get('seconds')} s"


def _agent(event: Mapping[str, Any]) -> str:
    reason = printable(str(event.get("reason") or ""), 300)
    return f"agent {event.get('agent')} is {event.get('state')}" + (f": {reason}" if reason else "")


def _command(event: Mapping[str, Any]) -> str:
    return f"command {event.get('command')}: {shlex.join(map(str, event.get('argv', ())))}"


def _ended(event: Mapping[str, Any]) -> str:
    return (
        f"command {event.get('command')} ended with status {event.get('status')} "
        f"after {event.get('seconds')} s"
    )


def _task_began(event: Mapping[str, Any]) -> str:
    return f"task {event.get('task')} of agent {event.get('agent')} begins"


def _task_ended(event: Mapping[str, Any]) -> str:
    return (
        f"task {event.get('task')} of agent {event.get('agent')}: {event.get('status')} "
        f"after {event.get('seconds')} s"
    )


def _failed(event: Mapping[str, Any]) -> str:
    return "error: " + "\n  ".join(str(event[key]) for key in ("message", "hint") if event.get(key))


def _connection(event: Mapping[str, Any]) -> str:
    where = printable(f"{event.get('name')}:{event.get('port')}", 300)
    if event.get("seconds") is not None:
        bytes_ = f"sent {event.get('sent')} bytes, received {event.get('received')}"
        return f"connection to {where} ended after {event.get('seconds'):.1f} s, {bytes_}"
    why = event.get("reason") or (f"by {event['rule']}" if event.get("rule") else "")
    return f"connection to {where} {event.get('verdict')}" + (f": {why}" if why else "")


def _other(event: Mapping[str, Any]) -> str:
    return str(event.get("event"))


_TELL: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "state": _state,
    "phase": _phase,
    "notice": _notice,
    "output": _output,
    "started": _started,
    "exited": _exited,
    "agent": _agent,
    "command-started": _command,
    "command-ended": _ended,
    "task-began": _task_began,
    "task-ended": _task_ended,
    "connection": _connection,
    "failed": _failed,
}
