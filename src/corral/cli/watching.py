"""Commands of which every system call is told: for `corral seccomp record` and `check`."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import click

from ..errors import ConfigError
from ..events import Started, silent
from ..host import Facts, Need, measure
from ..jail.seccomp.algebra import Call, describe, merge, smallest
from ..jail.seccomp.filters import load
from ..jail.seccomp.notify import Judge, Watched
from ..jail.seccomp.profile import Profile, dump
from ..jail.seccomp.table import Answer, Kind, answer, table
from ..jail.seccomp.target import Target
from ..jail.watch import watched_host
from ..spec.files import write_atomically
from .attach import Attachment, Command

# What the default profile says is absent is so while recording, too: programs then do what they do
# under such a profile, which need not open what no filter can look into.
ABSENT = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")


def here() -> Target:
    """This machine."""
    release = os.uname().release.split(".")
    return Target(machine=os.uname().machine, kernel=(int(release[0]), int(release[1])))


def loaded(name: str) -> Profile:
    """A profile. Raises ConfigError, for `none`, too."""
    profile = load(name)
    if profile is None:
        raise ConfigError("“none” is no profile.", hint="Say default, or name a file.")
    return profile


def record(
    cmd: tuple[str, ...],
    output: Path,
    *,
    force: bool,
    add: bool,
    terminal: bool | None,
    stdin: bool,
) -> int:
    """Run it, write the profile; returns the command's status. Raises CorralError."""
    if output.exists() and not (force or add):
        raise ConfigError(
            f"{output} exists.", hint="Add to it with --add, or replace it with --force."
        )
    before = [(str(output), loaded(str(output.absolute())))] if add and output.exists() else []
    absent = Answer(Kind.ERRNO, errno.ENOSYS)

    def judge(call: Call) -> Answer:
        return absent if call.name in ABSENT else Answer(Kind.ALLOW)

    status, calls = _run(cmd, judge, terminal=terminal, stdin=stdin)
    made = [call for call, given in calls.calls.items() if given.allows]
    profile = smallest(made, f"what {Path(cmd[0]).name[:40]} calls")
    if before:
        profile = merge([*before, ("what was recorded", profile)])
    try:
        write_atomically(output.absolute(), dump(profile).encode(), mode=0o644)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error
    names = {name for rule in profile.rules for name in rule.all_names}
    click.echo(f"corral: wrote {output}, which allows {len(names)} calls.", err=True)
    return status


def check(cmd: tuple[str, ...], name: str, *, terminal: bool | None, stdin: bool) -> int:
    """Run it under the profile; returns the command's status. Raises CorralError."""
    where = table(loaded(name), here())

    def judge(call: Call) -> Answer:
        return answer(where, call.name, call.arguments)

    status, calls = _run(cmd, judge, terminal=terminal, stdin=stdin)
    for refused, (given, times) in sorted(calls.refused.items()):
        often = f", {times} times" if times > 1 else ""
        click.echo(f"corral: {refused}: {describe(given)}{often}", err=True)
    if not calls.refused:
        click.echo("corral: the profile refused nothing.", err=True)
    return status


def _run(
    cmd: tuple[str, ...], judge: Judge, *, terminal: bool | None, stdin: bool
) -> tuple[int, Watched]:
    facts = measure(need=Need(kvm=False, user_namespaces=False))
    return asyncio.run(_watch(facts, cmd, judge, terminal=terminal, stdin=stdin))


async def _watch(
    facts: Facts, cmd: tuple[str, ...], judge: Judge, *, terminal: bool | None, stdin: bool
) -> tuple[int, Watched]:
    attachment = Attachment(silent)
    term = os.environ.get("TERM", "xterm")
    wanted = Command(argv=cmd, terminal=terminal, stdin=stdin, as_json=False, term=term)
    found: list[Watched] = []
    began: Callable[[], Started] = lambda: Started(  # noqa: E731
        sandbox="", accel="", carrier="", seconds=0.0
    )

    async def inside() -> int:
        async with watched_host(facts, judge) as host:
            status = await attachment.run(host, wanted, began)
            assert host.calls is not None
            found.append(host.calls)
            return status

    status = await attachment.during(inside)
    if not found:  # a signal ended it before it ran
        raise ConfigError("the command did not run.", hint="Try it again.")
    return status, found[0]
