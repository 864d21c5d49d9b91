"""What a program says about the sandbox that it wants."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from ..errors import ConfigError


class Options(TypedDict, total=False):
    """Keyword options of a sandbox. What is not given comes from variables and files, as in `corral
    run`; see docs/configuration.md.

    workspace: the folder that becomes the workspace, default the current one. net: none, allow or
    internet. allow, deny: hosts that may, or may not, be reached, and presets ("@python"). hosts:
    where names lead, by name or as NAME=ADDRESS. ports: those of the host that lead into the
    sandbox, [HOST:]PORT[:GUEST] each. gateways, secrets: names of those it may use; a secret may
    be NAME@HOST[,HOST]. memory: text ("2g") or bytes. cpus: how many. shares: SRC[:DST][:ro|:rw].
    env: of every command. read_only: the workspace. review: hold its changes back (see
    `Sandbox.review`). agents: how many, each with a copy of the workspace (docs/herd.md). mask:
    patterns of files to hide, as in .gitignore. unprotect: protected paths to leave writable. user:
    your own name, or root. workdir: where commands start. tools: further read-only program folders.
    name: the sandbox's. settings: any other setting by its key, {"machine.accel": "tcg"} say.
    config_file: in place of corral.toml. force: allow a workspace such as your home.
    """

    workspace: str | os.PathLike[str]
    net: Literal["none", "allow", "internet"]
    allow: Sequence[str]
    deny: Sequence[str]
    hosts: Sequence[str] | Mapping[str, str]
    ports: Sequence[str | int]
    gateways: Sequence[str]
    secrets: Sequence[str]
    memory: int | str
    cpus: int
    shares: Sequence[str]
    env: Mapping[str, str]
    read_only: bool
    review: bool
    agents: int
    mask: Sequence[str]
    unprotect: Sequence[str]
    user: str
    workdir: str
    tools: Sequence[str]
    name: str
    settings: Mapping[str, object]
    config_file: str | os.PathLike[str]
    force: bool


# Names of options -> keys of settings (spec/layers.py).
KEYS = {
    "net": "network.mode",
    "allow": "network.allow",
    "deny": "network.deny",
    "hosts": "network.hosts",
    "ports": "network.publish",
    "gateways": "network.gateways",
    "secrets": "network.secrets",
    "memory": "machine.memory",
    "cpus": "machine.cpus",
    "shares": "share",
    "env": "run.env",
    "read_only": "workspace.read_only",
    "review": "workspace.review",
    "agents": "herd.agents",
    "mask": "workspace.mask",
    "unprotect": "workspace.unprotect",
    "user": "run.user",
    "workdir": "run.workdir",
    "tools": "run.tools",
    "name": "name",
}
_LISTS = (
    *("allow", "deny", "hosts", "ports", "gateways", "secrets"),
    *("shares", "mask", "unprotect", "tools"),
)


class Spec:
    """Options kept together, to start many sandboxes from: `Sandbox(spec, name="second")`.

    spec: options that hold where none of the same name is given. Raises TypeError for an option
    that is none.
    """

    __slots__ = ("options",)

    def __init__(self, spec: Spec | None = None, /, **options: Unpack[Options]) -> None:
        given = dict(options)
        unknown = sorted(given.keys() - Options.__annotations__.keys())
        if unknown:
            raise TypeError(f"a sandbox has no option {unknown[0]!r}")
        for name in _LISTS:
            if isinstance(given.get(name), str | bytes):
                raise TypeError(f"{name} must be a list of texts, not one text")
        self.options: Mapping[str, object] = {**(spec.options if spec else {}), **given}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.options == other.options

    def __hash__(self) -> int:
        return hash(tuple(sorted((name, repr(value)) for name, value in self.options.items())))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"Spec({shown})"

    @property
    def folder(self) -> Path:
        """The workspace. Raises ConfigError when it is no folder."""
        folder = self._path("workspace") or Path()
        if not folder.is_dir():
            raise ConfigError(
                f"the workspace {folder} is not a folder.", hint="Name one that is there."
            )
        return folder.absolute()

    @property
    def config_file(self) -> Path | None:
        """The configuration file in place of corral.toml."""
        return self._path("config_file")

    @property
    def force(self) -> bool:
        """Whether any folder may be the workspace."""
        return bool(self.options.get("force", False))

    def overrides(self) -> dict[str, object]:
        """As corral.spec.load_spec takes them: settings by key."""
        found: dict[str, object] = {}
        for name, key in KEYS.items():
            value = self.options.get(name)
            if isinstance(value, Mapping):
                value = [f"{variable}={text}" for variable, text in value.items()]
            elif name in _LISTS and isinstance(value, Sequence):
                value = [item if isinstance(item, int) else os.fspath(item) for item in value]
            if value is not None:
                found[key] = value
        further = self.options.get("settings")
        return {**found, **further} if isinstance(further, Mapping) else found

    def _path(self, name: str) -> Path | None:
        value = self.options.get(name)
        return Path(value) if isinstance(value, str | os.PathLike) else None
