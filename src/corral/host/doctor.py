"""`corral doctor`: what this machine gives, what is missing, and mending what can be mended."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

from .. import paths
from ..errors import CorralError, HostError
from ..events import Phase, Report
from . import apparmor, checks, doors
from .checks import Check
from .consent import Confirm, ask_on_terminal, unattended
from .facts import Facts, Need, measure
from .limits import available_memory
from .provision import ensure_programs
from .root import RunCommand, root_prefix, run_as_root, run_lines
from .system import System


def examine(system: System | None = None) -> tuple[Facts, list[Check]]:
    """Measure this machine afresh and judge it."""
    system = system or System()
    facts = measure(need=Need(fresh=True), system=system)
    return facts, judge(facts, system)


def judge(facts: Facts, system: System) -> list[Check]:
    """All checks, in the order in which a person would mend things."""
    has_apt = all(system.which(name) for name in ("apt-get", "dpkg-deb"))
    can_fetch = has_apt and facts.can_fetch
    return [
        checks.check_python(sys.version_info[:3], str(facts.python)),
        checks.check_qemu(facts),
        checks.check_bwrap(facts),
        checks.check_user_namespaces(facts),
        checks.check_apparmor(facts, outdated=apparmor.outdated(system)),
        checks.check_virtiofsd(facts, can_fetch=can_fetch),
        checks.check_mke2fs(facts),
        checks.check_kernel(readable_kernel(system), can_fetch=has_apt),
        checks.check_kvm(facts),
        checks.check_vsock(facts, can_fetch=can_fetch),
        checks.check_checkpoints(facts, can_fetch=can_fetch),
        doors.check_network(),
        doors.check_certificates(doors.bundle(system)),
        doors.check_secrets(),
        doors.check_keyring(),
        checks.check_tmux(facts, doors.installed_version("libtmux")),
        checks.check_memory(facts.memory, min(available_memory(system), facts.memory)),
        checks.check_cpus(facts.cpus),
        checks.check_limits(facts),
        _folder("cache folder", _check_cache),
        _folder("state folder", _check_state),
        _folder("run folder", lambda: _check_run(system)),
    ]


def readable_kernel(system: System) -> str | None:
    """The running kernel's image, when it and its modules can be read; else None."""
    release = (system.read("/proc/sys/kernel/osrelease") or "").strip()
    nixos = "/run/booted-system/kernel"
    images = (f"/boot/vmlinuz-{release}", f"/usr/lib/modules/{release}/vmlinuz", nixos)
    folders = (f"/lib/modules/{release}", f"/usr/lib/modules/{release}")
    modules = (*folders, f"/run/booted-system/kernel-modules/lib/modules/{release}")
    if not release or not any(_readable(system, f"{name}/modules.dep") for name in modules):
        return None
    return next((image for image in images if _readable(system, image)), None)


def failed(found: list[Check]) -> bool:
    """Whether doctor's exit status is 1."""
    return any(check.status == "fail" for check in found)


def apply_fixes(
    facts: Facts,
    found: list[Check],
    *,
    assume_yes: bool,
    report: Report,
    confirm: Confirm = ask_on_terminal,
    system: System | None = None,
    run: RunCommand = run_lines,
) -> bool:
    """Mend what can be mended; True when something was done. The caller examines again.

    A user who says no keeps the machine as it is. Raises HostError when a program is refused,
    when there is no way to become root (the hint is what root must run), or when a step fails.
    """
    system = system or System()
    fixes = [check.fix for check in found if check.fix is not None]
    programs = tuple(
        dict.fromkeys(name for fix in fixes if fix.kind == "packages" for name in fix.programs)
    )
    done = False
    if programs:
        facts = ensure_programs(
            facts,
            programs,
            assume_yes=assume_yes,
            report=report,
            confirm=confirm,
            system=system,
            run=run,
        )
        done = True
    if any(fix.kind == "apparmor" for fix in fixes) or apparmor.wanted(facts):
        done |= install_profile(
            assume_yes=assume_yes, report=report, confirm=confirm, system=system, run=run
        )
    return done


def install_profile(
    *,
    assume_yes: bool,
    report: Report,
    confirm: Confirm,
    system: System,
    run: RunCommand = run_lines,
) -> bool:
    """Install the AppArmor profile and the copy of bubblewrap; False when the user says no."""
    commands = apparmor.install_commands(system)
    if not commands:
        raise HostError("there is no bubblewrap to copy.", hint="Install bubblewrap first.")
    by_hand = "As root: " + " && ".join(" ".join(command) for command in commands)
    prefix = root_prefix(system)
    if prefix is None:
        raise HostError(
            "the AppArmor profile can only be installed by root, and there is no sudo for you.",
            hint=by_hand,
        )
    if not unattended(assume_yes, system.environ):
        agreed = confirm(
            "corral: AppArmor keeps bubblewrap from working.\nInstall the profile corral-bwrap, "
            "which lets a copy of bubblewrap of corral's own use user namespaces?"
        )
        if agreed is None:
            raise HostError(
                "nobody can be asked whether to install the AppArmor profile.",
                hint=f"Add --yes to let corral do it, or: {by_hand}",
            )
        if not agreed:
            return False
    report(Phase(name="packages", message="installing the AppArmor profile corral-bwrap"))
    run_as_root(commands, prefix, system.environ, on_line=lambda _line: None, run=run)
    return True


def _folder(name: str, check: Callable[[], Check]) -> Check:
    """A check of one of corral's own folders, whose absence is a finding and no failure of ours."""
    try:
        return check()
    except CorralError as error:
        return Check(name, "fail", error.message.removesuffix("."), error.hint)


def _check_cache() -> Check:
    folder = paths.cache_dir()
    _must_be_writable(str(folder), "CORRAL_CACHE_DIR")
    return checks.check_cache(str(folder), shutil.disk_usage(folder).free)


def _check_state() -> Check:
    folder = paths.state_dir()
    _must_be_writable(str(folder), "CORRAL_STATE_DIR")
    return Check("state folder", "ok", str(folder))


def _check_run(system: System) -> Check:
    used = str(paths.run_root())
    return checks.check_runtime_dir(system.environ.get("XDG_RUNTIME_DIR"), used)


def _must_be_writable(folder: str, variable: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise HostError(
            f"{folder} is not writable.", hint=f"Make it so, or set {variable} to another folder."
        )


def _readable(system: System, file: str) -> bool:
    return os.access(system.path(file), os.R_OK)
