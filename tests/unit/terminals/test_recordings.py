"""Recordings: asciicast v2, bounded, private, and readable whatever became of the file."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corral.cli.playing import Player, text
from corral.journal import older
from corral.terminals import cast, recordings
from corral.terminals.emulator import Emulator


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def recorder(path: Path, emulator: Emulator, clock: Clock, limit: int) -> recordings.Recorder:
    return recordings.Recorder(
        path,
        (emulator.screen.rows, emulator.screen.columns),
        title="t",
        command="sh",
        redraw=emulator.draw,
        limit=limit,
        clock=clock,
    )


def test_a_recording_is_what_asciinema_reads(tmp_path: Path) -> None:
    emulator, clock = Emulator(24, 80), Clock()
    made = recorder(path := recordings.new_path(tmp_path, 2, "main"), emulator, clock, 1 << 20)
    clock.now += 1.5
    made.output("héllo\r\n")
    made.resized(30, 100)
    clock.now += 1
    made.close("ended")
    head, *events = [json.loads(line) for line in path.read_text().splitlines()]
    assert (head["version"], head["width"], head["height"]) == (2, 80, 24)
    assert isinstance(head["timestamp"], int)
    assert [[each[0], each[1]] for each in events] == [
        *([0, "o"], [1.5, "o"], [1.5, "r"], [1.5, "o"], [2.5, "m"])
    ]
    assert events[1][2] == "héllo\r\n" and events[2][2] == "100x30"
    assert path.read_bytes().isascii()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_file_makes_way_for_one_that_begins_with_the_screen(tmp_path: Path) -> None:
    emulator, clock = Emulator(4, 20), Clock()
    made = recorder(path := recordings.new_path(tmp_path, 1, "main"), emulator, clock, 4000)
    for number in range(300):
        made.output(emulator.feed(b"line %d\r\n" % number).clean)
    made.close("ended")
    assert path.stat().st_size <= 4100 and older(path).stat().st_size <= 4100
    alone = list(cast.read(path.open("rb")))
    other = Emulator(4, 20)
    for each in alone:
        if isinstance(each, cast.Event) and each.code == "o":
            other.feed(each.data.encode())
    assert other.screen.text() == emulator.screen.text() == "line 297\nline 298\nline 299\n"
    [found] = recordings.listed(tmp_path)
    assert len(list(recordings.events(found))) > len(alone)


def test_what_fills_a_file_is_in_it_once_at_its_time_and_with_all_its_lines(
    tmp_path: Path,
) -> None:
    """Also the lines that left the screen with it, which the next file does not begin with."""
    emulator, clock = Emulator(4, 20), Clock()
    made = recorder(path := recordings.new_path(tmp_path, 1, "main"), emulator, clock, 2000)
    for chunk in range(16):
        clock.now += 1
        lines = "".join(f"line {chunk * 10 + number}\r\n" for number in range(10))
        made.output(emulator.feed(lines.encode()).clean)
    made.close("ended")
    first, then = (
        [json.loads(line) for line in each.read_text().splitlines()[1:]]
        for each in (older(path), path)
    )
    assert [each[0] for each in first] == list(range(len(first)))
    assert [each[0] for each in then[:-1]] == list(range(len(then) - 1))
    assert len(first) + len(then) == 16 + 3  # each begins with the screen; the mark
    [found] = recordings.listed(tmp_path)
    shown = "".join(each[2] for each in (*first, *then[1:]))
    assert re.findall(r"line (\d+)", shown) == [str(each) for each in range(160)]
    assert [line for line in text(recordings.events(found)) if line] == [
        f"line {number}" for number in range(160)
    ]


def test_only_so_many_are_kept_and_only_recordings_are_touched(tmp_path: Path) -> None:
    other = tmp_path / "notes.cast"
    other.write_text("mine")
    for _ in range(recordings.MOST + 5):
        recordings.new_path(tmp_path, 1, "main").write_bytes(b"")
    assert len(recordings.listed(tmp_path)) == recordings.MOST
    assert other.exists()
    assert recordings.listed(tmp_path, agent=2) == recordings.listed(tmp_path, session="x") == []


HEAD = b'{"version": 2, "width": 20, "height": 4}\n'


def test_what_is_damaged_is_left_out() -> None:
    lines = [
        b'[0.1, "o", "before any header"]\n',
        b'{"version": 3, "width": 20, "height": 4}\n',
        b'{"version": 2, "width": 1000000, "height": 4}\n',
        HEAD,
        b'[1.0, "o", "one"]\n',
        b'[0.5, "o", "time does not go back"]\n',
        b'["x", "o", "no time"]\n',
        b"[1.5, 7]\n",
        b"\xff\xfe\n",
        b'[2.0, "o", "cut o',
    ]
    found = list(cast.read(lines))
    assert [(each.time, each.data) for each in found if isinstance(each, cast.Event)] == [
        (1.0, "one"),
        (1.0, "time does not go back"),
    ]


@given(st.lists(st.binary(max_size=60).map(lambda line: line + b"\n"), max_size=5))
def test_any_file_can_be_read(lines: list[bytes]) -> None:
    list(text(cast.read([HEAD, *lines])))


def happened(*events: tuple[float, str, str]) -> list[cast.Header | cast.Event]:
    return [
        cast.Header(version=2, width=20, height=4),
        *(cast.Event(*each) for each in events),
    ]


def test_waits_are_those_of_the_recording_by_speed_and_limit() -> None:
    played = happened((1.0, "o", "a"), (2.0, "o", "b"), (60.0, "o", "c"))
    waits = [wait for wait, _piece in Player((4, 20)).pieces(played, 2.0, 5.0)]
    assert waits == [0.5, 0.5, 2.5, 0.0]


def test_a_window_of_another_size_shows_what_it_has_room_for() -> None:
    played = happened((1.0, "o", "0123456789"), (2.0, "r", "20x6"), (3.0, "o", "\r\nx"))
    window = Emulator(3, 5)
    for _wait, piece in Player((3, 5)).pieces(played, 1.0, 2.0):
        window.feed(piece.encode())
    assert window.screen.text() == "01234\nx\n"


def test_as_text_a_recording_is_the_lines_in_order() -> None:
    many = "".join(f"{number}\r\n" for number in range(1500))
    played = happened((0, "o", many), (1, "o", "\x1b[?1049h\x1b[Hfull"), (2, "o", "\x1b[?1049lend"))
    lines = list(text(played))
    assert lines[-4:] == ["full", "1498", "1499", "end"] or "full" in lines
    assert [line for line in lines if line.isdigit()] == [str(each) for each in range(1500)]
