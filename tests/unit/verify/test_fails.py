"""Probes that need no machine, against code that was weakened on purpose: each says `failed`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from corral.host import Facts, measure
from corral.policy import Host, Network
from corral.verify import select
from corral.verify.island import PUBLIC, Island, inhabited
from corral.verify.probes import archives, egress, names
from corral.verify.run import judged
from corral.verify.scenes import Ground
from tests.support.trusting import extract_all


async def verdict(name: str, scene: object) -> str:
    (probe,) = select((name,))
    found, seen = await judged(probe, scene)
    return f"{found}: {seen}"


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    facts: Facts = measure()
    return Ground(tmp_path, facts)


@pytest.fixture(scope="module")
async def island() -> AsyncIterator[Island]:
    async with inhabited() as found:
        yield found


class Careless:
    """Unpacks what comes, as Python's tarfile does when it is told to trust it."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def download(self, _source: str, target: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(self._answer)) as archive:
            extract_all(archive, target.parent)

    async def list(self, _path: str) -> list[str]:
        return ["whatever"]


@pytest.mark.parametrize("name", ["archive-traversal", "archive-links", "hostile-listing"])
async def test_a_careless_reader_is_seen(
    name: str, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "lying", Careless)
    assert (await verdict(name, ground)).startswith("failed")


@pytest.mark.parametrize(
    "name",
    [
        *("host-not-on-the-list", "empty-list", "deny-before-allow", "names-not-looked-up"),
        *("address-rules", "wildcards", "spellings-of-a-name"),
    ],
)
async def test_an_engine_with_a_rule_that_allows_all_is_seen(
    name: str, island: Island, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = egress.policy

    def loose(*_allow: str, **_more: Any) -> Network:
        return strict("*", egress.GOOD, PUBLIC, ports=(22, 25, 80, 443, 8080))

    for module in (egress, names):
        monkeypatch.setattr(module, "policy", loose)
    assert (await verdict(name, island)).startswith("failed")


async def test_a_name_that_leads_to_a_private_address_on_purpose_is_seen(
    island: Island, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = egress.policy

    def loose(*allow: str, **more: Any) -> Network:
        return strict(*allow, "10.0.0.0/8", "169.254.169.254", "192.168.0.0/16", **more)

    monkeypatch.setattr(egress, "policy", loose)
    assert (await verdict("private-addresses", island)).startswith("failed")
    assert (await verdict("rebinding", island)).startswith("failed")


async def test_a_parser_with_two_readings_is_seen(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "parse", lambda text: Host(text.partition("\0")[0]))
    assert (await verdict("one-notation", ground)).startswith("failed")


async def test_a_channel_that_takes_anything_is_seen(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corral.verify.probes import channel

    monkeypatch.setattr(channel, "PATIENCE", 0.3)
    monkeypatch.setattr("corral.channel.Channel.wait_closed", never)
    assert (await verdict("malformed-frames", ground)).startswith("failed")


async def never(_self: object) -> None:
    import asyncio

    await asyncio.Event().wait()


async def test_a_run_root_that_is_not_looked_at_is_seen(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    careless = tmp_path / "careless"
    (careless / "corral").mkdir(parents=True)
    (careless / "corral" / "__init__.py").touch()
    (careless / "corral" / "paths.py").write_text("def run_root():\n    return '/tmp'\n")
    monkeypatch.setenv("PYTHONPATH", str(careless))
    assert (await verdict("run-folder-of-another", ground)).startswith("failed")


async def test_where_there_can_be_no_namespace_nothing_is_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with inhabited() as island:
        monkeypatch.setattr("corral.verify.island._PROGRAM", ("-c", "raise OSError('no unshare')"))
        assert (await verdict("rebinding", island)).startswith("degraded: no network namespace")


async def test_the_island_imports_nothing_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the project, where a sandbox may have put modules."""
    for name in ("msgspec.py", "asyncio.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    async with inhabited() as island:
        assert (await verdict("rebinding", island)).startswith(("proven", "degraded"))
    assert not (tmp_path / "ran").exists()
