"""Templates for several sandboxes of one process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from corral.events import silent
from corral.images.locks import locked
from corral.sandbox import template


async def test_two_sandboxes_of_one_event_loop_do_not_wait_for_each_other_forever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The lock between processes blocks; taken twice in one loop it would stop both."""
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(tmp_path))
    made: list[str] = []

    class Shape:
        key = "shape"

    class Plan:
        class machine:
            cold, transport, accel = False, "virtiofs", "tcg"

    class Parts:
        facts = kernel = base = None

    async def save(*_arguments: object) -> None:
        with locked("template-shape"):
            await asyncio.sleep(0.05)
            made.append("template")

    monkeypatch.setattr(template, "shape_of", lambda *_: Shape)
    monkeypatch.setattr(template, "find", lambda _shape: made[0] if made else None)
    monkeypatch.setattr(template, "is_broken", lambda _key: False)
    monkeypatch.setattr(template, "_save", save)
    async with asyncio.timeout(5):
        both = await asyncio.gather(
            *(template.template_for(Plan, Parts, silent) for _ in range(2))  # type: ignore[arg-type] # as far as they are looked at
        )
    assert [str(each) for each in both] == ["template", "template"]
    assert made == ["template"]
