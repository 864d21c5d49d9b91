"""A kept sandbox as a systemd unit. Pure: values in, text out.

Syntax: systemd.syntax(7) for quoting, systemd.unit(5) for specifiers, systemd.service(5) for what
is special in command lines, systemd.resource-control(5) for limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from ..errors import PlanError
from ..plan.limits import properties
from ..spec import Spec
from ..spec.text import is_unicode, printable

Kind = Literal["user", "system"]

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_STOP_SECONDS = 60  # the commands' grace, the guest's last writes, and twice as much again
_START_SECONDS = 600  # a template that is built, a kernel that is fetched
# What hardens the keeper and everything below it, and leaves user namespaces, QEMU's own code
# (which it writes while it runs, under TCG) and setns(2) alone.
_HARDENING = (
    "NoNewPrivileges=yes",
    "UMask=0077",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "SystemCallArchitectures=native",
)


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Who starts the sandbox, and how. program: what runs corral. environ: variables it needs.

    runtime: XDG_RUNTIME_DIR, or "".
    """

    user: str
    uid: int
    program: tuple[str, ...]
    environ: Mapping[str, str]
    runtime: str


def unit_name(name: str) -> str:
    """The unit of the sandbox `name`."""
    return f"corral@{name}.service"


def render(name: str, spec: Spec, host: Host, kind: Kind) -> str:
    """The text of the unit file. Raises PlanError for a path that a unit cannot have."""
    sections = {
        "Unit": _unit(name, spec, host, kind),
        "Service": _service(name, spec, host, kind),
        "Install": [f"WantedBy={'default' if kind == 'user' else 'multi-user'}.target"],
    }
    text = [*_head(name, kind)]
    for title, lines in sections.items():
        text += ["", f"[{title}]", *lines]
    return "\n".join(text) + "\n"


def _head(name: str, kind: Kind) -> list[str]:
    unit = unit_name(name)
    if kind == "user":
        return [
            f"# Put this into ~/.config/systemd/user/{unit}; then:",
            f"#   systemctl --user daemon-reload && systemctl --user enable --now {unit}",
            "# To start at boot rather than when you log in: loginctl enable-linger",
        ]
    return [
        f"# Put this into /etc/systemd/system/{unit}; then, as root:",
        f"#   systemctl daemon-reload && systemctl enable --now {unit}",
    ]


def _unit(name: str, spec: Spec, host: Host, kind: Kind) -> list[str]:
    folders = [spec.workspace.path, *(share.source for share in spec.shares)]
    lines = [
        f"Description=corral sandbox {name} on {_shown(spec.workspace.path)}",
        f"RequiresMountsFor={' '.join(quote(folder) for folder in folders)}",
    ]
    if kind == "system" and host.runtime:
        runtime = f"user-runtime-dir@{host.uid}.service"
        lines += [f"Wants={runtime}", f"After={runtime}"]
    return lines


def _service(name: str, spec: Spec, host: Host, kind: Kind) -> list[str]:
    start = (*host.program, "start", name, "--foreground")
    lines = ["Type=notify", f"ExecStart={command_line(start)}"]
    if kind == "system":
        lines.append(f"User={host.user}")
        if host.runtime:
            lines.append(f"Environment={quote(f'XDG_RUNTIME_DIR={host.runtime}')}")
    lines += [f"Environment={quote(f'{key}={value}')}" for key, value in host.environ.items()]
    disk = quote(spec.workspace.path)
    return [
        *lines,
        "Restart=on-failure",
        "RestartSec=5",
        f"TimeoutStartSec={_START_SECONDS}",
        f"TimeoutStopSec={_STOP_SECONDS}",
        "KillMode=mixed",  # corral first, which ends the rest in order
        f"SyslogIdentifier=corral@{name}",
        "Delegate=yes",  # corral makes a group of its own below, for [limits]
        "OOMPolicy=kill",
        *properties(spec.limits, disk),
        *_HARDENING,
    ]


def command_line(words: Sequence[str]) -> str:
    """Words for ExecStart=: as `quote`, and `$` is no variable."""
    if not words[0].isprintable() or any(character in words[0] for character in "\"'\\"):
        words = ("/usr/bin/env", *words)  # the first word cannot have these, however quoted
    return " ".join(quote(word).replace("$", "$$") for word in words)


def quote(word: str) -> str:
    """One word as systemd reads it back; nothing in it is a specifier. Raises PlanError."""
    if not is_unicode(word) or "\0" in word:
        raise PlanError(
            f"{printable(word)} cannot be written into a unit: it is not UTF-8.",
            hint="Rename the folder.",
        )
    return word if _PLAIN.fullmatch(word) else f'"{_escaped(word)}"'


def _shown(text: str) -> str:
    """As in a description, which knows specifiers and no escapes."""
    return printable(text, 200).replace("%", "%%")


def _escaped(text: str) -> str:
    """C escapes for what is special between quotes and for control characters; `%` doubled."""
    found = []
    for character in text:
        if character in '"\\':
            found.append("\\" + character)
        elif character == "%":
            found.append("%%")
        elif ord(character) < 0x20 or ord(character) == 0x7F:
            found.append(f"\\x{ord(character):02x}")
        else:
            found.append(character)
    return "".join(found)
