"""Carries probes out: as few sandboxes as will do, each probe with an end, results as they come."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from ..errors import CorralError
from ..events import Report, silent
from ..host import Facts
from ..host.limits import capacity
from ..review.working import throw_away_copy
from ..sandbox import host_facts, sweep
from ..spec import load_spec
from .island import inhabited
from .model import Breach, NotTried, Probe, Result, Scene, Verdict
from .scenes import CANARY, Ground, Inside, Networked, Staged, variables
from .scratch import scratch
from .servers import Servers

LIMIT = 90.0  # seconds that a probe may take, under emulation


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be verified.

    project: attack a sandbox of this folder's own configuration, in place of a staged one. began,
    done: called as probes begin and end.
    """

    probes: tuple[Probe, ...]
    environ: Mapping[str, str]
    project: Path | None = None
    report: Report = silent
    began: Callable[[Probe], None] = lambda _probe: None
    done: Callable[[Result], None] = lambda _result: None

    def possible(self) -> tuple[Probe, ...]:
        """Those that can be carried out: a project's workspace is not changed for a probe."""
        if self.project is None:
            return self.probes
        return tuple(p for p in self.probes if p.scene not in ("staged", "network"))


async def verify(wanted: Wanted) -> list[Result]:
    """Carry the probes out; the results are in their order. Raises ConfigError, HostError."""
    facts = await asyncio.to_thread(host_facts, wanted.report)
    sweep()
    probes = wanted.possible()
    with scratch() as folder:
        run = _Run(wanted, folder, facts)
        with variables({CANARY: secrets.token_hex(16), **run.servers.variables()}):
            await run.everything(probes)
    order = {probe.id: number for number, probe in enumerate(probes)}
    return sorted(run.results, key=lambda result: order[result.id])


class _Run:
    """The results so far."""

    def __init__(self, wanted: Wanted, scratch: Path, facts: Facts) -> None:
        self._wanted = wanted
        self._scratch = scratch
        self._facts = facts
        self.servers = Servers(scratch)
        self.results: list[Result] = []

    async def everything(self, probes: Sequence[Probe]) -> None:
        """Each scene beside the others; in a scene one probe after the other."""
        by_scene: dict[Scene, list[Probe]] = {}
        for probe in probes:
            scene: Scene = "any" if probe.scene in ("staged", "ended") else probe.scene
            by_scene.setdefault(scene, []).append(probe)
        again = any(probe.id == "restored-twice" for probe in probes)
        # Here what is wrong with the configuration is one error, in the group one of several.
        sandbox = self._inside() if "any" in by_scene else None
        async with asyncio.TaskGroup() as group:
            second: asyncio.Future[dict[str, str]] | None = None
            if again or "network" in by_scene:
                second = asyncio.get_running_loop().create_future()
                work = self.networked(by_scene.get("network", []), second)
                group.create_task(work, name="network")
            if sandbox is not None:
                sandbox.other = second
                sandbox.ports = self.servers.ports
                group.create_task(self.sandboxed(sandbox, by_scene["any"]), name="sandbox")
            if "host" in by_scene:
                ground = Ground(self._scratch, self._facts)
                group.create_task(self.all(ground, by_scene["host"]), name="host")
            if "island" in by_scene:
                group.create_task(self.on_island(by_scene["island"]), name="island")

    def _inside(self) -> Inside:
        wanted = self._wanted
        if wanted.project is None:
            return Staged(self._scratch, self._facts, wanted.environ)
        environ = dict(wanted.environ)
        spec = load_spec(wanted.project, {}, environ, capacity=capacity(), alone=True)
        folder = self._scratch / "review"
        folder.mkdir(mode=0o700)
        return Inside(self._scratch, self._facts, throw_away_copy(spec, folder))

    async def sandboxed(self, scene: Inside, probes: Sequence[Probe]) -> None:
        """All that need one sandbox; what harms it comes last, then what looks at what is left."""
        live = [probe for probe in probes if probe.scene != "ended"]
        live.sort(key=lambda probe: probe.last)
        started = False
        try:
            async with scene.running(self._wanted.environ, self._wanted.report):
                started = True
                if isinstance(scene, Networked):
                    await scene.tell_identity()
                await self.all(scene, live)
        except CorralError as error:
            if not started:
                why = f"the sandbox did not start: {error.message}"
                for probe in probes:
                    self._add(probe, "degraded", why, 0.0)
                return
        await self.all(scene, [probe for probe in probes if probe.scene == "ended"])

    async def networked(
        self, probes: Sequence[Probe], identity: asyncio.Future[dict[str, str]]
    ) -> None:
        """All that need servers of ours. identity: gets what this second sandbox drew."""
        async with self.servers.listening():
            scene = Networked(self._scratch, self._facts, self._wanted.environ, self.servers)
            scene.tell = identity
            await self.sandboxed(scene, probes)
        if not identity.done():
            identity.cancel()

    async def on_island(self, probes: Sequence[Probe]) -> None:
        """All that need the engine and nothing else."""
        async with inhabited() as island:
            await self.all(island, probes)

    async def all(self, scene: object, probes: Iterable[Probe]) -> None:
        """One after the other."""
        for probe in probes:
            self._wanted.began(probe)
            began = time.monotonic()
            verdict, seen = await judged(probe, scene)
            self._add(probe, verdict, seen, time.monotonic() - began)

    def _add(self, probe: Probe, verdict: Verdict, seen: str, seconds: float) -> None:
        result = Result(
            id=probe.id,
            family=probe.family,
            guarantee=probe.guarantee,
            verdict=verdict,
            says=probe.says,
            seen=seen,
            cites=probe.cites,
            seconds=round(seconds, 3),
        )
        self.results.append(result)
        self._wanted.done(result)


async def judged(probe: Probe, scene: object) -> tuple[Verdict, str]:
    """The verdict on one probe, and what was seen. Only what was refused is proven."""
    try:
        async with asyncio.timeout(LIMIT):
            return "proven", await probe.run(scene)
    except Breach as breach:
        return "failed", str(breach)
    except NotTried as why:
        return "degraded", str(why)
    except TimeoutError:
        return "degraded", f"it did not end within {LIMIT:.0f} seconds"
    except CorralError as error:
        return "degraded", f"the attack could not be made: {error.message}"
    except Exception as error:  # a fault of the probe's own proves nothing
        return "degraded", f"the probe broke: {type(error).__name__}: {error}"
