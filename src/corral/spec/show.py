"""The merged configuration as people and programs read it, with the origin of each value."""

from __future__ import annotations

from collections.abc import Iterator

from ..policy import Key
from .actions import show_timeout
from .credentials import holds_credential
from .herd_settings import words
from .keys import describe
from .layers import Entry
from .load import Loaded
from .model import Action
from .settings import SETTINGS, bucket_of
from .text import printable, toml_key, toml_string
from .values import EnvVar, NamedShare

HIDDEN = "(hidden)"
# Numbers that are shown as such.
_PLAIN = (
    *("machine.cpus", "limits.pids", "limits.io_weight", "herd.agents", "herd.pids"),
    *("network.max_connections", "network.rate"),
)


def as_toml(loaded: Loaded) -> str:
    """The merged configuration as TOML; a comment after each value tells where it comes from."""
    sections: dict[str, list[str]] = {}
    for key, setting in SETTINGS.items():
        table, _, field = key.partition(".")
        entries = _entries(loaded, key)
        if not entries or key in ("share", "actions", "agent"):
            continue
        lines = sections.setdefault(table if field else "", [])
        name = field or table
        if key == "run.env":
            lines += [
                f"env.{toml_key(variable.name)} = {toml_string(_plain_value(variable))}"
                f"  # {_origin(loaded, entry)}"
                for variable, entry in _variables(entries)
            ]
        elif setting.adds:
            lines.append(f"{name} = [")
            for entry in entries:
                item = toml_string(str(_plain(key, entry.value)))
                lines.append(f"  {item},  # {_origin(loaded, entry)}")
            lines.append("]")
        else:
            entry = entries[-1]
            lines.append(
                f"{name} = {_literal(_plain(key, entry.value))}  # {_origin(loaded, entry)}"
            )
    # The sandbox's name is an option only; a file cannot have it, so it is shown as a comment.
    text = [f"# {line}" for line in sections.pop("", [])]
    for table, lines in sections.items():
        text += [f"[{table}]", *lines, ""]
    text += list(_share_tables(loaded))
    text += list(_action_tables(loaded))
    text += list(_agent_tables(loaded))
    text += list(_door_tables(loaded))
    return "\n".join(text).rstrip() + "\n"


def as_data(loaded: Loaded) -> dict[str, object]:
    """The same for JSON: `settings` by dotted key, each a value or items with their origin."""
    settings: dict[str, object] = {}
    for key, setting in SETTINGS.items():
        rows = [
            {"value": _plain(key, entry.value), "origin": entry.origin, "layer": entry.kind}
            for entry in _entries(loaded, key)
        ]
        if setting.adds:
            settings[key] = rows
        else:
            settings[key] = rows[-1] if rows else None
    project = loaded.project
    return {
        "workspace": printable(loaded.place.workspace, 4096),
        "project": None
        if project is None
        else {
            "path": project.path,
            "sha256": project.sha256,
            "accepted": not loaded.refused,
            "asks": [{"key": widening.key, "text": widening.text} for widening in loaded.widenings],
        },
        "settings": settings,
        "gateways": {
            name: {"dialect": each.dialect, "upstream": each.upstream, "key": _key(each.key)}
            for name, each in loaded.doors.gateways.items()
        },
        "secrets": {
            name: {"hosts": list(each.hosts), "header": each.header, "key": _key(each.key)}
            for name, each in loaded.doors.secrets.items()
        },
        "warnings": list(loaded.warnings),
    }


def _entries(loaded: Loaded, key: str) -> list[Entry]:
    """The entries of `key`; of the two keys that share a bucket each has its own kind."""
    entries = list(loaded.merged[bucket_of(key)])
    if bucket_of(key) != "run.env":
        return entries
    passed = key == "run.pass_env"
    return [e for e in entries if isinstance(e.value, EnvVar) and (e.value.value is None) == passed]


def _variables(entries: list[Entry]) -> Iterator[tuple[EnvVar, Entry]]:
    for entry in entries:
        if isinstance(entry.value, EnvVar):
            yield entry.value, entry


def _plain_value(variable: EnvVar) -> str:
    """What may be shown: people paste this into reports."""
    value = variable.value or ""
    return HIDDEN if holds_credential(variable.name, value) else value


def _plain(key: str, value: object) -> object:
    if isinstance(value, EnvVar):
        if key == "run.pass_env":
            return value.name
        return {"name": value.name, "value": _plain_value(value)}
    if isinstance(value, Action):
        return _action(value)
    if isinstance(value, NamedShare):
        return {"source": value.source, "target": value.target, "writable": value.writable}
    if isinstance(value, (bool, str)):
        return value
    if key == "network.ports" and isinstance(value, tuple):
        return list(value)
    return value if key in _PLAIN else SETTINGS[key].show(value)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float, list)) else toml_string(str(value))


def _share_tables(loaded: Loaded) -> Iterator[str]:
    for entry in loaded.merged["share"]:
        if isinstance(entry.value, NamedShare):
            yield f"[[share]]  # {_origin(loaded, entry)}"
            yield f"source = {toml_string(entry.value.source)}"
            yield f"target = {toml_string(entry.value.target)}"
            yield f"writable = {_literal(entry.value.writable)}"
            yield ""


def _action_tables(loaded: Loaded) -> Iterator[str]:
    for entry in loaded.merged["actions"]:
        if isinstance(entry.value, Action):
            plain = _action(entry.value)
            yield f"[actions.{entry.value.name}]  # {_origin(loaded, entry)}"
            yield f"run = [{', '.join(toml_string(word) for word in entry.value.run)}]"
            for name, value in entry.value.env:
                hidden = _plain_value(EnvVar(name, value))
                yield f"env.{toml_key(name)} = {toml_string(hidden)}"
            for key in ("cwd", "timeout"):
                if key in plain:
                    yield f"{key} = {toml_string(str(plain[key]))}"
            yield ""


def _action(action: Action) -> dict[str, object]:
    found: dict[str, object] = {"name": action.name, "run": list(action.run)}
    if action.env:
        found["env"] = {name: _plain_value(EnvVar(name, value)) for name, value in action.env}
    if action.cwd is not None:
        found["cwd"] = action.cwd
    if (limit := show_timeout(action)) is not None:
        found["timeout"] = limit
    return found


def _agent_tables(loaded: Loaded) -> Iterator[str]:
    """Each with what it says, in words: values of variables are left out."""
    for entry in loaded.merged["agent"]:
        for row in entry.value if isinstance(entry.value, tuple) else ():
            yield f"[[agent]]  # {_origin(loaded, entry)}"
            yield from (f"# {text}" for text in words(row))
            yield ""


def _door_tables(loaded: Loaded) -> Iterator[str]:
    """Gateways and secrets as comments: which there are, not what a file would have to say."""
    for name, gateway in loaded.doors.gateways.items():
        yield f"# gateway {name}: {printable(gateway.upstream)}, key: {_key(gateway.key) or 'none'}"
    for name, secret in loaded.doors.secrets.items():
        hosts = printable(", ".join(secret.hosts), 1000)
        yield f"# secret {name}: for {hosts} in {secret.header}, key: {_key(secret.key)}"


def _key(key: Key | None) -> str | None:
    return None if key is None else describe(key)


def _origin(loaded: Loaded, entry: Entry) -> str:
    refused = entry.kind == "project" and bool(loaded.refused)
    return f"{entry.origin}{' (not accepted yet)' if refused else ''}"
