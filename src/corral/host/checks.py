"""The checks of `corral doctor`: pure judgements of facts, one function each."""

from __future__ import annotations

from typing import Literal

import msgspec

from .. import extras
from .facts import Facts
from .packages import how_to_install
from .programs import CHECKPOINT_QEMU, CHECKPOINT_VIRTIOFSD, PRIVATE_BWRAP, parse_version

Status = Literal["ok", "warn", "fail"]
FixKind = Literal["packages", "apparmor"]

MIB = 1 << 20
GIB = 1 << 30
PYTHON_NEEDED = (3, 11)
QEMU_NEEDED = (7, 2)  # the oldest that corral is tested with
BWRAP_NEEDED = (0, 5)  # --perms and --clearenv came with 0.5.0 (its NEWS.md)
MEMORY_NEEDED = 768 * MIB  # a guest of 512 MiB and its helpers
MEMORY_WANTED = 2 * GIB
DISK_NEEDED = 512 * MIB  # a kernel package, unpacked, and a base image
DISK_WANTED = 2 * GIB


class Fix(msgspec.Struct, frozen=True):
    """What `doctor --fix` can do. programs: to install, keys of packages.PROGRAMS."""

    kind: FixKind
    title: str
    programs: tuple[str, ...] = ()


class Check(msgspec.Struct, frozen=True):
    """One line of doctor. finding: what is. hint: the next step, where there is one."""

    name: str
    status: Status
    finding: str
    hint: str | None = None
    fix: Fix | None = None


def check_python(version: tuple[int, ...], path: str) -> Check:
    """The interpreter that also becomes the guest's."""
    finding = f"{'.'.join(map(str, version[:3]))} ({path})"
    if version[:2] < PYTHON_NEEDED:
        return Check("python", "fail", finding, "corral needs Python 3.11 or later.")
    return Check("python", "ok", finding)


def check_qemu(facts: Facts) -> Check:
    """QEMU, not older than tested."""
    if facts.qemu is None:
        return _missing("qemu", facts)
    finding = f"{facts.qemu.version} ({facts.qemu.argv[-1]})"
    if parse_version(facts.qemu.version) < QEMU_NEEDED:
        return Check(
            "qemu",
            "fail",
            finding,
            "corral needs QEMU 7.2 or later; a newer release of your distribution has it.",
        )
    return Check("qemu", "ok", finding)


def check_bwrap(facts: Facts) -> Check:
    """bubblewrap, and whether it has the options that are used."""
    if facts.bwrap is None:
        return _missing("bwrap", facts)
    finding = f"{facts.bwrap.version} ({facts.bwrap.argv[-1]})"
    if parse_version(facts.bwrap.version) < BWRAP_NEEDED:
        return Check("bubblewrap", "fail", finding, "corral needs bubblewrap 0.5 or later.")
    return Check("bubblewrap", "ok", finding)


def check_virtiofsd(facts: Facts, *, can_fetch: bool) -> Check:
    """The daemon that shares folders. can_fetch: it can be had from Debian."""
    found = facts.virtiofsd
    if found is None:
        state = "not installed"
    else:
        dialect = "written in Rust" if found.dialect == "rust" else "QEMU's, written in C"
        version = found.program.version or "unknown version"
        state = f"{version}, {dialect} ({found.program.argv[-1]})"
        if facts.own_virtiofsd is not None:
            return Check("virtiofsd", "ok", state)
        state += ", which serves root only"
    if can_fetch:
        return Check("virtiofsd", "ok", f"{state}; Debian's is fetched into the cache when needed")
    lacking = _missing("virtiofsd", facts)
    return Check(
        lacking.name,
        "warn",
        f"{state}; folders are shared over 9p, which is slower, where the kernel has it",
        lacking.hint,
        lacking.fix,
    )


def check_mke2fs(facts: Facts) -> Check:
    """What makes the file system of a disk; only `--disk` needs it."""
    if facts.mke2fs is not None:
        return Check("disk", "ok", f"made by QEMU and {facts.mke2fs.argv[-1]}")
    lacking = _missing("mke2fs", facts)
    return Check(
        "disk", "warn", "mke2fs is not installed; --disk needs it", lacking.hint, lacking.fix
    )


def check_tmux(facts: Facts, libtmux: str | None) -> Check:
    """What `corral tmux` needs, and nothing else. libtmux: its version, if it is installed."""
    if facts.tmux is None:
        lacking = _missing("tmux", facts)
        finding = "tmux is not installed; `corral tmux` needs it"
        return Check("tmux", "warn", finding, lacking.hint, lacking.fix)
    if libtmux is None:
        finding = f"{facts.tmux.argv[-1]}; for `corral tmux`: {extras.install('tmux')}"
        return Check("tmux", "ok", finding)
    return Check("tmux", "ok", f"{facts.tmux.argv[-1]}, libtmux {libtmux}")


def check_kernel(readable: str | None, *, can_fetch: bool) -> Check:
    """The guest's kernel. readable: the host's kernel image, where it and its modules are."""
    if readable is not None:
        return Check("guest kernel", "ok", f"this machine's own ({readable})")
    if can_fetch:
        return Check(
            "guest kernel", "ok", "the distribution's package, downloaded into the cache once"
        )
    return Check(
        "guest kernel",
        "fail",
        "this machine's kernel image or modules are not readable, and there is no apt-get to "
        "download one with",
        "Make /boot/vmlinuz-* readable, or name a kernel: machine.kernel in corral.toml.",
    )


def check_kvm(facts: Facts) -> Check:
    """Hardware virtualization; without it everything works, only slower."""
    state, reason = facts.kvm.state, facts.kvm.reason.removesuffix(".")
    if state == "works":
        return Check("kvm", "ok", reason)
    hints = {
        "absent": "TCG is used, which is slower. Where the processor can: load kvm_intel or "
        "kvm_amd, or switch on nested virtualization for this machine.",
        "denied": f"TCG is used, which is slower. As root: usermod -aG kvm {facts.user.name}; "
        "then log in again.",
        "emulates": "TCG is used. A machine with nested virtualization in hardware would be "
        "faster.",
        "error": "TCG is used, which is slower.",
        "unmeasured": None,
    }
    return Check("kvm", "warn", reason, hints[state])


def check_user_namespaces(facts: Facts) -> Check:
    """Without them nothing can be confined, so nothing starts."""
    found = facts.user_namespaces
    finding = found.reason.removesuffix(".")
    if found.ok:
        return Check("user namespaces", "ok", finding)
    fix = None
    if facts.bwrap is None:
        fix = Fix("packages", "install bubblewrap", ("bwrap",))
    return Check("user namespaces", "fail", finding, found.hint, fix)


def check_apparmor(facts: Facts, *, outdated: bool) -> Check:
    """Whether AppArmor stands in the way, and corral's profile out of it."""
    found = facts.apparmor
    install = Fix("apparmor", "install corral's AppArmor profile and its copy of bubblewrap")
    if not found.enabled:
        return Check("apparmor", "ok", "not in use on this machine")
    if outdated:
        return Check(
            "apparmor",
            "warn",
            f"{PRIVATE_BWRAP} is not the same as the system's bubblewrap any more",
            "Run `corral doctor --fix` to copy it again.",
            install,
        )
    if not found.restricts:
        return Check("apparmor", "ok", "does not restrict user namespaces")
    if facts.bwrap is not None and not facts.user_namespaces.ok:
        return Check(
            "apparmor",
            "fail",
            "user namespaces need a profile (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "Run `corral doctor --fix` to install the profile corral-bwrap.",
            install,
        )
    how = "with the profile corral-bwrap" if found.profile else "as you may without a profile"
    return Check("apparmor", "ok", f"restricts user namespaces; bubblewrap works, {how}")


def check_memory(total: int, available: int) -> Check:
    """Memory in bytes: what the machine has, and what is free to use now."""
    finding = f"{total / GIB:.1f} GiB, {available / GIB:.1f} GiB available"
    if available < MEMORY_NEEDED:
        return Check("memory", "fail", finding, "A guest needs 768 MiB: end other programs.")
    if available < MEMORY_WANTED:
        return Check("memory", "warn", finding, "A guest of 1 GiB will be a tight fit: --memory.")
    return Check("memory", "ok", finding)


def check_limits(facts: Facts) -> Check:
    """Whether limits on the host ([limits]) can be enforced."""
    groups = facts.cgroups
    if groups.mounted != "v2":
        kind = {"v1": "cgroup v1", "hybrid": "cgroup v1 and v2 mixed", "none": "no cgroups"}
        return Check("limits", "warn", f"{kind[groups.mounted]}: [limits] cannot be enforced", None)
    if groups.base is not None and groups.controllers:
        return Check("limits", "ok", f"a control group of its own: {' '.join(groups.controllers)}")
    if groups.manager and groups.systemd_run:
        of = "your" if groups.manager == "user" else "the system's"
        return Check("limits", "ok", f"by {of} systemd: {' '.join(groups.offers) or 'nothing'}")
    return Check(
        "limits",
        "warn",
        "no systemd runs for you, and no control group is yours: [limits] cannot be enforced",
        "Log in so that systemd runs for you, or run corral in a unit (`corral unit`).",
    )


def check_cpus(cpus: int) -> Check:
    """Processors this process may use."""
    return Check("cpus", "ok", "1 processor" if cpus == 1 else f"{cpus} processors")


def check_vsock(facts: Facts, *, can_fetch: bool) -> Check:
    """The second carrier; the first, virtio-serial, needs nothing of the host."""
    if facts.vhost_device_vsock is not None:
        return Check("vsock", "ok", f"vhost-device-vsock {facts.vhost_device_vsock.version}")
    if can_fetch:
        return Check(
            "vsock", "ok", "vhost-device-vsock is fetched into the cache for --carrier vsock"
        )
    return Check(
        "vsock",
        "warn",
        "vhost-device-vsock is not installed; virtio-serial is used",
        "For --carrier vsock, install vhost-device-vsock.",
    )


def check_checkpoints(facts: Facts, *, can_fetch: bool) -> Check:
    """What saves a sandbox while it runs; nothing else needs that."""
    if facts.checkpoint_qemu is not None and facts.checkpoint_virtiofsd is not None:
        return Check("checkpoints", "ok", "QEMU and virtiofsd are new enough")
    if can_fetch:
        return Check(
            "checkpoints",
            "ok",
            "newer QEMU and virtiofsd are fetched into the cache for --checkpoints",
        )
    return Check(
        "checkpoints",
        "warn",
        "QEMU or virtiofsd is too old to save a sandbox while it runs",
        f"--checkpoints needs QEMU {CHECKPOINT_QEMU[0]} and Rust's virtiofsd "
        f"{'.'.join(map(str, CHECKPOINT_VIRTIOFSD))}.",
    )


def check_cache(folder: str, free: int) -> Check:
    """The cache folder, which is writable if it is here. free: bytes."""
    finding = f"{folder}, {free / GIB:.1f} GiB free"
    hint = "Free some space (`corral gc` clears caches), or set CORRAL_CACHE_DIR."
    if free < DISK_NEEDED:
        return Check("cache folder", "fail", finding, hint)
    return Check("cache folder", "warn" if free < DISK_WANTED else "ok", finding, hint)


def check_runtime_dir(configured: str | None, used: str) -> Check:
    """Where sockets of running sandboxes are."""
    if configured and not used.startswith(configured.rstrip("/") + "/"):
        return Check(
            "run folder",
            "warn",
            f"{used}, as XDG_RUNTIME_DIR ({configured}) is not writable for you",
            "Log in afresh rather than with su, or unset XDG_RUNTIME_DIR.",
        )
    return Check("run folder", "ok", used)


def _missing(program: str, facts: Facts) -> Check:
    label = {"bwrap": "bubblewrap", "mke2fs": "e2fsprogs"}.get(program, program)
    hint = how_to_install((program,), facts.os_release, facts.arch)
    return Check(
        label, "fail", "not installed", hint, Fix("packages", f"install {label}", (program,))
    )
