"""Profiles in the JSON format of Docker and the OCI runtime specification: read, checked, written.

Pure. Sources: the OCI's config-linux.md (section Seccomp) and, for what Docker adds to it
(archMap, includes, excludes, comment), moby's profiles/seccomp/seccomp.go. What corral cannot do
(TRACE, NOTIFY, a listener, most flags) is refused rather than left out.
"""

from __future__ import annotations

import json
import textwrap
from typing import Literal

import msgspec

from ...errors import ConfigError

Action = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_LOG",
    "SCMP_ACT_ALLOW",
]
Operator = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]

MAX_SIZE = 1 << 20  # bytes of a profile's text; Docker's default has 17,000
MAX_RULES = 4096
EPERM = 1
_WIDTH = 92


class _Table(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    pass


class Argument(_Table, frozen=True, kw_only=True):
    """A condition on one argument, as 64 bits. MASKED_EQ: (argument & value) == valueTwo."""

    index: int
    value: int
    valueTwo: int = 0
    op: Operator


class Only(_Table, frozen=True, kw_only=True):
    """When a rule counts (includes) or does not (excludes); Docker's."""

    caps: tuple[str, ...] | None = None
    arches: tuple[str, ...] | None = None
    minKernel: str | None = None


class Rule(_Table, frozen=True, kw_only=True):
    """What happens to calls of these names, when all conditions on arguments hold."""

    comment: str = ""
    name: str = ""
    names: tuple[str, ...] = ()
    action: Action
    errnoRet: int | None = None
    args: tuple[Argument, ...] | None = None
    includes: Only | None = None
    excludes: Only | None = None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Its names; an old profile has one in `name`."""
        return (self.name, *self.names) if self.name else self.names


class ArchMap(_Table, frozen=True, kw_only=True):
    """An architecture and those whose programs it runs, too; Docker's."""

    architecture: str
    subArchitectures: tuple[str, ...] | None = None


class Profile(_Table, frozen=True, kw_only=True):
    """A whole profile."""

    defaultAction: Action
    defaultErrnoRet: int | None = None
    architectures: tuple[str, ...] | None = None
    archMap: tuple[ArchMap, ...] | None = None
    flags: tuple[Literal["SECCOMP_FILTER_FLAG_TSYNC"], ...] | None = None
    syscalls: tuple[Rule, ...] | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its rules."""
        return self.syscalls or ()


def parse(text: bytes, name: str) -> Profile:
    """A profile from its JSON. name: for messages. Raises ConfigError."""
    if len(text) > MAX_SIZE:
        raise ConfigError(f"the seccomp profile {name} is larger than {MAX_SIZE >> 20} MiB.")
    try:
        profile = msgspec.json.decode(text, type=Profile)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"the seccomp profile {name} is not one that corral can keep to: {error}.",
            hint="docs/seccomp.md has the format: Docker's, without TRACE, NOTIFY and listeners.",
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(
            f"the seccomp profile {name} is not JSON: {error}.",
            hint="`corral seccomp record -- CMD` writes one.",
        ) from error
    _check(profile, name)
    return profile


def _check(profile: Profile, name: str) -> None:
    if len(profile.rules) > MAX_RULES:
        raise ConfigError(f"the seccomp profile {name} has more than {MAX_RULES} rules.")
    errnos = [profile.defaultErrnoRet, *(rule.errnoRet for rule in profile.rules)]
    if any(number is not None and not 0 <= number < 4096 for number in errnos):
        raise ConfigError(f"the seccomp profile {name} has an errno that is none.")
    for number, rule in enumerate(profile.rules, 1):
        if not rule.all_names:
            raise ConfigError(f"the seccomp profile {name}: rule {number} names no call.")
        for argument in rule.args or ():
            values = (argument.value, argument.valueTwo)
            if not 0 <= argument.index <= 5 or any(not 0 <= v < 1 << 64 for v in values):
                raise ConfigError(
                    f"the seccomp profile {name}: rule {number} has a condition on an argument "
                    "that no call has."
                )


def dump(profile: Profile) -> str:
    """The profile as JSON, a short rule in one line."""
    lines = ["{"]
    plain = msgspec.to_builtins(profile)
    rules = plain.pop("syscalls", [])
    lines += [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in plain.items()]
    lines.append('  "syscalls": [')
    for index, rule in enumerate(rules):
        text = json.dumps(rule)
        if len(text) > _WIDTH:
            text = _long(rule)
        lines.append("    " + text + ("," if index < len(rules) - 1 else ""))
    return "\n".join([*lines, "  ]", "}", ""])


def _long(rule: dict[str, object]) -> str:
    parts = []
    for key, value in rule.items():
        text = json.dumps(value)
        if isinstance(value, list | tuple) and key == "names":
            words = textwrap.wrap(
                text[1:-1], _WIDTH, break_long_words=False, break_on_hyphens=False
            )
            text = "[\n        " + "\n        ".join(words) + "\n      ]"
        parts.append(f"      {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n    }"
