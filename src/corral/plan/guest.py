"""What the guest is told: the jail's tree, the synthetic files of /etc, the id maps. Pure."""

from __future__ import annotations

from ..host.facts import Facts
from ..host.layout import Layout
from ..spec import Spec
from . import network, trees
from .model import AGENT_UID_BASE, NOBODY

_SUB_IDS_BASE = 100_000  # agent n's further ids: 100000*n and up, for root's jails only
_SUB_IDS = 65_533


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


def jail_tree(
    spec: Spec, layout: Layout, identity: Identity, *, home: int = 0, tmp: int = 0
) -> list[list[str | int]]:
    """What is mounted in the jail, parents before children: steps of corral_guest.tree.

    The home and /var/tmp are folders of the system's tree where that is kept on a disk. home, tmp:
    bytes that may be kept there and in /tmp and its like; 0: the kernel's default.
    """
    steps: list[list[str | int]] = [
        ["tmpfs", "/tmp", 0o1777, tmp],  # noqa: S108 - the jail's own
        ["tmpfs", "/dev/shm", 0o1777, tmp],  # noqa: S108
        ["tmpfs", "/run", 0o755, tmp],
    ]
    own = [("/var/tmp", 0o1777, tmp)]  # noqa: S108
    if identity.home != "/":  # where it is, as for users of containers, it must hide nothing
        own.append((identity.home, 0o700, home))
    for path, mode, size in own:
        steps.append(["folder", path, mode] if spec.machine.disk else ["tmpfs", path, mode, size])
    parts = [(path, "export") for path in trees.writable_parts(spec, layout)]
    parts += [(target, "toolbox") for _source, target in trees.read_only_parts(spec)]
    parts.sort(key=lambda part: part[0].count("/"))
    for path, kind in parts:
        steps.append([kind, path])
    return steps


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
