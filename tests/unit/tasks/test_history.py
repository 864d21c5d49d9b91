"""What is kept of tasks is right whoever writes at once: it is written in threads."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from corral.tasks import history as histories
from corral.tasks.history import Entry, History, OnDisk, Remembered
from corral.tasks.summary import Summary


def ended(number: int) -> Entry:
    moment = float(number)
    summary = Summary(
        id=str(number),
        agent=1,
        action="run",
        what="true",
        state="ended",
        status="done",
        queued=moment,
        ended=moment,
    )
    return Entry(summary=summary)


@pytest.fixture(params=["on disk", "remembered"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> History:
    return OnDisk(tmp_path / "tasks") if request.param == "on disk" else Remembered()


def test_two_that_end_at_once_make_room_once_each(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "KEPT", 2)
    for number in (1, 2):
        history.put(ended(number))
    both, surplus = threading.Barrier(2), histories._surplus

    def meeting(summaries: Iterable[Summary]) -> list[str]:
        """Both know what is too many before either removes it, unless one waits for the other."""
        found = surplus(summaries)
        try:
            both.wait(0.3)
        except threading.BrokenBarrierError:
            both.reset()
        return found

    monkeypatch.setattr(histories, "_surplus", meeting)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for put in [pool.submit(history.put, ended(number)) for number in (3, 4)]:
            put.result(10)
    assert [each.id for each in history.summaries()] == ["3", "4"]


def test_who_asks_first_while_it_is_read_waits_for_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tasks"
    for number in (1, 2, 3):
        OnDisk(folder).put(ended(number))
    again, reading, read = OnDisk(folder), threading.Event(), Path.read_bytes

    def slowly(path: Path) -> bytes:
        reading.set()
        threading.Event().wait(0.1)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", slowly)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(again.summaries)
        assert reading.wait(10)
        assert len(again.summaries()) == len(first.result(10)) == 3
