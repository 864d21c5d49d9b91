"""From attempts to verdicts, from verdicts to an exit status: nothing is proven by accident."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

import pytest

from corral.errors import HostError, UsageError
from corral.verify import GUARANTEES, all_probes, by_guarantee, exit_status, select, worst
from corral.verify.judging import refused, succeeded
from corral.verify.model import Breach, Family, NotTried, Probe, Result, Verdict
from corral.verify.registry import Registry
from corral.verify.run import Wanted, judged


def result(verdict: Verdict, guarantee: str = "paths") -> Result:
    return Result(
        id="some",
        family="exports",
        guarantee=guarantee,
        verdict=verdict,
        says="Something is tried.",
        seen="",
        cites=(),
        seconds=0.0,
    )


@pytest.mark.parametrize(
    ("verdicts", "together", "status"),
    [
        (["proven", "proven"], "proven", 0),
        (["proven", "degraded"], "degraded", 3),
        (["degraded", "failed", "proven"], "failed", 1),
        ([], "degraded", 3),
    ],
)
def test_several_prove_no_more_than_the_worst(
    verdicts: list[Verdict], together: str, status: int
) -> None:
    assert worst(verdicts) == together
    assert exit_status(result(verdict) for verdict in verdicts) == status


def test_results_are_kept_by_guarantee() -> None:
    found = by_guarantee([result("proven"), result("failed", "jail"), result("degraded")])
    assert {key: [r.verdict for r in each] for key, each in found.items()} == {
        "paths": ["proven", "degraded"],
        "jail": ["failed"],
    }


def test_refused_is_what_was_tried_and_failed_as_expected() -> None:
    assert refused({"a": "EROFS", "b": "EROFS"}, "EROFS", at_least=2) == "2 refused: EROFS 2"
    with pytest.raises(Breach, match="went through: b"):
        refused({"a": "EROFS", "b": "done"}, "EROFS")


@pytest.mark.parametrize(
    "outcome",
    [{"a": "ENOSYS"}, {"a": "EROFS"}, {}, {"broken": "NameError"}],
    ids=["another errno", "too few", "none", "broken"],
)
def test_what_could_not_be_tried_is_not_refused(outcome: dict[str, str]) -> None:
    with pytest.raises(NotTried):
        refused(outcome, "EROFS", at_least=2)


def test_a_control_must_succeed() -> None:
    succeeded({"a": "done", "b": "EROFS"}, ["a"])
    for outcome in ({"a": "EROFS"}, {}):
        with pytest.raises(NotTried):
            succeeded(outcome)


def scripted(raises: BaseException | None) -> Probe:
    family = Registry("vm")

    @family.probe("scripted", "own-machine", "Nothing is tried.", scene="host")
    async def run(_scene: object) -> str:
        if raises is not None:
            raise raises
        return "seen"

    return family.probes[0]


@pytest.mark.parametrize(
    ("raises", "verdict"),
    [
        (None, "proven"),
        (Breach("it went through"), "failed"),
        (NotTried("no python"), "degraded"),
        (HostError("no bubblewrap"), "degraded"),
        (KeyError("a fault of the probe"), "degraded"),
        (TimeoutError(), "degraded"),
    ],
)
def test_only_a_probe_that_says_so_has_proven_something(
    raises: BaseException | None, verdict: str
) -> None:
    found, seen = asyncio.run(judged(scripted(raises), None))
    assert found == verdict
    assert seen


def test_a_selection_is_of_families_and_ids() -> None:
    families = {probe.family for probe in select(("vm", "link-race"))}
    assert families == {"vm", "exports"}
    assert [probe.id for probe in select(("link-race",))] == ["link-race"]
    assert select() == all_probes()
    with pytest.raises(UsageError) as caught:
        select(("link-rase",))
    assert caught.value.hint == "Did you mean “link-race”?"


def test_a_projects_workspace_is_not_changed() -> None:
    wanted = Wanted(probes=all_probes(), environ={}, project=Path("/"))
    assert {probe.scene for probe in wanted.possible()} == {*("host", "island", "any", "ended")}


def test_probes_are_well_formed() -> None:
    probes = all_probes()
    ids = [probe.id for probe in probes]
    assert len(set(ids)) == len(ids)
    for probe in probes:
        assert probe.id.replace("-", "").isalnum() and probe.id.islower(), probe.id
        assert probe.says.endswith(".") and 20 < len(probe.says) < 100, probe.id
        assert probe.family in get_args(Family)
    assert {probe.guarantee for probe in probes} == set(GUARANTEES)
