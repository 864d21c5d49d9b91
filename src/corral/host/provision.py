"""Getting the programs that are missing: installed after a yes, or named for root to install."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .. import paths
from ..errors import MissingProgramError
from ..events import Phase, Report
from .consent import Confirm, ask_on_terminal, unattended
from .facts import Facts, Need, measure
from .packages import (
    family_of,
    how_to_install,
    install_argv,
    missing_sentence,
    packages_for,
)
from .root import RunCommand, root_prefix, run_as_root, run_lines
from .system import System

LOCK_SECONDS = 120  # how long apt waits for another package manager


def missing(facts: Facts, wanted: Sequence[str]) -> tuple[str, ...]:
    """Those of the wanted programs (keys of packages.PROGRAMS) that this machine lacks."""
    present = {
        "qemu": facts.qemu,
        "bwrap": facts.bwrap,
        "virtiofsd": facts.virtiofsd,
        "mke2fs": facts.mke2fs,
        "tmux": facts.tmux,
    }
    return tuple(program for program in wanted if present[program] is None)


def ensure_programs(
    facts: Facts,
    wanted: Sequence[str],
    *,
    assume_yes: bool,
    report: Report,
    confirm: Confirm = ask_on_terminal,
    system: System | None = None,
    run: RunCommand = run_lines,
) -> Facts:
    """The facts of a machine that has the wanted programs: installed now where they were missing.

    wanted: keys of packages.PROGRAMS. assume_yes: do not ask (nor where CI=true). On a machine
    without apt nothing is installed. Raises MissingProgramError, whose hint is the one command
    that root must run, when the user says no, cannot be asked, or there is no way to become root;
    HostError when the installation fails.
    """
    lacking = missing(facts, wanted)
    if not lacking:
        return facts
    system = system or System()
    prefix = _authority(facts, lacking, system, assume_yes=assume_yes, confirm=confirm)
    with _one_at_a_time():
        facts = measure(system=system)  # another corral may have installed them meanwhile
        lacking = missing(facts, wanted)
        if lacking:
            packages = packages_for(lacking, facts.os_release, facts.arch)
            _install(packages, prefix, system, report, run)
            facts = measure(need=Need(fresh=True), system=system)
    lacking = missing(facts, wanted)
    if lacking:
        raise MissingProgramError(
            f"the packages are installed, and still: {missing_sentence(lacking)}",
            hint="See `corral doctor`.",
        )
    return facts


def _authority(
    facts: Facts, lacking: Sequence[str], system: System, *, assume_yes: bool, confirm: Confirm
) -> list[str]:
    """What makes the installation run as root, once the user has agreed to it."""
    release, arch = facts.os_release, facts.arch
    sentence = missing_sentence(lacking)
    by_hand = how_to_install(lacking, release, arch)
    prefix = root_prefix(system)
    if prefix is None or family_of(release) != "debian" or system.which("apt-get") is None:
        raise MissingProgramError(sentence, hint=by_hand)
    if unattended(assume_yes, system.environ):
        return prefix
    packages = ", ".join(packages_for(lacking, release, arch))
    how = "with sudo" if prefix else "with apt-get"
    agreed = confirm(f"corral: {sentence}\nInstall {packages} {how} now?")
    if not agreed:
        instead = "" if agreed is False else "Add --yes to let corral install it, or: "
        raise MissingProgramError(sentence, hint=f"{instead}{by_hand}")
    return prefix


def _install(
    packages: Sequence[str], prefix: Sequence[str], system: System, report: Report, run: RunCommand
) -> None:
    names = ", ".join(packages)
    report(Phase(name="packages", message=f"installing {names}"))

    shown = -1

    def on_line(line: str) -> None:
        nonlocal shown
        percent = apt_percent(line)
        if percent is not None and percent != shown:
            shown = percent
            report(Phase(name="packages", message=f"installing {names}: {percent} %"))

    install = install_argv(packages, "debian") or []
    options = ["-o", "APT::Status-Fd=1", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]
    run_as_root(
        [["apt-get", "update"], [install[0], *options, *install[1:]]],
        prefix,
        system.environ,
        on_line=on_line,
        may_fail=("apt-get", "update"),  # one broken source of several is no reason to stop
        run=run,
    )


def apt_percent(line: str) -> int | None:
    """How far apt is, 0 to 100, from a line of its APT::Status-Fd output; None for other lines.

    Downloading counts for the first half, unpacking and setting up for the second. Format:
    "dlstatus:1:20.33:Retrieving ...", "pmstatus:bubblewrap:40.0:Unpacking ..." (apt's
    README.progress-reporting).
    """
    kind, _, rest = line.partition(":")
    if kind not in ("dlstatus", "pmstatus"):
        return None
    found = re.search(r":(\d{1,3}(?:\.\d+)?):", f":{rest.partition(':')[2]}")
    if found is None:
        return None
    share = min(float(found[1]), 100.0)
    return int(share / 2 + (50 if kind == "pmstatus" else 0))


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with open(paths.cache_dir() / "packages.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
