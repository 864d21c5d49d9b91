"""Where keys are found: read from a table, and checked to be out of the sandbox's reach.

A key itself is never read here, so no spec, log, message or `config show` can hold one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from msgspec import UNSET, Struct

from .. import extras
from ..errors import ConfigError
from ..policy import Key
from ..search import changeable, leads_into
from .credentials import refuse_credential
from .tables.keys import KeyTable
from .text import has_control, printable
from .values import VARIABLE_NAME, Base, expand

MAX_COMMAND = 64  # words
CLAUDE_CREDENTIALS = ".credentials.json"
"""In Claude Code's folder, ~/.claude or CLAUDE_CONFIG_DIR (code.claude.com/docs, "Settings")."""


class Reach(Struct, frozen=True):
    """What the sandbox can read and write of the host, as real paths; masked: of the workspace."""

    workspace: str
    masked: Callable[[str, bool], bool]
    readable: tuple[str, ...]
    writable: tuple[str, ...]

    def reads(self, path: str) -> str | None:
        """The folder through which it could read the file `path`."""
        for folder in self.readable:
            if _beneath(path, folder):
                if folder == self.workspace and self.masked(path[len(folder) + 1 :], False):
                    continue
                return folder
        return None

    def writes(self, path: str) -> str | None:
        """The folder through which it could change `path`, or make it."""
        return next((folder for folder in self.writable if _beneath(path, folder)), None)


def parse_key(table: KeyTable, base: Base) -> Key:
    """The Key of a [*.NAME] key table. Raises ConfigError."""
    given = {
        field: value
        for field in table.__struct_fields__
        if (value := getattr(table, field)) is not UNSET and value is not False
    }
    if len(given) != 1:
        raise ConfigError(
            f"key has {'none' if not given else 'more than one'} of "
            f"{', '.join(KeyTable.__struct_fields__)}.",
            hint='Say where it is found: key = { env = "NAME" }, say.',
        )
    ((kind, value),) = given.items()
    match kind:
        case "env":
            return env_key(cast("str", value))
        case "command":
            return Key(kind="command", value=_command(cast("list[str]", value), base))
        case "file":
            return Key(kind="file", value=(_path(value, base),))
        case "keyring":
            return Key(kind="keyring", value=_keyring(cast("list[str]", value)))
        case _:
            if value is True:
                folder = os.environ.get("CLAUDE_CONFIG_DIR") or "~/.claude"
                value = f"{folder}/{CLAUDE_CREDENTIALS}"
            return Key(kind="claude", value=(_path(value, base),))


def env_key(name: str) -> Key:
    """The Key in a variable. Raises ConfigError for a name that no variable has."""
    refuse_credential(name, "the name of a variable")
    if not VARIABLE_NAME.fullmatch(name):
        raise ConfigError(f"“{printable(name, 60)}” is not a name for an environment variable.")
    return Key(kind="env", value=(name,))


def check_key(key: Key, what: str, environ: Mapping[str, str], reach: Reach) -> Key:
    """`key`, when it can be had and the sandbox can neither read nor choose it.

    A command's program becomes an absolute path: on a PATH that leads into the workspace (an
    activated virtual environment) the sandbox could put another in its place.
    what: for messages, as "the gateway anthropic". Raises ConfigError.
    """
    match key.kind:
        case "env":
            if not environ.get(key.value[0]):
                raise ConfigError(
                    f"{what} takes its key from {key.value[0]}, which is not set in your "
                    "environment.",
                    hint=_env_hint(key.value[0], what, environ),
                )
        case "file" | "claude":
            _check_file(key, what, reach)
        case "command":
            return _check_command(key, what, environ, reach)
        case "keyring":
            import importlib.util

            if importlib.util.find_spec("keyring") is None:
                raise ConfigError(
                    f"{what} takes its key from your keyring, for which a library is missing.",
                    hint=f"Install it: {extras.install('keyring')}",
                )
    return key


def describe(key: Key) -> str:
    """Where it is found, for people: `env ANTHROPIC_API_KEY`; of a command only the program."""
    words = key.value[:1] if key.kind == "command" else key.value
    return printable(f"{key.kind} {' '.join(words)}", 500)


def _env_hint(name: str, what: str, environ: Mapping[str, str]) -> str:
    hint = f"Set it before you start corral: export {name}=..., or change key in your config.toml."
    home = environ.get("HOME", "")
    login = os.path.join(home, ".claude", CLAUDE_CREDENTIALS)  # noqa: PTH118
    if name == "ANTHROPIC_API_KEY" and os.path.isfile(login):  # noqa: PTH113
        hint += " For your Claude login: [gateway.anthropic] and key = { claude = true } there."
    return hint


def _path(value: object, base: Base) -> str:
    refuse_credential(str(value), "the path of a file")
    path = expand(value, base)
    if has_control(path):
        raise ConfigError("the path of a key has a control character.")
    return path


def _keyring(value: Sequence[str]) -> tuple[str, ...]:
    for word in value:
        refuse_credential(word, "the name in a keyring")
    if len(value) != 2 or not all(value) or any(has_control(part) for part in value):
        raise ConfigError(
            "keyring is not a service and a user name.",
            hint='Write it like keyring = ["anthropic", "ada"].',
        )
    return tuple(value)


def _command(value: Sequence[str], base: Base) -> tuple[str, ...]:
    if not 0 < len(value) <= MAX_COMMAND or not value[0] or any("\0" in word for word in value):
        raise ConfigError(
            f"command is not a list of 1 to {MAX_COMMAND} words.",
            hint='Write it like command = ["pass", "show", "anthropic"].',
        )
    for word in value:
        refuse_credential(word, "a word of a command")
    program = expand(value[0], base) if "/" in value[0] else value[0]
    return (program, *value[1:])


def _check_file(key: Key, what: str, reach: Reach) -> None:
    path = key.value[0]
    try:
        status = os.stat(path)
    except OSError as error:
        login = "Log in with Claude Code first." if key.kind == "claude" else None
        raise ConfigError(
            f"{what} takes its key from {printable(path)}: {error.strerror}.", hint=login
        ) from error
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.R_OK):
        raise ConfigError(
            f"{what} takes its key from {printable(path)}, which is not a file that you can read."
        )
    for name in dict.fromkeys((path, os.path.realpath(path))):
        if (folder := reach.reads(name)) is not None:
            raise ConfigError(
                f"{what} takes its key from {printable(name)}, which the sandbox could read, in "
                f"{printable(folder)}.",
                hint="Keep it elsewhere.",
            )
        _refuse_writable(name, what, reach)


def _check_command(key: Key, what: str, environ: Mapping[str, str], reach: Reach) -> Key:
    name, *rest = key.value
    program = _found(name, environ.get("PATH", os.defpath))
    if program is None:
        raise ConfigError(
            f"{what} takes its key from the command {printable(name)}, which is not found.",
            hint="Write its path in full.",
        )
    for word in (program, *rest):
        if word.startswith("/"):
            for path in dict.fromkeys((os.path.normpath(word), os.path.realpath(word))):
                _refuse_writable(path, what, reach)
    return Key(kind="command", value=(program, *rest))


def _refuse_writable(path: str, what: str, reach: Reach) -> None:
    if (folder := reach.writes(path)) is not None:
        raise ConfigError(
            f"{what} takes its key from {printable(path)}, which the sandbox could change, in "
            f"{printable(folder)}: it would run on your machine.",
            hint="Keep it elsewhere.",
        )


def _found(name: str, path_env: str) -> str | None:
    candidates = [name]
    if "/" not in name:
        candidates = [f"{folder}/{name}" for folder in path_env.split(":") if folder[:1] == "/"]
        unsafe = changeable()  # a sandbox may have put one there, on this project or another
        candidates = [path for path in candidates if not leads_into(path, unsafe)]
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            return os.path.normpath(path)
    return None


def _beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
