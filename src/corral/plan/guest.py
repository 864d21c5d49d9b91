"""What the guest is told: the jail's tree, the synthetic files of /etc, the id maps. Pure."""

from __future__ import annotations

import msgspec

from ..host.facts import Facts
from ..host.layout import Layout
from ..jail import guest as rendering
from ..jail.combinators import jail as made_of
from ..jail.combinators import limits as bounded
from ..jail.combinators import ro_bind, rw_bind, set_hostname, tmpfs
from ..spec import Limits, Spec
from . import network, trees
from .model import AGENT_UID_BASE, NOBODY

_SUB_IDS_BASE = 100_000  # agent n's further ids: 100000*n and up, for root's jails only
_SUB_IDS = 65_533
_NO_LIMITS = Limits()


class Identity:
    """Who commands are in a jail. root: whether they have root's capabilities there."""

    def __init__(self, spec: Spec, facts: Facts) -> None:
        user = facts.user
        self.root = spec.run.user == "root" or user.uid == 0
        self.name = "root" if self.root else user.name
        self.uid = 0 if self.root else user.uid
        self.gid = 0 if self.root else user.gid
        self.group = "root" if self.root else user.group
        self.home = "/root" if self.root and user.uid != 0 else user.home

    def map(self, number: int, inside: int) -> str:
        """The id map (user_namespaces(7)) of agent `number`, whose own id inside is `inside`.

        The toolbox's files, which belong to nobody in the guest, look like root's to an ordinary
        user. Root keeps 0 for itself and gets ids of its own for what it installs.
        """
        own = AGENT_UID_BASE + number
        if self.root:
            further = _SUB_IDS_BASE * number
            return f"0 {own} 1\n1 {further} {_SUB_IDS}\n{NOBODY} {NOBODY} 1\n"
        return f"0 {NOBODY} 1\n{inside} {own} 1\n"


def etc_files(spec: Spec, facts: Facts, identity: Identity) -> list[tuple[str, str, int]]:
    """(path, text, mode) of the files that corral writes instead of showing the host's."""
    name, home = identity.name, identity.home
    passwd = [
        "root:x:0:0:root:/root:/bin/sh",
        "nobody:x:65534:65534:nobody:/nonexistent:/bin/false",
    ]
    group = ["root:x:0:", "tty:x:5:", "nogroup:x:65534:"]
    if not identity.root:
        passwd.append(f"{name}:x:{identity.uid}:{identity.gid}:{name}:{home}:{SHELL}")
        group.append(f"{identity.group}:x:{identity.gid}:")
    else:
        passwd[0] = f"root:x:0:0:root:{home}:{SHELL}"
    hosts = f"127.0.0.1 localhost {spec.name}\n::1 localhost ip6-localhost ip6-loopback\n"
    return [
        ("/etc/passwd", "\n".join(passwd) + "\n", 0o644),
        ("/etc/group", "\n".join(group) + "\n", 0o644),
        ("/etc/hosts", hosts, 0o644),
        ("/etc/hostname", spec.name + "\n", 0o644),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
        ("/etc/resolv.conf", network.resolver(spec), 0o644),
        ("/etc/gitconfig", git_config(spec, facts), 0o644),
    ]


SHELL = "/bin/sh"


def git_config(spec: Spec, facts: Facts) -> str:
    """The user's name and email, and the workspace as safe (git-config(1), safe.directory)."""
    lines = ["[safe]", f"\tdirectory = {_quoted(spec.workspace.path)}"]
    user = facts.user
    if user.git_name or user.git_email:
        lines.append("[user]")
    if user.git_name:
        lines.append(f"\tname = {_quoted(user.git_name)}")
    if user.git_email:
        lines.append(f"\temail = {_quoted(user.git_email)}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def jail(
    spec: Spec,
    layout: Layout,
    identity: Identity,
    *,
    limits: Limits = _NO_LIMITS,
    home: int = 0,
    tmp: int = 0,
) -> rendering.GuestJail:
    """The jail of the spec's agent.

    The home and /var/tmp are folders of the system's tree where that is kept on a disk. home, tmp:
    bytes that may be kept there and in /tmp and its like; 0: the kernel's default.
    """
    exported = trees.writable_parts(spec, layout)
    kept = ["/var/tmp"]  # noqa: S108 - the jail's own
    memory = [
        tmpfs("/tmp", tmp, mode=0o1777),  # noqa: S108
        tmpfs("/dev/shm", tmp, mode=0o1777),  # noqa: S108
        tmpfs("/run", tmp),
        tmpfs("/var/tmp", tmp, mode=0o1777),  # noqa: S108
    ]
    if identity.home != "/":  # where it is, as for users of containers, it must hide nothing
        kept.append(identity.home)
        memory.append(tmpfs(identity.home, home, mode=0o700))
    made = made_of(
        set_hostname(spec.name),
        *memory,
        *(rw_bind(path) for path in exported),
        *(ro_bind(source, target) for source, target in trees.read_only_parts(spec)),
        bounded(memory=limits.memory, cpu=limits.cpu, pids=limits.pids),
    )
    rendered = rendering.render(made, exported=exported, kept=kept if spec.machine.disk else ())
    return msgspec.structs.replace(rendered, limits=[*rendered.limits, *_rates(limits)])


def _rates(limits: Limits) -> list[list[str]]:
    """The limit of reads and writes (io.max, cgroup-v2.rst), less the device: the guest's disk."""
    rates = (("rbps", limits.io_read), ("wbps", limits.io_write))
    text = " ".join(f"{key}={rate}" for key, rate in rates if rate)
    return [["io.max", text]] if text else []


def environment(
    spec: Spec, facts: Facts, identity: Identity, host: dict[str, str]
) -> list[tuple[str, str]]:
    """The environment of commands. host: the user's own environment, of which little is taken."""
    variables = {
        "HOME": identity.home,
        "USER": identity.name,
        "LOGNAME": identity.name,
        "SHELL": SHELL,
        "LANG": host.get("LANG", "C.UTF-8"),
        "PATH": search_path(spec, facts, host.get("PATH", "")),
        "CORRAL": "1",
    }
    variables |= {name: value for name, value in host.items() if name.startswith("LC_")}
    variables |= network.gateway_environment(spec.gateways)
    variables |= dict(spec.run.env)
    return list(variables.items())


def search_path(spec: Spec, facts: Facts, host: str) -> str:
    """The user's PATH as far as the guest has it, then the usual folders."""
    visible = (
        *("/usr", "/opt", "/nix/store", "/gnu/store", "/run/current-system", "/bin", "/sbin"),
        *(spec.workspace.path, *trees.tools(spec)),
        *(share.target for share in spec.shares if share.source == share.target),
    )
    folders = [
        folder for folder in host.split(":") if any(_is_below(folder, path) for path in visible)
    ]
    for tool in trees.tools(spec):
        if not any(_is_below(folder, tool) for folder in folders):
            folders += [f"{tool}/bin", tool]
    folders += ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return ":".join(dict.fromkeys(folders))


def _is_below(path: str, folder: str) -> bool:
    """Whether path is folder or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
