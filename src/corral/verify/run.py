"""Carries probes out: as few sandboxes as will do, each probe with an end, results as they come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from ..errors import CorralError
from ..events import Report, silent
from ..host import Facts
from ..host.limits import capacity
from ..sandbox import host_facts, sweep
from ..spec import Spec, load_spec
from . import inside
from .island import inhabited
from .model import Breach, NotTried, Probe, Result, Verdict
from .scenes import Ground, Inside, Networked, Staged
from .servers import serving

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
    parent = os.path.realpath(tempfile.gettempdir())  # noqa: ASYNC240 - before anything runs
    with tempfile.TemporaryDirectory(
        prefix="corral-verify-", dir=parent, ignore_cleanup_errors=True
    ) as name:
        scratch = Path(name)
        run = _Run(wanted)
        grounds = [probe for probe in probes if probe.scene == "host"]
        networked = [probe for probe in probes if probe.scene == "network"]
        islands = [probe for probe in probes if probe.scene == "island"]
        others = [probe for probe in probes if probe.scene in ("any", "staged", "ended")]
        async with asyncio.TaskGroup() as group:
            again = any(probe.id == "restored-twice" for probe in others)
            second = asyncio.get_running_loop().create_future() if again or networked else None
            if networked or again:
                group.create_task(run.networked(scratch, facts, networked, second), name="network")
            if others:
                if wanted.project is not None:
                    scene = Inside(scratch, facts, _spec(wanted), "corral-verify-canary")
                else:
                    scene = Staged(scratch, facts, wanted.environ, further={})
                scene.other = second
                group.create_task(run.sandboxed(scene, others), name="sandbox")
            if grounds:
                group.create_task(run.all(Ground(scratch, facts), grounds), name="host")
            if islands:
                group.create_task(run.on_island(islands), name="island")
    order = {probe.id: number for number, probe in enumerate(probes)}
    return sorted(run.results, key=lambda result: order[result.id])


def _spec(wanted: Wanted) -> Spec:
    assert wanted.project is not None
    return load_spec(wanted.project, {}, dict(wanted.environ), capacity=capacity())


class _Run:
    """The results so far."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.results: list[Result] = []

    async def sandboxed(self, scene: Inside, probes: Sequence[Probe]) -> None:
        """All that need one sandbox; what harms it comes last, then what looks at what is left."""
        live = [probe for probe in probes if probe.scene != "ended"]
        live.sort(key=lambda probe: probe.last)
        started = False
        try:
            async with scene.running(self._wanted.environ, self._wanted.report):
                started = True
                if isinstance(scene, Networked) and scene.tell is not None:
                    with contextlib.suppress(NotTried):
                        scene.tell.set_result(await scene.jail(inside.IDENTITY))
                await self.all(scene, live)
        except CorralError as error:
            if not started:
                why = f"the sandbox did not start: {error.message}"
                for probe in probes:
                    self._add(probe, "degraded", why, 0.0)
                return
        await self.all(scene, [probe for probe in probes if probe.scene == "ended"])

    async def networked(
        self,
        scratch: Path,
        facts: Facts,
        probes: Sequence[Probe],
        identity: asyncio.Future[dict[str, str]] | None,
    ) -> None:
        """All that need servers of ours. identity: gets what this second sandbox drew."""
        async with serving() as servers:
            scene = Networked(scratch, facts, self._wanted.environ, servers)
            scene.tell = identity
            await self.sandboxed(scene, probes)
        if identity is not None and not identity.done():
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
