"""What jails are made of: functions from a jail to a jail, by the names that jail.nix has for them.

    jailed = jail(programs, mount_cwd, deny(noescape("$PWD/.env")), fwd_env("LANG"))

Each adds to what is there and takes nothing away, but for `deny`, which holds against all others.
Pure: paths are looked at when a jail is used (resolve.py). See docs/jail.md.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from ..errors import ConfigError
from ..spec.values import NAME_PATTERN, VARIABLE_NAME
from . import model
from .model import Denied, Expanded, HostBind, Jail, Part, Seccomp, Source, Tmpfs, Variable
from .seccomp.target import Mode

Combinator = Callable[[Jail], Jail]


def jail(*combinators: Combinator) -> Jail:
    """The jail that these make, one after the other, of one that holds nothing."""
    return compose(*combinators)(Jail())


def compose(*combinators: Combinator) -> Combinator:
    """One combinator that does what all of these do."""

    def composed(before: Jail) -> Jail:
        for combinator in combinators:
            before = combinator(before)
        return before

    return composed


def noescape(text: str) -> Expanded:
    """A path in which `~` at the start is the user's home and `$NAME` a variable of the user's.

    Any other path is taken as it is written. Links in either are followed, and never out of the
    folder that a bind is confined to.
    """
    return Expanded(text)


def _part(part: Part) -> Combinator:
    return lambda before: replace(before, parts=(*before.parts, part))


def ro_bind(source: Source, target: str | None = None, *, beneath: str = "/") -> Combinator:
    """The host's `source` at `target` (default: the same path), read-only."""
    return _part(HostBind(source=source, target=_absolute(target), beneath=beneath))


def rw_bind(source: Source, target: str | None = None, *, beneath: str = "/") -> Combinator:
    """The host's `source` at `target`, to be changed."""
    return _part(HostBind(source=source, target=_absolute(target), writable=True, beneath=beneath))


def try_ro_bind(source: Source, target: str | None = None, *, beneath: str = "/") -> Combinator:
    """As ro_bind; nothing where there is no `source`."""
    bind = HostBind(source=source, target=_absolute(target), optional=True, beneath=beneath)
    return _part(bind)


def try_rw_bind(source: Source, target: str | None = None, *, beneath: str = "/") -> Combinator:
    """As rw_bind; nothing where there is no `source`."""
    bind = HostBind(
        source=source, target=_absolute(target), writable=True, optional=True, beneath=beneath
    )
    return _part(bind)


def readonly(path: Source) -> Combinator:
    """A path of the host, read-only, where it is."""
    return ro_bind(path)


def readwrite(path: Source) -> Combinator:
    """A path of the host, to be changed, where it is."""
    return rw_bind(path)


def mount_cwd(before: Jail) -> Jail:
    """The folder that the user stands in, to be changed, where it is; commands start there."""
    if before.cwd == "mounted":
        return before
    return replace(rw_bind(Expanded("$PWD"))(before), cwd="mounted")


def tmpfs(path: Source, size: int | None = None, *, mode: int = 0o755) -> Combinator:
    """An empty folder in memory, of at most `size` bytes, with these permissions."""
    return _part(Tmpfs(path, size, mode))


def deny(path: Source) -> Combinator:
    """No such path in the jail, whether there is one on the host now, later, or never."""
    return _part(Denied(path))


def network(before: Jail) -> Jail:
    """The host's network, all of it, its loopback and abstract sockets included."""
    return replace(
        compose(*(try_ro_bind(f"/etc/{name}") for name in _RESOLVER))(before), network=True
    )


_RESOLVER = ("resolv.conf", "hosts", "nsswitch.conf", "services", "protocols", "ssl/certs", "pki")


def set_env(name: str, value: Source) -> Combinator:
    """A variable."""
    return _variable(Variable(name, value))


def fwd_env(name: str) -> Combinator:
    """The user's variable of that name, which must be set."""
    return _variable(Variable(name, None))


def try_fwd_env(name: str) -> Combinator:
    """The user's variable of that name, if it is set."""
    return _variable(Variable(name, None, needed=False))


def _variable(variable: Variable) -> Combinator:
    if not VARIABLE_NAME.fullmatch(variable.name):
        raise ConfigError(f"“{variable.name[:60]}” cannot be the name of a variable.")
    return lambda before: replace(before, variables=(*before.variables, variable))


def no_new_session(before: Jail) -> Jail:
    """Leave commands in the session of what starts them; job control then fails in shells."""
    return replace(before, session=False)


def add_seccomp(profile: str = "default", mode: Mode = "errno") -> Combinator:
    """A seccomp profile: default, none, or a file in Docker's format; several hold together."""
    return lambda before: replace(before, seccomp=(*before.seccomp, Seccomp(profile, mode)))


def add_tools(*folders: Source) -> Combinator:
    """Folders with programs, read-only, where they are; they and their bin come first in PATH."""

    def added(before: Jail) -> Jail:
        after = compose(*(ro_bind(folder) for folder in folders))(before)
        return replace(after, path=(*after.path, *folders))

    return added


def set_hostname(name: str) -> Combinator:
    """The host name in the jail."""
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"“{name[:80]}” is no host name: lower-case letters, digits and hyphens, at most 63."
        )
    return lambda before: replace(before, hostname=name)


def fake_passwd(before: Jail) -> Jail:
    """/etc/passwd and /etc/group with root, nobody and the user, and nobody else of the host's."""
    return replace(before, passwd=True)


def time_zone(name: str | None = None) -> Combinator:
    """A time zone by its name (Europe/Vienna); None: the host's."""
    if name is None:
        return compose(try_ro_bind("/etc/localtime"), try_fwd_env("TZ"))
    if name.startswith("/") or ".." in name.split("/"):
        raise ConfigError(f"“{name[:60]}” is no time zone.", hint="One is named Europe/Vienna.")
    return set_env("TZ", name)


def limits(
    *, memory: int | None = None, cpu: int | None = None, pids: int | None = None
) -> Combinator:
    """What all its processes together may use: bytes, percent of one processor, a number.

    For one that cannot be enforced, running the jail is an error.
    """
    return lambda before: replace(before, limits=model.Limits(memory, cpu, pids))


def chdir(path: Source) -> Combinator:
    """Where commands start."""
    return lambda before: replace(before, cwd=path)


def _absolute(target: str | None) -> str | None:
    if target is not None and (not target.startswith("/") or ".." in target.split("/")):
        raise ConfigError(
            f"“{target[:80]}” is no place in a jail.", hint="Write it in full, without “..”."
        )
    return target
