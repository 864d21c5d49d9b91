"""Sandboxes with gateways to scripted model servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral.events import Event, Notice
from corral.gateway.config import TRANSCRIPT
from corral.paths import config_file
from corral.sandbox import Sandbox
from corral.sandbox.gateway import gateway_folder
from corral.scripted import Models
from tests.support.sandboxes import sandbox_on

KEY = "sk-ant-api03-TheRealKeyOfTheUser-0123456789abcdef"


class Events:
    """What was reported. more: set whenever there is more."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self.more = asyncio.Event()

    def report(self, event: Event) -> None:
        """A Report."""
        self.all.append(event)
        self.more.set()


@dataclass
class GatewaySandbox:
    """A sandbox, the servers behind its gateways, what was told."""

    models: Models
    sandbox: Sandbox
    workspace: Path
    events: Events

    def notices(self) -> list[str]:
        """What the user was told."""
        return [event.message for event in self.events.all if isinstance(event, Notice)]

    def transcript(self) -> list[dict[str, Any]]:
        """The exchanges of this sandbox so far; others of its name wrote to the same file."""
        path = gateway_folder(self.sandbox.plan.name) / TRANSCRIPT
        if not path.exists():  # nothing has been asked
            return []
        records = [json.loads(line) for line in path.read_text().splitlines()]
        life = self.sandbox.folder.name
        return [record for record in records if record.get("id", "").startswith(f"{life}-")]


def configure(models: Models, folder: Path, more: Mapping[str, str] | None = None) -> None:
    """The user's own config.toml with two gateways whose key is in a file. more: by gateway."""
    key = folder / "the-key"
    key.write_text(KEY + "\n")
    tables = []
    for name in ("anthropic", "openai"):
        upstream = models.url + ("/v1" if name == "openai" else "")
        tables.append(
            f'[gateway.{name}]\nupstream = "{upstream}"\nkey = {{ file = "{key}" }}\n'
            f"{(more or {}).get(name, '')}\n"
        )
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text("\n".join(tables))


@contextlib.asynccontextmanager
async def gateway_sandbox(
    base: Path,
    overrides: Mapping[str, object] | None = None,
    more: Mapping[str, str] | None = None,
) -> AsyncIterator[GatewaySandbox]:
    """A sandbox below `base` with the gateways `anthropic` and `openai`."""
    workspace = base / "workspace"
    workspace.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("CORRAL_CONFIG_DIR", str(base / "config"))
    events = Events()
    try:
        async with Models() as models:
            configure(models, base, more)
            wanted = {"network.gateways": ["anthropic", "openai"], **(overrides or {})}
            async with sandbox_on(workspace, wanted, report=events.report) as sandbox:
                yield GatewaySandbox(models, sandbox, workspace, events)
    finally:
        patch.undo()
