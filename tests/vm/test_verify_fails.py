"""Probes against sandboxes that were weakened on purpose: each sees it, and says `failed`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from corral.events import silent
from corral.host import Facts, measure
from corral.policy import Gateway, Network
from corral.policy.rules import parse_rules
from corral.verify import select
from corral.verify.probes.neighbours import SET_UP
from corral.verify.run import judged
from corral.verify.scenes import CANARY, Inside, Networked, Staged, variables
from corral.verify.servers import Servers

SMALL = {"CORRAL_CPUS": "1", "CORRAL_MEMORY": "768MiB"}
SECRET = "a-variable-of-the-host-that-was-passed-on"


class Weak(Staged):
    """A sandbox in which the share can be written, nothing is protected nor masked, and more."""

    def settings(self) -> dict[str, object]:
        return {
            "name": "weak",
            "share": [f"{self.shared}:/mnt/shared:rw", f"{self.writable}:/mnt/writable:rw"],
            "run.tools": [str(self.tool)],
            "run.env": [f"{CANARY}={SECRET}"],
            "workspace.unprotect": [".git/config", ".git/hooks", "corral.toml"],
        }


class WeakNetwork(Networked):
    """One that may reach what it is not to reach, with a gateway without bounds."""

    def network(self, servers: Servers) -> Network:
        wide = (*parse_rules("*"), *parse_rules(f"{self.GOOD}:8080"))
        return msgspec.structs.replace(super().network(servers), allow=wide)

    def gateways(self, servers: Servers) -> tuple[Gateway, ...]:
        return tuple(
            msgspec.structs.replace(each, models=(), budget_usd=None, rpm=None)
            for each in super().gateways(servers)
        )


@pytest.fixture(scope="module")
def facts() -> Facts:
    return measure()


@pytest.fixture(scope="module")
async def weak(tmp_path_factory: pytest.TempPathFactory, facts: Facts) -> AsyncIterator[Weak]:
    with variables({CANARY: SECRET, **SMALL}):
        scene = Weak(scratch(tmp_path_factory), facts, SMALL)
        async with scene.running(SMALL, silent):
            yield scene


@pytest.fixture(scope="module")
async def weak_network(
    tmp_path_factory: pytest.TempPathFactory, facts: Facts
) -> AsyncIterator[WeakNetwork]:
    folder = scratch(tmp_path_factory)
    servers = Servers(folder)
    with variables({CANARY: SECRET, **servers.variables()}):
        async with servers.listening():
            scene = WeakNetwork(folder, facts, SMALL, servers)
            async with scene.running(SMALL, silent):
                yield scene


def scratch(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("verify")


async def seen(scene: Inside, name: str) -> str:
    """What a probe says that must fail."""
    (probe,) = select((name,))
    verdict, text = await judged(probe, scene)
    assert verdict == "failed", f"{name}: {verdict}: {text}"
    return text


@pytest.mark.parametrize(
    "name",
    [
        "share-content-from-jail",
        "share-names-from-jail",
        "share-metadata-from-jail",
        "masked-file",
        "git-hooks-and-config",
        "environment-of-the-host",
        "memory-of-the-machine",
    ],
)
async def test_a_weakened_sandbox_is_seen(weak: Weak, name: str) -> None:
    assert await seen(weak, name)


async def test_an_open_run_folder_is_seen(weak: Weak) -> None:
    weak.sandbox.folder.chmod(0o755)
    try:
        assert "755" in await seen(weak, "run-folder-modes")
    finally:
        weak.sandbox.folder.chmod(0o700)


async def test_a_process_that_listens_is_seen(weak: Weak) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert str(server.getsockname()[1]) in await seen(weak, "nothing-listens")


async def test_a_helper_with_a_variable_of_the_host_is_seen(
    weak: Weak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corral.verify.processes.Helper.environment", lambda _self: {CANARY: "x"})
    assert "variables" in await seen(weak, "helper-environment")


async def test_a_sandbox_that_is_still_there_is_seen(weak: Weak) -> None:
    assert "live on" in await seen(weak, "nothing-is-left")


@pytest.mark.parametrize(
    "name",
    [
        "other-names-from-the-jail",
        "models-that-are-not-listed",
        "budget-that-is-spent",
        "requests-a-minute",
    ],
)
async def test_a_policy_that_allows_too_much_is_seen(weak_network: WeakNetwork, name: str) -> None:
    assert await seen(weak_network, name)


async def test_a_key_that_was_passed_in_is_seen(weak_network: WeakNetwork) -> None:
    await weak_network.root(f"""
with open("/tmp/key", "w") as file:
    file.write({weak_network.servers.key!r})
outcome["held"] = "done"
""")
    assert "memory" in await seen(weak_network, "key-in-the-guests-memory")


async def test_a_log_that_is_open_to_others_is_seen(weak_network: WeakNetwork) -> None:
    from corral.paths import log_dir

    await weak_network.jail("outcome['up'] = 'yes'")
    path = log_dir(weak_network.plan.name) / "network.jsonl"
    path.touch()
    path.chmod(0o644)
    try:
        assert "open to others" in await seen(weak_network, "key-in-logs-and-transcripts")
    finally:
        path.chmod(0o600)


@pytest.mark.parametrize("name", ["neighbours-files", "neighbours-memory", "neighbours-sockets"])
async def test_what_an_agent_has_of_another_is_seen(weak_network: WeakNetwork, name: str) -> None:
    """As if both were in one jail: the second one's things are in the first one's."""
    await weak_network.jail(SET_UP.replace("WHO", "two"))
    weak_network.neighbours = True
    assert "another agent's" in await seen(weak_network, name)
