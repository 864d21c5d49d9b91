"""What the gateway writes down, and what a budget remembers."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
from pathlib import Path

import pytest

from corral.gateway.account import Account
from corral.gateway.config import SPENT, TRANSCRIPT
from corral.gateway.kept import Kept
from corral.gateway.redact import Secrets
from corral.scripted import Models, Reply
from tests.unit.gateway.conftest import anthropic, openai, started

DEAR = {"input_tokens": 0, "output_tokens": 100_000}  # 2.5 USD of claude-opus-5


async def test_a_budget_is_kept_over_starts_of_the_sandbox(models: Models, folder: Path) -> None:
    gateways = [anthropic(models, budget_usd=4), openai(models)]
    models.default = Reply(usage=DEAR)
    async with started(models, folder, gateways) as world:
        assert (await world.messages())[0] == 200
        assert world.transcript()[-1]["cost_usd"] == 2.5
    async with started(models, folder, gateways) as world:
        assert (await world.messages())[0] == 200
        status, said = await world.messages()
        assert status == 400
        assert said["error"]["message"] == "corral: the budget of 4 USD is spent."
        refused = world.transcript()[-1]
        assert (refused["kind"], refused["error"]) == ("refused", said["error"]["message"])
    assert len(models.seen) == 2
    async with started(models, folder, gateways, kept=False) as world:  # a run of its own
        assert (await world.messages())[0] == 200


async def test_agents_have_budgets_of_their_own(models: Models, folder: Path) -> None:
    models.default = Reply(usage=DEAR)
    async with started(models, folder, [anthropic(models, agent_budget_usd=2)]) as world:
        assert (await world.messages(agent=1))[0] == 200
        assert (await world.messages(agent=1))[0] == 400
        assert (await world.messages(agent=2))[0] == 200


async def test_a_rate_is_answered_as_sdks_want_it(models: Models, folder: Path) -> None:
    async with started(models, folder, [anthropic(models, rpm=2)]) as world:
        assert (await world.messages())[0] == 200
        assert (await world.messages())[0] == 200
        async with world.ask("POST", "/v1/messages", json={"model": "claude-opus-5"}) as answer:
            assert answer.status == 429
            assert 0 < int(answer.headers["retry-after"]) <= 61
            assert answer.headers["x-should-retry"] == "true"
        assert (await world.messages(agent=2))[0] == 200


async def test_an_account_that_cannot_be_read_is_told(models: Models, folder: Path) -> None:
    (folder / SPENT).write_text("{")
    async with started(models, folder, [anthropic(models)]) as world:
        assert (await world.messages())[0] == 200
        assert "cannot be read" in world.told[0]
    assert (folder / SPENT).read_text() == "{"


async def test_and_who_has_a_budget_spends_no_more(models: Models, folder: Path) -> None:
    (folder / SPENT).write_text("{")
    async with started(models, folder, [anthropic(models, agent_budget_usd=2)]) as world:
        async with world.ask("POST", "/v1/messages", json={"model": "claude-opus-5"}) as answer:
            assert answer.status == 400 and b"cannot be read" in await answer.read()
        (folder / SPENT).unlink()
    async with started(models, folder, [anthropic(models, agent_budget_usd=2)]) as world:
        assert (await world.messages())[0] == 200


async def test_the_transcript_has_both_sides_and_is_private(models: Models, folder: Path) -> None:
    async with started(models, folder, [anthropic(models)]) as world:
        await world.messages(messages=[{"role": "user", "content": "Hi\n\x1b[31m"}], stream=False)
        begun, ended = world.transcript()
    assert begun["body"]["messages"][0]["content"] == "Hi\n\x1b[31m"
    assert (begun["id"], begun["agent"], begun["model"]) == ("life-1", 1, "claude-opus-5")
    assert ended["id"] == "life-1" and ended["status"] == 200 and ended["ended"] == "complete"
    assert ended["body"]["content"][0]["text"] == "Hello" and ended["seconds"] > 0
    assert stat.S_IMODE((folder / TRANSCRIPT).stat().st_mode) == 0o600


async def test_a_transcript_that_is_full_becomes_the_older_one(folder: Path) -> None:
    told: list[str] = []
    kept = Kept(folder, told.append, limit=1000)
    other = Kept(folder, told.append, limit=1000)  # another run of the same name
    for number in range(40):
        for each in (kept, other):
            each.write({"number": number, "text": "x" * 80}, Secrets(()))
    kept.close()
    other.close()
    files = [folder / TRANSCRIPT, folder / f"{TRANSCRIPT}.1"]
    assert all(0 < file.stat().st_size <= 1200 for file in files)
    numbers = [json.loads(line)["number"] for file in files for line in file.open()]
    assert 39 in numbers and not told


async def test_refusals_do_not_push_records_out(models: Models, folder: Path) -> None:
    async with started(models, folder, [anthropic(models, budget_usd=1)]) as world:
        for _ in range(150):
            assert (await world.messages(model="no-price", messages=["x" * 5000]))[0] == 400
        assert len(world.transcript()) == 100
    assert (folder / TRANSCRIPT).stat().st_size < 40_000


async def test_a_disk_that_is_full_is_told_once_and_ends_nothing(folder: Path) -> None:
    told: list[str] = []
    (folder / TRANSCRIPT).symlink_to("/dev/full")
    kept = Kept(folder, told.append)
    kept.write({"a": 1}, Secrets(()))
    kept.write({"a": 1}, Secrets(()))
    kept.close()
    assert len(told) == 1


async def test_without_a_free_descriptor_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent's connections can use them all up for a moment."""

    def full(_fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    told: list[str] = []
    kept = Kept(folder, told.append)
    syncing = asyncio.create_task(kept.sync())
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", full)
        kept.write({"a": 1}, Secrets(()))
        kept.spent(Account())
        await asyncio.wait({syncing}, timeout=1)
    assert not syncing.done() and len(told) == 1
    assert (folder / SPENT).exists()
    syncing.cancel()
    kept.close()


async def test_a_long_body_is_shortened(models: Models, folder: Path) -> None:
    image = "A" * (5 << 20)
    async with started(models, folder, [anthropic(models)]) as world:
        await world.messages(messages=[{"role": "user", "content": image}])
        begun, _ended = world.transcript()
    assert "more characters" in begun["body"]["messages"][0]["content"]
    assert len(json.dumps(begun)) < 10_000
    assert models.seen[0].body["messages"][0]["content"] == image
