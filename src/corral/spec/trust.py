"""Promise 7: a project's corral.toml may only tighten, until the user has accepted it.

What counts as tightening is decided by comparison: all layers are merged with and without the
project's file, and what then differs because of the file must be provably tighter (fewer CPUs,
less memory, a shorter time, a read-only workspace, more masks, a narrower network). Everything
else widens.

Accepted files are kept in one private JSON file in the state folder: real path to SHA-256.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from .. import paths
from ..errors import ConfigError, HostError, UntrustedConfigError
from .files import read_config, write_atomically
from .herd import HERD_LIMITS, limit_without, widened
from .layers import Entry, Merged, scalar
from .network_settings import MODES, NamedRules
from .setting import Setting
from .settings import SETTINGS
from .text import is_unicode, printable
from .values import NamedShare

RECORD_NAME = "trusted.json"


class Widening(Struct, frozen=True):
    """One thing that a project's file asks for beyond what holds without it."""

    key: str
    text: str


class Accepted(Struct, frozen=True, forbid_unknown_fields=True):
    """An accepted file: the SHA-256 of its content in hex."""

    sha256: str


class _Record(Struct, forbid_unknown_fields=True):
    version: int
    files: dict[str, Accepted]


def digest(content: bytes) -> str:
    """SHA-256 of `content` in hex."""
    import hashlib

    return hashlib.sha256(content).hexdigest()


def widenings(without: Merged, merged: Merged) -> tuple[Widening, ...]:
    """What the project's entries in `merged` allow that `without` them is not. Pure."""
    return tuple(
        widening
        for key, entries in merged.items()
        for entry in entries
        if entry.kind == "project"
        for widening in _judge(key, entry, without)
    )


def _judge(key: str, entry: Entry, without: Merged) -> Iterator[Widening]:
    setting, value = SETTINGS[key], entry.value
    if setting.adds:
        if setting.tighter == "mask" and not str(value).startswith("!"):
            return
        if setting.tighter == "more":
            return
        old = [other.value for other in without[key]]
        if value in old and setting.tighter != "mask":
            return
        if isinstance(value, NamedShare):
            if NamedShare(value.source, value.target, True) in old:
                return  # the user gives it writable, the project takes that away
            access = "read-write" if value.writable else "read-only"
            yield Widening(key, f"{access} access to {setting.show(value).rpartition(':')[0]}")
            return
        if isinstance(value, NamedRules) and _among(value, old):
            return
        words = setting.asks or (setting.show if key == "run.env" else str)
        yield Widening(key, printable(words(value), 10_000))
        return
    before = scalar(without, key)
    if key in HERD_LIMITS:
        before = limit_without(HERD_LIMITS[key], without)
    if key == "agent":
        yield from (Widening(key, printable(text, 10_000)) for text in widened(value, without))
        return
    if value == before or _is_tighter(setting, value, before):
        return
    instead = "" if before is None else f" instead of {setting.show(before)}"
    words = setting.asks or setting.show
    yield Widening(key, printable(words(value)) + printable(instead))


def _is_tighter(setting: Setting, value: object, before: object) -> bool:
    rule = setting.tighter
    if rule == "true":
        return value is True
    if rule == "lower" and isinstance(value, (int, float)):
        return before is None or (isinstance(before, (int, float)) and value < before)
    if rule == "mode" and before is not None:
        return MODES.index(str(value)) < MODES.index(str(before))
    if rule == "order" and before is not None:
        return setting.order.index(str(value)) < setting.order.index(str(before))
    if rule == "subset" and isinstance(value, tuple) and isinstance(before, tuple):
        return set(value) < set(before)
    return False


def _among(value: NamedRules, old: list[object]) -> bool:
    """Whether the user allows all of it already, in other words perhaps."""
    allowed = {
        (rule.host, rule.port)
        for each in old
        if isinstance(each, NamedRules)
        for rule in each.rules
    }
    return all((rule.host, rule.port) in allowed for rule in value.rules)


def untrusted(path: str, found: tuple[Widening, ...], *, changed: bool) -> UntrustedConfigError:
    """The error for a file that widens and is not accepted."""
    since = "It has changed since you accepted it. " if changed else ""
    return UntrustedConfigError(
        f"{printable(path)} asks for more than a project may without your consent:\n"
        + "\n".join(f"  {widening.key}: {widening.text}" for widening in found),
        hint=f"{since}Read it; to accept it as it is now: corral trust {_argument(path)}",
    )


def is_accepted(path: str, sha256: str) -> bool:
    """Whether the file at the real path `path` was accepted with this content."""
    accepted = _load().files.get(path)
    return accepted is not None and accepted.sha256 == sha256


def is_known(path: str) -> bool:
    """Whether the file at `path` was accepted with any content."""
    return path in _load().files


def accept(path: str, sha256: str) -> None:
    """Record that the user accepts the file at the real path `path` with this content."""
    if not is_unicode(path):
        raise ConfigError(
            f"{printable(path)} cannot be recorded: its path is not UTF-8.",
            hint="Rename the folder.",
        )
    with _locked() as record:
        record.files[path] = Accepted(sha256)


def forget(path: str) -> bool:
    """Take back an acceptance; False when there was none."""
    with _locked() as record:
        return record.files.pop(path, None) is not None


def _argument(path: str) -> str:
    import shlex

    return shlex.quote(printable(path))


def _record_path() -> Path:
    return paths.state_dir() / RECORD_NAME


def _load() -> _Record:
    path = _record_path()
    content = read_config(path, follow=False)
    if content is None:
        return _Record(1, {})
    status = path.lstat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise HostError(
            f"{path} could have been changed by others (owner {status.st_uid}, "
            f"mode {status.st_mode & 0o777:o}).",
            hint=f"Remove {path}, then accept your projects' files again with corral trust.",
        )
    try:
        record = msgspec.json.decode(content, type=_Record)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is damaged: {printable(str(error))}.",
            hint=f"Remove {path}, then accept your projects' files again with corral trust.",
        ) from error
    if record.version != 1:
        raise ConfigError(
            f"{path} was written by another version of corral.",
            hint=f"Remove {path}, then accept your projects' files again with corral trust.",
        )
    return record


@contextmanager
def _locked() -> Iterator[_Record]:
    """The record, to be changed; written back at the end. One writer at a time."""
    path = _record_path()
    try:
        lock = os.open(
            path.with_suffix(".lock"),
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = _load()
            yield record
            encoded = msgspec.json.format(msgspec.json.encode(record), indent=2)
            write_atomically(path, encoded + b"\n", mode=0o600)
        finally:
            os.close(lock)
    except OSError as error:
        raise HostError(
            f"{path} cannot be written: {error.strerror}.",
            hint="Make its folder writable, or set CORRAL_STATE_DIR to one that is.",
        ) from error
