"""The states of an agent, by what is heard of it and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_guest import vitals
from corral_guest.vitals import STUCK_AFTER, Vitals


@pytest.fixture
def up() -> Vitals:
    """An agent that is up."""
    made = Vitals(1)
    assert made.state == vitals.STARTING
    made.up = True
    return made


def test_an_agent_works_while_a_command_of_its_runs(up: Vitals) -> None:
    assert up.state == vitals.IDLE
    up.running.add(5)
    assert up.state == vitals.WORKING
    up.running.discard(5)
    assert up.state == vitals.IDLE


def test_an_agent_that_gives_no_sign_of_life_is_stuck_until_it_does(up: Vitals) -> None:
    assert up.beat(100.0)
    assert not up.beat(105.0), "one question at a time"
    assert up.state == vitals.IDLE
    assert not up.beat(100.0 + STUCK_AFTER)
    assert (up.state, up.reason) == (vitals.STUCK, "it gives no sign of life")
    up.running.add(5)
    assert up.state == vitals.STUCK, "whatever it should be doing"
    up.heard(120.0)
    assert (up.state, up.reason) == (vitals.WORKING, "")
    assert up.beat(121.0)


def test_time_that_an_agent_was_stopped_for_does_not_count(up: Vitals) -> None:
    assert up.beat(100.0)
    up.stood(200.0)
    up.beat(201.0)
    assert up.state == vitals.IDLE
    up.beat(200.0 + STUCK_AFTER)
    assert up.state == vitals.STUCK


def test_nothing_is_asked_of_an_agent_that_is_not_up() -> None:
    made = Vitals(1)
    assert not made.beat(1.0)
    made.up = True
    made.end("/nowhere", "its jail has ended")
    assert not made.beat(2.0)
    assert made.state == vitals.DEAD


def group(folder: Path, **files: str) -> str:
    """A control group's folder; _ is a point in a file's name."""
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)
    return str(folder)


def test_an_agent_that_ran_out_of_memory_says_so_and_keeps_its_counts(
    up: Vitals, tmp_path: Path
) -> None:
    folder = group(
        tmp_path,
        memory_events="low 0\noom 2\noom_kill 3\noom_group_kill 1\n",
        memory_current="4096\n",
        pids_current="7\n",
        cpu_stat="usage_usec 1500\nuser_usec 1000\n",
    )
    report = up.report(folder, 10.0)
    assert (report["memory"], report["pids"]) == (4096, 7)
    assert (report["cpu_usec"], report["oom_kills"]) == (1500, 3)
    up.end(folder, "its jail has ended")
    assert (up.state, up.reason) == (vitals.DEAD, "it had no memory left")
    up.begin()
    report = up.report("/nowhere", 10.0)
    assert (report["cpu_usec"], report["oom_kills"], report["pids"]) == (1500, 3, None)


def test_a_process_that_was_killed_alone_does_not_explain_the_end_of_a_jail(
    up: Vitals, tmp_path: Path
) -> None:
    folder = group(tmp_path, memory_events="oom_kill 1\noom_group_kill 0\n")
    up.end(folder, "its jail has ended")
    assert up.reason == "its jail has ended"


def test_when_something_was_heard_or_written_is_told_in_seconds(up: Vitals) -> None:
    report = up.report("/nowhere", 10.0)
    assert (report["quiet"], report["heard"]) == (None, None)
    up.heard(8.0)
    up.output = 4.0
    report = up.report("/nowhere", 10.0)
    assert (report["quiet"], report["heard"]) == (6.0, 2.0)
