"""The command line of `corral verify`, with probes that do nothing."""

from __future__ import annotations

import json

import msgspec
import pytest
from click.testing import CliRunner

from corral.cli import verify as verb
from corral.verify import Probe, Result, Wanted, all_probes
from corral.verify.model import Verdict


def played(monkeypatch: pytest.MonkeyPatch, verdicts: dict[str, Verdict]) -> None:
    """In place of a run: these verdicts, and "proven" for all others."""

    async def verify(wanted: Wanted) -> list[Result]:
        found = []
        for probe in wanted.possible():
            verdict = verdicts.get(probe.id, "proven")
            wanted.began(probe)
            found.append(played_one(probe, verdict))
            wanted.done(found[-1])
        return found

    monkeypatch.setattr("corral.verify.verify", verify)


def played_one(probe: Probe, verdict: Verdict) -> Result:
    return Result(
        id=probe.id,
        family=probe.family,
        guarantee=probe.guarantee,
        verdict=verdict,
        says=probe.says,
        seen="played",
        cites=probe.cites,
        seconds=0.1,
    )


def test_everything_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, {})
    done = CliRunner().invoke(verb.command, [])
    assert done.exit_code == 0, done.output
    assert f"{len(all_probes())} probes: {len(all_probes())} proven." in done.output
    assert "failed" not in done.output


@pytest.mark.parametrize(("verdict", "status"), [("failed", 1), ("degraded", 3)])
def test_what_did_not_hold_is_told_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, verdict: Verdict, status: int
) -> None:
    played(monkeypatch, {"link-race": verdict})
    done = CliRunner().invoke(verb.command, [])
    assert done.exit_code == status
    assert f"{verdict} link-race: played" in done.output
    assert any(
        line.startswith(verdict) and "Links, paths and races" in line
        for line in done.output.splitlines()
    )


def test_json_has_the_verdict_the_guarantees_and_the_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played(monkeypatch, {"own-kernel": "failed"})
    done = CliRunner().invoke(verb.command, ["--json", "--only", "vm"])
    answer = json.loads(done.stdout)
    assert answer["verdict"] == "failed"
    (kernel,) = [each for each in answer["results"] if each["id"] == "own-kernel"]
    assert msgspec.convert(kernel, Result).verdict == "failed"
    (machine,) = [g for g in answer["guarantees"] if "own-kernel" in g["probes"]]
    assert machine["verdict"] == "failed" and machine["section"] == "Network and jail"


def test_the_project_is_left_out_of_what_would_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    played(monkeypatch, {})
    done = CliRunner().invoke(verb.command, ["--spec"])
    assert done.exit_code == 0
    assert "more need a workspace of their own" in done.output


def test_the_list_has_every_probe_and_attacks_nothing() -> None:
    done = CliRunner().invoke(verb.command, ["--list"])
    assert done.exit_code == 0
    for probe in all_probes():
        assert f"  {probe.id} " in done.output and probe.says in done.output
    done = CliRunner().invoke(verb.command, ["--list", "--json", "--only", "jail"])
    assert {each["family"] for each in json.loads(done.output)} == {"jail"}
