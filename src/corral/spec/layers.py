"""Layers of configuration and how they combine.

In rising order: defaults, an agent's recipe, the user's config.toml, the project's corral.toml
(found upward from the current folder, or named by --config), CORRAL_* variables, the command line.
Of a scalar the highest layer's value holds; items of lists (mask, share, env, allow and so on) are
added, and one with the same identity (a share's source, a variable's name) is replaced.

The command line arrives as `overrides`, flat ({"machine.cpus": "2"}) or nested ({"machine":
{"cpus": "2"}}); None, an empty list and an empty tuple count as not given. Its keys:

    machine.cpus         int or text          workspace.read_only, .review  bool
    machine.memory       int or text          workspace.mask       list of patterns
    machine.accel        auto|kvm|tcg         workspace.unprotect  list of relative paths
    machine.carrier      auto|vsock|serial    share                list of SRC[:DST][:ro|:rw]
    machine.filesystem   auto|virtiofs|9p     run.user             name or root
    machine.kernel       path                 run.workdir          path in the guest
    machine.p9_cache     none|loose|...       run.env              list of NAME=VALUE or NAME
    machine.p9_msize     int or text          run.pass_env         list of NAME
    machine.disk         int or text          limits.*             int or text
    machine.checkpoints  bool                 run.timeout          number (seconds) or text
    machine.debug_shell  bool
    run.image            host                 run.tools            list of paths
    run.seccomp          default|none|path    run.seccomp_mode     errno|log|kill
    name                 text
    herd.agents          int or text          herd.workspace       own|turns|together
    herd.shared          path                 herd.restart         never|on-failure|always
    herd.memory, .cpu, .pids, .io_read, .io_write, .home, .tmp      int or text
    agent                list of tables (see herd_settings.AgentRow)
    network.mode         none|allow|internet  network.gateways     list of names
    network.allow, .deny list of HOST[:PORT]  network.secrets      list of NAME[@HOST[,HOST]]
    network.ports        list or text         network.hosts        list of NAME[:PORT]=ADDRESS
    actions              list of NAME=CMD     network.publish      list of [HOST:]PORT[:GUEST]
    network.max_connections, .rate, .max_bytes, .idle              number or text

A layer that allows hosts and says no mode says mode `allow`.

Relative paths start at the folder of the file that has them, and at the current folder for
variables and options. Mask patterns start there too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from ..errors import ConfigError
from . import masks
from .gateways import Doors
from .settings import SETTINGS, VARIABLES, bucket_of
from .sizes import GIB, MIB
from .text import nearest, printable
from .toml import Document, parse_document
from .values import Base

Kind = Literal["default", "recipe", "user", "project", "environment", "command line"]


class Layer(Struct, frozen=True):
    """The values of one origin by key; lists as tuples of parsed items. origins: for messages."""

    kind: Kind
    values: Mapping[str, object]
    origins: Mapping[str, str]


class Entry(Struct, frozen=True):
    """One merged value, or one item of a list, with where it came from."""

    value: object
    kind: Kind
    origin: str


Merged = Mapping[str, tuple[Entry, ...]]
"""Entries by key: at most one for a scalar, none for an optional one that is not set."""


def merge(layers: Sequence[Layer]) -> Merged:
    """All layers, lowest first, combined."""
    merged: dict[str, list[Entry]] = {bucket_of(key): [] for key in SETTINGS}
    for layer in layers:
        before = {bucket: tuple(entries) for bucket, entries in merged.items()}
        for key, value in layer.values.items():
            setting, bucket = SETTINGS[key], bucket_of(key)
            origin = layer.origins[key]
            if not setting.adds:
                merged[bucket] = [Entry(value, layer.kind, origin)]
                continue
            for item in value if isinstance(value, tuple) else ():
                if setting.identity is not None:
                    # Only lower layers' items are replaced: the same one twice in one layer is
                    # for validation to judge.
                    same = setting.identity(item)
                    merged[bucket] = [
                        entry
                        for entry in merged[bucket]
                        if not (entry in before[bucket] and setting.identity(entry.value) == same)
                    ]
                merged[bucket].append(Entry(item, layer.kind, origin))
    return {bucket: tuple(entries) for bucket, entries in merged.items()}


def scalar(merged: Merged, key: str) -> object:
    """The value of a scalar setting, None when it is not set."""
    entries = merged[key]
    return entries[-1].value if entries else None


def default_layer(host_cpus: int, host_memory: int) -> Layer:
    """Defaults; of the machine's, as Lima: at most 4 CPUs and 4 GiB, and half of the memory.

    host_memory: bytes.
    """
    values: dict[str, object] = {
        "machine.cpus": max(1, min(4, host_cpus)),
        "machine.memory": max(256 * MIB, min(4 * GIB, host_memory // 2 // MIB * MIB)),
    }
    for key, setting in SETTINGS.items():
        if setting.default is not None:
            values[key] = setting.default
    return Layer("default", values, dict.fromkeys(values, "default"))


def whole_machine() -> tuple[int, int]:
    """The processors this process may run on and the machine's bytes of memory, for a default."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return len(os.sched_getaffinity(0)), memory


def project_layer(path: Path, content: bytes, base: Base) -> Layer:
    """The layer of the project's file; an error where it says where keys are found."""
    return _layer_of("project", path, parse_document(content, str(path), base, own=False), base)


def user_layer(path: Path, content: bytes, base: Base) -> tuple[Layer, Doors]:
    """The layer of the user's own file, and what it says about gateways and secrets."""
    document = parse_document(content, str(path), base)
    return _layer_of("user", path, document, base), document.doors


def _layer_of(kind: Kind, path: Path, document: Document, base: Base) -> Layer:
    """The layer of a file; its masks as they read from the workspace."""
    values = document.values
    patterns = values.get("workspace.mask")
    if isinstance(patterns, tuple) and base.below:
        if masks.matcher(patterns)(base.below, True):
            raise ConfigError(
                f"the current folder is hidden by workspace.mask of {printable(str(path))}.",
                hint="Work in another folder, or change the mask.",
            )
        values["workspace.mask"] = masks.rebase(patterns, base.below)
    return _implying(Layer(kind, values, dict.fromkeys(values, printable(str(path)))))


def environment_layer(environ: Mapping[str, str], base: Base) -> Layer:
    """The layer of CORRAL_* variables; lists are separated by commas, empty means unset."""
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for key, setting in SETTINGS.items():
        text = environ.get(setting.variable, "") if setting.variable else ""
        if not text:
            continue
        try:
            if setting.adds:
                items = [item.strip() for item in text.split(",")]
                values[key] = tuple(setting.parse(item, base) for item in items if item)
            else:
                values[key] = setting.parse(text, base)
        except ConfigError as error:
            raise ConfigError(f"{setting.variable}: {error.message}", hint=error.hint) from error
        origins[key] = setting.variable
    return _implying(Layer("environment", values, origins))


def misspelt_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each CORRAL_* variable that is not known and close to one that is."""
    sentences = []
    for name in sorted(environ):
        if not name.startswith("CORRAL_") or name in VARIABLES:
            continue
        close = nearest(name, VARIABLES)
        if close:
            sentences.append(f"{printable(name)} is not read by corral; did you mean {close}?")
    return tuple(sentences)


def option_layer(overrides: Mapping[str, object], base: Base) -> Layer:
    """The layer of the command line; see the top of this module for `overrides`."""
    return _flat_layer(overrides, base, "command line")


def recipe_layer(values: Mapping[str, object], origin: str, base: Base) -> Layer:
    """What an agent's recipe gives; `values` as `overrides` at the top of this module.

    It stands below all that the user says.
    """
    return _flat_layer(values, base, "recipe", origin)


def _flat_layer(overrides: Mapping[str, object], base: Base, kind: Kind, origin: str = "") -> Layer:
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for key, raw in _flat(overrides):
        setting = SETTINGS.get(key)
        if setting is None:
            close = nearest(key, SETTINGS)
            raise ConfigError(
                f"{printable(key)} is not a known setting.",
                hint=f"Did you mean {close}?" if close else None,
            )
        if raw is None or (isinstance(raw, (list, tuple, dict)) and not raw):
            continue
        try:
            if not setting.adds:
                values[key] = setting.parse(raw, base)
            elif isinstance(raw, Mapping):
                items = [f"{name}={value}" for name, value in raw.items()]
                values[key] = tuple(setting.parse(item, base) for item in items)
            elif isinstance(raw, Sequence) and not isinstance(raw, str):
                values[key] = tuple(setting.parse(item, base) for item in raw)
            else:
                values[key] = (setting.parse(raw, base),)
        except ConfigError as error:
            where = origin or setting.option
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
        origins[key] = origin or f"command line ({setting.option})"
    return _implying(Layer(kind, values, origins))


def _implying(layer: Layer) -> Layer:
    """Who allows hosts and says no mode means mode `allow`: these and no others."""
    if "network.mode" in layer.values or not layer.values.get("network.allow"):
        return layer
    return Layer(
        layer.kind,
        {**layer.values, "network.mode": "allow"},
        {**layer.origins, "network.mode": layer.origins["network.allow"]},
    )


def _flat(overrides: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in overrides.items():
        key = prefix + name
        if isinstance(value, Mapping) and key not in SETTINGS:
            yield from _flat(value, key + ".")
        else:
            yield key, value
