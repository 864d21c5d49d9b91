"""One `corral jail`, from the options to the exit status."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ..events import Started, silent
from ..host import measure
from ..jail import combinators as c
from ..jail.base import programs
from ..jail.model import Expanded, Jail
from ..jail.resolve import Resolved, resolve
from ..jail.run import host_jail
from ..plan import limits as planned
from ..sandbox.limits import bounds_of
from ..spec import Limits
from ..spec.sizes import parse_duration, parse_limit_memory, parse_percent, parse_pids
from .attach import Attachment, Command


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What is to run. timeout: seconds or None."""

    argv: tuple[str, ...]
    terminal: bool | None
    stdin: bool
    timeout: float | None


def duration(text: str | None) -> float | None:
    """Seconds out of `30s`. Raises ConfigError."""
    return None if text is None else parse_duration(text)


def wanted(parameters: Mapping[str, Any], folder: Path) -> Jail:
    """The jail that the options make. folder: where relative paths start. Raises ConfigError."""
    return c.jail(*_combinators(parameters, str(folder)))


def _combinators(given: Mapping[str, Any], folder: str) -> Iterator[c.Combinator]:
    if not given["bare"]:
        yield programs()
    if not given["no_cwd"]:
        yield c.compose(c.ro_bind(folder), c.chdir(folder)) if given["read_only"] else c.mount_cwd
    beneath = _path(given["beneath"], folder) if given["beneath"] else None
    root = os.path.realpath(_home(beneath)) if beneath else "/"
    for name in ("ro_bind", "rw_bind", "try_ro_bind", "try_rw_bind"):
        for text in given[name]:
            source, _, target = text.partition(":")
            yield getattr(c, name)(_path(source, folder), target or None, beneath=root)
    yield from (c.tmpfs(_path(text, folder)) for text in given["tmpfs"])
    yield from (c.deny(_path(text, folder)) for text in given["deny"])
    yield c.add_tools(*(_path(text, folder) for text in given["tool"]))
    if given["network"]:
        yield c.network
    yield from _environment(given)
    yield c.set_hostname(given["hostname"])
    if given["no_new_session"]:
        yield c.no_new_session
    for profile in given["seccomp"] or ("default",):
        named = profile if profile in ("default", "none") else _home(_path(profile, folder))
        yield c.add_seccomp(named, given["seccomp_mode"])
    if given["workdir"]:
        yield c.chdir(_path(given["workdir"], folder))
    memory, cpu, pids = given["limit_memory"], given["limit_cpu"], given["limit_pids"]
    yield c.limits(
        memory=None if memory is None else parse_limit_memory(memory),
        cpu=None if cpu is None else parse_percent(cpu),
        pids=None if pids is None else parse_pids(pids),
    )


def _environment(given: Mapping[str, Any]) -> Iterator[c.Combinator]:
    if given["time_zone"]:
        yield c.time_zone(given["time_zone"])
    for text in given["set_env"]:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"“{text[:60]}” has no value.", hint="Write NAME=VALUE.")
        yield c.set_env(name, value)
    yield from (c.fwd_env(name) for name in given["fwd_env"])
    yield from (c.try_fwd_env(name) for name in given["try_fwd_env"])


def _path(text: str, folder: str) -> str | Expanded:
    """A path as typed: ~ is the home, a relative one starts in the current folder."""
    if text == "~" or text.startswith("~/"):
        return c.noescape(text.replace("$", "")) if "$" not in text else _refuse(text)
    return os.path.join(folder, text)  # noqa: PTH118 - text in, text out


def _refuse(text: str) -> str:
    raise ConfigError(f"“{text[:80]}” has both ~ and $.", hint="Write the path in full.")


def _home(path: str | Expanded) -> str:
    return path if isinstance(path, str) else os.path.expanduser(path.text)  # noqa: PTH111


def run(jail: Jail, request: Request, environ: Mapping[str, str]) -> int:
    """Do it; returns the exit status. Raises CorralError."""
    facts = measure()
    resolved = resolve(jail, facts.user, str(Path.cwd()), environ)
    for warning in resolved.warnings:
        click.echo(f"corral: warning: {warning}", err=True)
    return asyncio.run(_run(resolved, request, facts, environ))


async def _run(resolved: Resolved, request: Request, facts: Any, environ: Mapping[str, str]) -> int:
    began = time.monotonic()
    wanted = Limits(
        memory=resolved.limits.memory, cpu=resolved.limits.cpu, pids=resolved.limits.pids
    )
    enforced = planned.build(wanted, facts.cgroups, None)
    bounds = bounds_of(enforced, f"jail-{secrets.token_hex(3)}", "corral jail")
    attachment = Attachment(silent)
    command = Command(
        argv=request.argv,
        terminal=request.terminal,
        stdin=request.stdin,
        as_json=False,
        term=environ.get("TERM", "xterm"),
        timeout=request.timeout,
    )

    def started() -> Started:
        seconds = round(time.monotonic() - began, 3)
        return Started(sandbox=resolved.hostname, accel="", carrier="", seconds=seconds)

    async def inside() -> int:
        async with host_jail(resolved, facts, bounds) as running:
            return await attachment.run(running, command, started)

    return await attachment.during(inside)
