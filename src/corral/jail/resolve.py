"""A jail on this host, now: its paths found, what it denies left out, its variables read."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from ..errors import ConfigError
from ..host.users import User
from ..proc.bwrap import Folder, Seal, Step, Symlink
from . import beneath
from .denials import Denials
from .model import Denied, Expanded, HostBind, Jail, Limits, Link, Seccomp, Source, Tmpfs
from .mount import Mount

MAX_STEPS = 2048  # mounts and links of one jail: bubblewrap's time grows with their square
_USUAL = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
_MOST_LINKS = 40  # followed for one path, as the kernel's limit (MAXSYMLINKS in linux/namei.h)
_OWN = ("/proc", "/dev")
_NAME = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Resolved(Struct, frozen=True, kw_only=True):
    """What a renderer needs. tree: in order. files: (path, content), made of memory.

    variables: the whole environment. warnings: what the user should know of it.
    """

    tree: tuple[Step, ...]
    files: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, str], ...]
    cwd: str
    hostname: str
    network: bool
    session: bool
    seccomp: tuple[Seccomp, ...]
    limits: Limits
    warnings: tuple[str, ...] = ()


_OWN_TMP = Mount(target="/tmp", real=None)  # noqa: S108


class Words:
    """What ~ and $NAME mean."""

    def __init__(self, home: str, cwd: str, environ: Mapping[str, str]) -> None:
        self._home = home
        self._variables = {**environ, "HOME": home, "PWD": cwd}
        self.cwd = cwd

    def plain(self, source: Source) -> str:
        """The text of a path or value."""
        if isinstance(source, str):
            return source
        text = source.text
        if text == "~" or text.startswith("~/"):
            text = self._home + text[1:]
        return _NAME.sub(self._value, text)

    def _value(self, found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if not self._variables.get(name):
            raise ConfigError(
                f"a path of the jail has ${name}, which is not set.",
                hint="Set it, or name the path.",
            )
        return self._variables[name]

    def path(self, source: Source) -> str:
        """An absolute path, as named. Raises ConfigError."""
        text = self.plain(source)
        if not text.startswith("/") or "\0" in text or "\n" in text:
            raise ConfigError(f"“{text[:80]}” is not an absolute path.", hint="Write it in full.")
        return text if ".." in text.split("/") else os.path.normpath(text).replace("//", "/")


def resolve(jail: Jail, user: User, cwd: str, environ: Mapping[str, str]) -> Resolved:
    """Look everything up. cwd: the folder that the user stands in. Raises ConfigError."""
    words = Words(user.home, cwd, environ)
    mounts = _mounts(jail, words)
    links = [part for part in jail.parts if isinstance(part, Link)]
    denied = [words.path(part.path) for part in jail.parts if isinstance(part, Denied)]
    denials = Denials([(path, _followed(path, links)) for path in denied], mounts)
    tree: list[Step] = []
    for mount in mounts:
        if not denials.hides(mount):
            _check_place(mount, mounts)
            if mount != _OWN_TMP:  # bubblewrap's command line has it already
                tree += denials.steps(mount)
    tree = [*_folders(mounts), *tree]
    tree += [Symlink(link.text, link.path) for link in links if link.path not in denied]
    if len(tree) > MAX_STEPS:
        raise ConfigError(
            f"the jail has {len(tree)} mounts, and {MAX_STEPS} are the most.",
            hint="Denying a path makes each of its neighbours a mount: deny a folder as a whole.",
        )
    files = _passwd(user) if jail.passwd else ()
    start = words.cwd if jail.cwd == "mounted" else words.path(jail.cwd or "/")
    return Resolved(
        tree=(*tree, Seal("/")),
        files=files,
        variables=_variables(jail, user, words, environ, start, mounts),
        cwd=start,
        hostname=jail.hostname,
        network=jail.network,
        session=jail.session,
        seccomp=jail.seccomp or (Seccomp("default"),),
        limits=jail.limits,
        warnings=tuple(
            f"{path} is denied, and no mount of the jail could have it." for path in denials.idle
        ),
    )


def _followed(path: str, links: Sequence[Link]) -> str:
    """The path with the jail's own links followed (/bin, say, which leads to usr/bin)."""
    for _time in range(_MOST_LINKS):
        link = next((link for link in links if _within_any(path, (link.path,))), None)
        if link is None:
            return path
        to = posixpath.join(posixpath.dirname(link.path), link.text)
        path = posixpath.normpath(to + path[len(link.path) :])
    raise ConfigError(f"{path} is denied, and the jail's links lead to it in circles.")


def _mounts(jail: Jail, words: Words) -> list[Mount]:
    """Parents first; of two at one place the later."""
    found = {_OWN_TMP.target: _OWN_TMP}
    for part in jail.parts:
        if isinstance(part, Tmpfs):
            target = words.path(part.path)
            mount = Mount(target=target, real=None, size=part.size, mode=part.mode)
        elif isinstance(part, HostBind):
            named = words.path(part.source)
            at = beneath.locate(named, part.beneath)
            if at is None:
                if part.optional:
                    continue
                way = "rw" if part.writable else "ro"
                raise ConfigError(
                    f"{named} does not exist.",
                    hint=f"Leave it out, or use try_{way}_bind (--try-{way}-bind).",
                )
            target = part.target or named
            mount = Mount(target=target, real=at.real, folder=at.folder, writable=part.writable)
        else:
            continue
        if target == "/" or ".." in target.split("/") or _within_any(target, _OWN):
            raise ConfigError(
                f"nothing can be mounted at {target} in a jail.",
                hint="Name folders below /; /proc and /dev are the jail's own.",
            )
        found.pop(target, None)
        found[target] = mount
    return sorted(found.values(), key=lambda mount: mount.target.count("/"))


def _folders(mounts: Sequence[Mount]) -> list[Step]:
    """The folders above mounts, which bubblewrap would otherwise make for their owner only."""
    found: dict[str, None] = {}
    places = {mount.target for mount in mounts}
    for target in sorted(places):
        parts = target.split("/")[1:-1]
        for count in range(1, len(parts) + 1):
            folder = "/" + "/".join(parts[:count])
            if _within_any(folder, tuple(places)):
                break
            found[folder] = None
    return [Folder(folder) for folder in (*found, *(() if "/etc" in found else ("/etc",)))]


def _within_any(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _check_place(mount: Mount, mounts: Sequence[Mount]) -> None:
    """A mount in a folder of the host needs a place there: bubblewrap would make it, on the host,

    and follow links to it, which whoever can write in that folder chooses.
    """
    above = [m for m in mounts if m is not mount and mount.target.startswith(m.target + "/")]
    if not above:
        return
    parent = max(above, key=lambda m: len(m.target))
    if parent.real is None:
        return
    inside = mount.target[len(parent.target) + 1 :]
    found = beneath.without_links(parent.real, inside) if parent.folder else None
    if found is None or found != mount.folder:
        kind = "folder" if mount.folder else "file"
        raise ConfigError(
            f"{mount.target} cannot be mounted: in {parent.real} there is no such {kind}, or "
            "a link leads to it.",
            hint=f"Make an empty {kind} there, or mount it elsewhere.",
        )


def _passwd(user: User) -> tuple[tuple[str, str], ...]:
    """As jail.nix's fake-passwd: the user, root, nobody; no other account of the host's."""
    passwd = ["root:x:0:0:root:/root:/bin/sh"]
    group = ["root:x:0:", "tty:x:5:"]
    if user.uid:
        passwd.append(f"{user.name}:x:{user.uid}:{user.gid}::{user.home}:/bin/sh")
        group.append(f"{user.group}:x:{user.gid}:")
    else:
        passwd[0] = f"root:x:0:0:root:{user.home}:/bin/sh"
    passwd.append("nobody:x:65534:65534:nobody:/nonexistent:/bin/false")
    group.append("nogroup:x:65534:")
    return (
        ("/etc/passwd", "\n".join([*passwd, ""])),
        ("/etc/group", "\n".join([*group, ""])),
    )


def _variables(
    jail: Jail,
    user: User,
    words: Words,
    environ: Mapping[str, str],
    start: str,
    mounts: Sequence[Mount],
) -> tuple[tuple[str, str], ...]:
    tools = [words.path(folder) for folder in jail.path]
    visible = [mount.target for mount in mounts if mount.real is not None]
    theirs = [f for f in environ.get("PATH", "").split(":") if _within_any(f, visible)]
    path = [f for tool in tools for f in (f"{tool}/bin", tool)] + theirs + list(_USUAL)
    found = {
        "HOME": user.home,
        "USER": user.name,
        "LOGNAME": user.name,
        "PATH": ":".join(dict.fromkeys(path)),
        "PWD": start,
        "CORRAL": "jail",
    }
    for variable in jail.variables:
        if variable.value is not None:
            found[variable.name] = words.plain(variable.value)
        elif variable.name in environ:
            found[variable.name] = environ[variable.name]
        elif variable.needed:
            raise ConfigError(
                f"the variable {variable.name} is not set.",
                hint="Set it, or use try_fwd_env (--try-fwd-env).",
            )
    if any("\0" in value for value in found.values()):
        raise ConfigError("a variable has a NUL byte.")
    return tuple(found.items())


__all__ = ["Expanded", "Resolved", "resolve"]
