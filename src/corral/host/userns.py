"""Can this user run bubblewrap in bubblewrap, which is how every sandbox's processes are confined?

The answer comes from doing it once. When it fails, the setting that forbids it is looked for, so
that the message names it.
"""

from __future__ import annotations

import msgspec

from .programs import Program
from .system import Answer, System

RESTRICT = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"  # Ubuntu 23.10 and later
CLONE = "/proc/sys/kernel/unprivileged_userns_clone"  # Debian's and Arch's patch
LIMIT = "/proc/sys/user/max_user_namespaces"
CAP_SYS_ADMIN = 1 << 21  # linux/capability.h
APPARMOR_FIX = "Run `corral doctor --fix` (it asks for root) to install corral's AppArmor profile."


class Finding(msgspec.Struct, frozen=True):
    """Whether something works. reason: one sentence. hint: the next step when it does not."""

    ok: bool
    reason: str
    hint: str | None = None


def trial_argv(bwrap: Program) -> list[str]:
    """The trial: one bwrap as around all of a sandbox, in it one as around one of its processes.

    The outer one shows the host's /proc: under the one that bwrap mounts for root, a further one
    is refused (mount_too_revealing in the kernel's fs/namespace.c). Nor does it keep capabilities:
    an inner bwrap of an ordinary user stops when it finds some.
    """
    return [
        *(*bwrap.argv, "--unshare-user", "--unshare-pid", "--die-with-parent"),
        *("--bind", "/", "/", "--"),
        *(*bwrap.argv, "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
        *("--uid", "2001", "--gid", "2001", "--die-with-parent", "--cap-add", "ALL"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--"),
        "true",
    ]


def try_namespaces(system: System, bwrap: Program) -> Finding:
    """Run the trial and explain its failure (about 20 ms)."""
    answer = system.answer(trial_argv(bwrap))
    if answer.status == 0:
        return Finding(True, "bubblewrap can make user namespaces, also nested.")
    return explain(system, bwrap, answer)


def explain(system: System, bwrap: Program, answer: Answer) -> Finding:
    """Why the trial failed: the settings known to forbid it, else what bubblewrap said."""
    said = answer.stderr.strip().splitlines()[-1:] or [f"exit status {answer.status}"]
    for finding in (
        _forbidden_by_sysctl(system),
        _forbidden_by_apparmor(system),
        _forbidden_by_container(system, answer.stderr),
        _forbidden_by_selinux(system),
    ):
        if finding is not None:
            return Finding(False, f"{finding.reason} ({said[0]})", finding.hint)
    return Finding(
        False,
        f"bubblewrap cannot make user namespaces, and no setting known to forbid it is set "
        f"({said[0]}).",
        f"Find out why this fails: {' '.join(trial_argv(bwrap))}",
    )


def _forbidden_by_sysctl(system: System) -> Finding | None:
    if system.number(LIMIT) == 0:
        return Finding(
            False,
            "user namespaces are switched off: user.max_user_namespaces is 0.",
            "As root: sysctl -w user.max_user_namespaces=15000, and the same in /etc/sysctl.d/.",
        )
    if system.number(CLONE) == 0 and system.uid != 0:
        return Finding(
            False,
            "user namespaces are for root only: kernel.unprivileged_userns_clone is 0.",
            "As root: sysctl -w kernel.unprivileged_userns_clone=1, and the same in "
            "/etc/sysctl.d/.",
        )
    return None


def _forbidden_by_apparmor(system: System) -> Finding | None:
    if system.number(RESTRICT) != 1:
        return None
    return Finding(
        False,
        "AppArmor keeps bubblewrap from using user namespaces: "
        "kernel.apparmor_restrict_unprivileged_userns is 1, and no profile named corral-bwrap "
        "allows it.",
        APPARMOR_FIX,
    )


def _forbidden_by_container(system: System, stderr: str) -> Finding | None:
    kind = container(system) or "of an unknown kind"
    masks = masked_proc(system.read("/proc/self/mountinfo") or "")
    if masks and "mount proc" in stderr:
        return Finding(
            False,
            f"this is a container ({kind}) that hides parts of /proc ({masks[0]} for one), so "
            "that no fresh one can be mounted.",
            "Start the container with --security-opt systempaths=unconfined (Docker) or "
            "--security-opt unmask=ALL (Podman).",
        )
    status = status_fields(system.read("/proc/self/status") or "")
    bounding = int(status.get("CapBnd", "") or "-1", 16)
    if status.get("Seccomp", "0") == "0" and bounding & CAP_SYS_ADMIN:
        return None
    return Finding(
        False,
        f"this is a container ({kind}) that may not make user namespaces: a seccomp filter or a "
        "missing CAP_SYS_ADMIN forbids it.",
        "Start the container with --security-opt seccomp=unconfined --security-opt "
        "apparmor=unconfined --security-opt systempaths=unconfined, or with --privileged.",
    )


def masked_proc(mountinfo: str) -> list[str]:
    """The mounts that cover parts of /proc (proc(5), mountinfo), as containers have them."""
    points = [line.split()[4] for line in mountinfo.splitlines() if len(line.split()) > 4]
    harmless = ("/proc/sys/fs/binfmt_misc",)
    return [point for point in points if point.startswith("/proc/") and point not in harmless]


def status_fields(text: str) -> dict[str, str]:
    """The fields of /proc/self/status."""
    return {
        key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def _forbidden_by_selinux(system: System) -> Finding | None:
    if system.number("/sys/fs/selinux/enforce") != 1:
        return None
    context = (system.read("/proc/self/attr/current") or "").strip("\0\n ")
    if not context or ":unconfined_t:" in context:
        return None
    return Finding(
        False,
        f"SELinux is enforcing and you run as {context}.",
        "See `ausearch -m avc -ts recent`; an unconfined user's session may make namespaces.",
    )


def container(system: System) -> str | None:
    """The kind of container this is, or None on a machine of its own."""
    if system.path("/run/.containerenv").exists():
        return "podman"
    if system.path("/.dockerenv").exists():
        return "docker"
    named = system.environ.get("container") or (system.read("/run/systemd/container") or "").strip()
    if named:
        return named
    cgroup = system.read("/proc/1/cgroup") or ""
    return next((word for word in ("docker", "kubepods", "lxc") if word in cgroup), None)


def settings_key(system: System, bwrap: Program) -> str:
    """A key for remembering a success: it changes with every setting that could forbid it."""
    binary = bwrap.argv[-1]
    try:
        status = system.path(binary).stat()
        file = f"{status.st_ino}:{status.st_mtime_ns}:{status.st_mode}"
    except OSError:
        file = "gone"
    numbers = [system.number(name) for name in (LIMIT, CLONE, RESTRICT)]
    confinement = (system.read("/proc/self/attr/current") or "").strip("\0\n ")
    try:
        namespace = str(system.path("/proc/self/ns/user").readlink())
    except OSError:
        namespace = ""
    return f"{system.uid}:{binary}:{file}:{numbers}:{confinement}:{namespace}"
