"""Which package archives this host trusts: its apt sources, in both of their formats.

Source: sources.list(5). Pure: the caller reads the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEBIAN_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
DEBIAN_MIRROR = "http://deb.debian.org/debian"

_POCKETS = ("", "-updates", "-security")
_ROLLING = ("stable", "testing", "unstable", "sid")


@dataclass(frozen=True, slots=True)
class Archive:
    """One stanza. text: it as apt reads it, in the deb822 format, options and keys kept."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    text: str


def parse(name: str, content: str) -> list[Archive]:
    """The binary archives of one sources file, by the ending of its name (.sources or .list)."""
    return _deb822(content) if name.endswith(".sources") else _one_line(content)


def for_release(archives: list[Archive], codename: str) -> list[Archive]:
    """Those that hold this release's own packages: no backports, no third party's sections."""
    suites = {codename + pocket for pocket in _POCKETS} | set(_ROLLING)
    return [a for a in archives if suites & set(a.suites) and "main" in a.components]


def debian_mirrors(archives: list[Archive]) -> list[str]:
    """Where a Debian suite can be had, best first: this host's mirrors, then the common one."""
    found = [
        uri.rstrip("/")
        for archive in archives
        if "main" in archive.components
        for uri in archive.uris
        if uri.rstrip("/").endswith("/debian")
    ]
    return list(dict.fromkeys([*found, DEBIAN_MIRROR]))


def debian_suite(mirror: str, suite: str, keyring: str) -> Archive:
    """A Debian suite on that mirror, signed by the keys in `keyring`."""
    fields = {"URIs": mirror, "Suites": suite, "Components": "main", "Signed-By": keyring}
    return Archive((mirror,), (suite,), ("main",), _stanza(fields))


def _deb822(content: str) -> list[Archive]:
    archives = []
    lines = [line for line in content.splitlines() if not line.startswith("#")]
    for block in re.split(r"\n[ \t]*\n", "\n".join(lines)):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line  # a continuation, as in a key written out in full
            elif ":" in line:
                name, _, value = line.partition(":")
                name = _field_name(name)
                fields[name] = value.strip()
        if fields.get("Enabled", "yes").lower() in ("no", "false", "without", "off", "disable"):
            continue
        if "deb" in fields.get("Types", "").split():
            archives.append(_archive(fields))
    return archives


def _field_name(name: str) -> str:
    """The name as sources.list(5) writes it: apt does not mind its case."""
    known = ("Types", "URIs", "Suites", "Components", "Enabled", "Signed-By")
    return next((k for k in known if k.lower() == name.strip().lower()), name.strip())


def _one_line(content: str) -> list[Archive]:
    archives = []
    pattern = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)")
    for raw in content.splitlines():
        found = pattern.fullmatch(raw.partition("#")[0].strip())
        if found is None:
            continue
        suite, *components = found["rest"].split()
        fields = {"URIs": found["uri"], "Suites": suite, "Components": " ".join(components)}
        for option in (found["options"] or "").split():
            key, _, value = option.partition("=")
            fields[_OPTION_FIELDS.get(key.lower(), key)] = value.replace(",", " ")
        archives.append(_archive(fields))
    return archives


_OPTION_FIELDS = {
    "arch": "Architectures",
    "lang": "Languages",
    "target": "Targets",
    "signed-by": "Signed-By",
}


def _archive(fields: dict[str, str]) -> Archive:
    return Archive(
        tuple(fields.get("URIs", "").split()),
        tuple(fields.get("Suites", "").split()),
        tuple(fields.get("Components", "").split()),
        _stanza(fields),
    )


def _stanza(fields: dict[str, str]) -> str:
    """`Types: deb` always: source packages are not wanted. Trusted is left out: keys decide."""
    kept = {k: v for k, v in fields.items() if k.lower() not in ("types", "trusted", "enabled")}
    lines = ["Types: deb", *(f"{name}: {value}" for name, value in kept.items())]
    return "\n".join(lines) + "\n"
