"""Which distribution this is, and what its AppArmor does."""

from __future__ import annotations

import msgspec

from .system import System
from .userns import RESTRICT

PROFILE_NAME = "corral-bwrap"
PROFILE_FILE = f"/etc/apparmor.d/{PROFILE_NAME}"


class OsRelease(msgspec.Struct, frozen=True):
    """From os-release(5). id: e.g. "debian". like: related ids, nearest first."""

    id: str = "linux"
    version_id: str = ""
    pretty: str = "Linux"
    codename: str = ""
    like: tuple[str, ...] = ()

    @property
    def family(self) -> tuple[str, ...]:
        """The distribution's id and those it is like, nearest first."""
        return (self.id, *self.like)


class AppArmor(msgspec.Struct, frozen=True):
    """enabled: the kernel uses it. restricts: unprivileged user namespaces need a profile.

    profile: corral's own profile is in /etc/apparmor.d.
    """

    enabled: bool
    restricts: bool
    profile: bool


def find_os_release(system: System) -> OsRelease:
    """Read /etc/os-release, or /usr/lib/os-release."""
    text = system.read("/etc/os-release") or system.read("/usr/lib/os-release") or ""
    values = parse_os_release(text)
    identity = values.get("ID", "linux")
    return OsRelease(
        id=identity,
        version_id=values.get("VERSION_ID", ""),
        pretty=values.get("PRETTY_NAME", identity),
        codename=values.get("VERSION_CODENAME", ""),
        like=tuple(values.get("ID_LIKE", "").split()),
    )


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments of an os-release file; lines that are none are passed over."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.replace("_", "").isalnum():
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            values[key] = value[1:-1] if quoted else value
    return values


def find_apparmor(system: System) -> AppArmor:
    """What AppArmor is set to on this machine."""
    enabled = (system.read("/sys/module/apparmor/parameters/enabled") or "").strip() == "Y"
    return AppArmor(
        enabled=enabled,
        restricts=system.number(RESTRICT) == 1,
        profile=system.path(PROFILE_FILE).is_file(),
    )
