"""The gateway of one sandbox: started with it, waited for by nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec

from ..errors import HostError
from ..events import Report
from ..gateway.account import Account, Spent
from ..gateway.config import SPENT, Config
from ..host import Facts
from ..paths import log_dir, state_dir
from ..plan import Plan
from ..proc import Helpers
from .doors import FOLDER, Door, opened, writable_folders

_PACKAGES = ("aiohttp", "yarl", "msgspec")


@contextlib.asynccontextmanager
async def opened_gateway(
    plan: Plan,
    helpers: Helpers,
    run_folder: Path,
    facts: Facts,
    environ: Mapping[str, str],
    report: Report,
    *,
    kept: bool,
) -> AsyncIterator[Callable[[int], Path]]:
    """Where the gateway listens for an agent; the plan has a gateway.

    kept: the sandbox stays, so what it spent is kept for its next start. environ: the user's
    environment, in which keys are looked for. Raises HostError, ProcessError.
    """
    config = configured(plan, run_folder.name, kept=kept)
    door = Door(
        what="the gateway",
        module="corral.gateway",
        packages=_PACKAGES,
        config=msgspec.json.encode(config),
        sockets=tuple(f"gateway-{agent}" for agent in config.agents),
        keys={gateway.name: gateway.key for gateway in plan.gateways if gateway.key is not None},
        folder=gateway_folder(plan.name),
        guests=writable_folders(plan),
    )
    async with opened(door, helpers, run_folder, facts, environ, report):
        yield lambda agent: run_folder / "sockets" / f"gateway-{agent}"


def configured(plan: Plan, life: str, *, kept: bool) -> Config:
    """What the gateway of this plan is told."""
    return Config(
        gateways=plan.gateways,
        agents=tuple(agent.number for agent in plan.agents),
        allowed={a.number: a.gateways for a in plan.agents if a.gateways is not None},
        life=life,
        kept=kept,
        folder=FOLDER,
    )


def spent(name: str) -> dict[int, Spent]:
    """What each agent of the sandboxes called `name` has spent, at all gateways together.

    Empty where nothing is known of it.
    """
    folder = existing_folder(name)
    if folder is None:
        return {}
    try:
        account = msgspec.json.decode((folder / SPENT).read_bytes(), type=Account)
    except (OSError, msgspec.MsgspecError):  # the gateway tells of one that cannot be read
        return {}
    found: dict[int, Spent] = {}
    for agents in account.gateways.values():
        for number, each in agents.items():
            found[number] = found.get(number, Spent()) + each
    return found


def gateway_folder(name: str) -> Path:
    """What the gateway keeps of the sandboxes called `name`, the one place it writes to."""
    folder = log_dir(name) / "gateway"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {folder}: {error.strerror}.") from error
    return folder


def existing_folder(name: str) -> Path | None:
    """The same, for who looks and makes nothing; None where no gateway has kept anything."""
    if "/" in name or name.startswith("."):
        return None
    folder = state_dir() / "logs" / name / "gateway"
    return folder if folder.is_dir() else None
