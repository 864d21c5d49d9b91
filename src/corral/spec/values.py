"""Values as named by people: paths, shares, variables, patterns. Each is read by one function.

The readers raise ConfigError; who calls them adds where the value came from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from msgspec import Struct

from ..errors import ConfigError
from . import masks
from .credentials import holds_credential, refuse_credential
from .sizes import format_duration, format_size
from .text import has_control, is_unicode, nearest, printable

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
USER_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


class Base(Struct, frozen=True):
    """What relative paths and ~ in a layer mean. All absolute paths.

    folder: relative paths start here. home: the user's. workspace: the folder being worked on.
    below: where the workspace is, relative to `folder`; "" when it is not beneath it.
    """

    folder: str
    home: str
    workspace: str
    below: str = ""


class NamedShare(Struct, frozen=True):
    """A share as named: source and target absolute, links in source not yet resolved."""

    source: str
    target: str
    writable: bool


class EnvVar(Struct, frozen=True):
    """A variable for the command. value: None to take it from the user's environment."""

    name: str
    value: str | None


def expand(value: object, base: Base) -> str:
    """An absolute path from a named one: ~ is the home, a relative one starts at base.folder."""
    path = _text(value, "a path")
    if not path or "\0" in path:
        raise ConfigError("the path is empty." if not path else "the path has a NUL byte.")
    if path == "~" or path.startswith("~/"):
        path = base.home + path[1:]
    elif path.startswith("~"):
        raise ConfigError(
            f"“{printable(path, 80)}”: only ~/ (your own home) is known.",
            hint="Write the path in full, or ./~name for a file of that name.",
        )
    joined = os.path.join(base.folder, path)  # noqa: PTH118 - text in, text out
    # "x/.." is not the parent of x where x is a link; only the file system can tell.
    return os.path.realpath(joined) if ".." in joined.split("/") else os.path.normpath(joined)


def parse_seccomp(value: object, base: Base) -> object:
    """A seccomp profile: `default`, `none`, or the path of a file."""
    return value if value in ("default", "none") else expand(value, base)


def parse_share(value: object, base: Base) -> NamedShare:
    """A share from `SRC[:DST][:ro|:rw]` or from a table; read-only unless it says otherwise."""
    if isinstance(value, Mapping):
        source, target, writable = value["source"], value.get("target"), value.get("writable")
    else:
        parts = _text(value, "a share").split(":")
        mode = parts.pop() if len(parts) > 1 and parts[-1] in ("ro", "rw") else "ro"
        if len(parts) > 2 or not all(parts):
            raise ConfigError(
                f"“{printable(str(value), 120)}” is not a share.",
                hint="Write SRC, SRC:DST or SRC:DST:rw; paths cannot have colons.",
            )
        source, target, writable = parts[0], parts[1] if len(parts) == 2 else None, mode == "rw"
    named = expand(source, base)
    if target is None:
        return NamedShare(named, named, bool(writable))
    target = _text(target, "a path")
    if not target.startswith(("/", "~/")):
        raise ConfigError(
            f"the target “{printable(target, 80)}” of a share is not an absolute path."
        )
    return NamedShare(named, os.path.normpath(expand(target, base)), bool(writable))


def parse_env(value: object, _base: Base) -> EnvVar:
    """`NAME=VALUE`, or `NAME` to take the value from the user's environment."""
    name, equals, content = _text(value, "a variable").partition("=")
    return variable(name, content if equals else None)


def variable(name: object, value: str | None) -> EnvVar:
    """A checked variable; value None: taken from the user's environment."""
    name = _text(name, "a name")
    refuse_credential(name, "the name of a variable")
    if not VARIABLE_NAME.fullmatch(name):
        raise ConfigError(
            f"“{printable(name, 60)}” is not a name for an environment variable.",
            hint="Letters, digits and _ are possible, not starting with a digit.",
        )
    if value is not None and "\0" in value:
        raise ConfigError(f"the value of {name} has a NUL byte.")
    return EnvVar(name, value)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{printable(repr(value), 60)} is not {what}.")
    return value


def choice(names: tuple[str, ...]) -> Callable[[object, Base], object]:
    def parse(value: object, _base: Base) -> object:
        if value in names:
            return value
        shown = printable(str(value), 60)
        close = nearest(shown, names)
        raise ConfigError(
            f"“{shown}” is none of {', '.join(names)}.",
            hint=f"Did you mean {close}?" if close else None,
        )

    return parse


def parse_flag(value: object, _base: Base) -> object:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"{printable(repr(value), 60)} is neither true nor false.")


def matching(expression: re.Pattern[str], what: str) -> Callable[[object, Base], object]:
    def parse(value: object, _base: Base) -> object:
        text = _text(value, what)
        if not expression.fullmatch(text):
            raise ConfigError(
                f"“{printable(text, 80)}” is not {what}.",
                hint=f"It has to match {expression.pattern}.",
            )
        return text

    return parse


def parse_workdir(value: object, base: Base) -> object:
    path = expand(value, Base(base.workspace, base.home, base.workspace))
    if has_control(path) or not is_unicode(path):
        raise ConfigError("the folder has a control character or is not UTF-8.")
    return path


def parse_unprotect(value: object, _base: Base) -> object:
    path = os.path.normpath(_text(value, "a path"))
    if path.startswith(("/", "../")) or path in (".", "..") or has_control(path):
        raise ConfigError(
            f"“{printable(path, 80)}” is not a path inside the workspace.",
            hint="Write it relative to the workspace: .git/config, say.",
        )
    return path


def parse_mask(value: object, _base: Base) -> object:
    return masks.check_pattern(_text(value, "a pattern"))


def show_share(value: object) -> str:
    """A share as it would be written on the command line."""
    if not isinstance(value, NamedShare):
        return printable(str(value))
    same = value.source == value.target
    target = "" if same else f":{value.target}"
    return printable(f"{value.source}{target}:{'rw' if value.writable else 'ro'}", 10_000)


def show_env(value: object) -> str:
    """A variable without its value where that may be a secret."""
    if not isinstance(value, EnvVar):
        return printable(str(value))
    if value.value is None:
        return f"{value.name} (its value is taken from your environment)"
    hidden = holds_credential(value.name, value.value)
    shown = "(hidden)" if hidden else printable(value.value, 80)
    return f"{value.name}={shown}"


def show_size(value: object) -> str:
    return format_size(value) if isinstance(value, int) else str(value)


def show_duration(value: object) -> str:
    return format_duration(value) if isinstance(value, float) else "no limit"


def show_flag(value: object) -> str:
    return str(value).lower()


def show_disk(value: object) -> str:
    return show_size(value) if value else "none"


def show_percent(value: object) -> str:
    return f"{value}%"


def show_rate(value: object) -> str:
    return f"{show_size(value)}/s"
