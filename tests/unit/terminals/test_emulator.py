"""The terminal of a session: it shows what programs write, and passes on nothing but drawing."""

from __future__ import annotations

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.terminals.drawing import ENTER, LEAVE
from corral.terminals.emulator import CLEAN, Emulator
from corral.terminals.screen import HISTORY, MAX_CELL, MAX_COLUMNS, MAX_ROWS

ROWS, COLUMNS = 6, 20


def emulator(*pieces: bytes | str, rows: int = ROWS, columns: int = COLUMNS) -> Emulator:
    found = Emulator(rows, columns)
    for piece in pieces:
        found.feed(piece.encode() if isinstance(piece, str) else piece)
    return found


def shown(*pieces: bytes | str) -> list[str]:
    return emulator(*pieces).screen.text().splitlines()


def state(found: Emulator) -> object:
    """All that is seen, and what decides about what is seen next."""
    screen = found.screen
    return (
        [(row.chars, row.styles) for row in screen.lines],
        (screen.y, screen.x, screen.pen.style),
        (screen.top, screen.bottom, screen.insert, screen.wrap),
        (found.modes, found.keypad, found.cursor_style),
    )


def test_lines_are_shown_where_they_are_written() -> None:
    assert shown("one\r\ntwo\r\n", "\x1b[1;10Hthere\x1b[2;1H\x1b[2Know") == [
        "one      there",
        "now",
    ]


def test_what_leaves_the_top_is_kept_as_history_up_to_a_number_of_lines() -> None:
    found = emulator("".join(f"{number}\r\n" for number in range(HISTORY + 50)))
    assert found.screen.text().splitlines()[0] == str(HISTORY + 50 - ROWS + 1)
    assert found.screen.text(2).splitlines()[:2] == [str(HISTORY + 43), str(HISTORY + 44)]
    assert len(found.screen.history) == HISTORY


def test_a_program_that_fills_the_screen_leaves_the_one_before_as_it_was() -> None:
    found = emulator("before\r\n", "\x1b[?1049h\x1b[Hfull\x1b[6;1Hscreen")
    assert found.screen.text().splitlines() == ["full", "", "", "", "", "screen"]
    found.feed(b"\x1b[?1049l")
    assert found.screen.text() == "before\n"
    assert (found.screen.y, found.screen.x) == (1, 0)


def test_wide_and_combined_characters_take_the_cells_that_they_take() -> None:
    found = emulator("日本e\u0301x")
    assert found.screen.x == 6
    assert found.screen.text() == "日本e\u0301x\n"
    found.feed(b"\x1b[1;2Ho")  # over the second half of the first
    assert found.screen.text() == " o本e\u0301x\n"


def test_a_cell_holds_no_more_than_some_characters() -> None:
    found = emulator("a" + "\u0301" * 5000, *["\x1b[1;2H" + "\u0301" * 20] * 50)
    assert len(found.screen.lines[0].chars[0]) == MAX_CELL


def test_lines_are_drawn_with_the_characters_of_terminals_that_could_draw_lines() -> None:
    assert shown("\x1b(0lqk\x1b(B lqk", "\r\n\x1b)0\x0ex\x0fx") == ["┌─┐ lqk", "│x"]


def test_a_character_is_repeated_but_not_without_end() -> None:
    found = emulator("\x1b[?7la\x1b[99999999b")
    assert found.screen.text() == "a" * COLUMNS + "\n"
    assert len(found.feed(b"b\x1b[99999999b").clean) < 1100


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("\x1b[5n", b"\x1b[0n"),
        ("\x1b[3;7H\x1b[6n", b"\x1b[3;7R"),
        ("\x1b[c", b"\x1b[?62;22c"),
        ("\x1b[>c", b"\x1b[>0;0;0c"),
        ("\x1b[18t", b"\x1b[8;6;20t"),
        ("\x1b[?2004$p", b"\x1b[?2004;2$y"),
        ("\x1b[?25$p", b"\x1b[?25;1$y"),
        ("\x1b[?31337$p", b"\x1b[?31337;0$y".replace(b"31337", b"9999")),
        ("\x1bP$qm\x1b\\", b"\x1bP0$r\x1b\\"),
        ("\x1bP+q544e\x1b\\", b"\x1bP0+r\x1b\\"),
        ("\x1b[>q", b"\x1bP>|corral\x1b\\"),
    ],
)
def test_what_programs_ask_their_terminal_is_answered_here(asked: str, answered: bytes) -> None:
    update = Emulator(ROWS, COLUMNS).feed(asked.encode())
    assert update.replies == answered
    assert "n" not in update.clean and "\x1bP" not in update.clean


def test_answers_are_bounded() -> None:
    assert len(Emulator(ROWS, COLUMNS).feed(b"\x1b[6n" * 10000).replies) <= 1024


def test_a_title_is_kept_without_what_could_drive_a_terminal() -> None:
    found = emulator(
        "\x1b]0;my\x1b[31m \x07", "\x1b]2;rm -rf\n~\x07" + "\x1b]2;" + "x" * 5000 + "\x07"
    )
    assert found.title == "x" * 100
    assert emulator("\x1b]2;a\u202eb\nc\x07").title == "abc"


def test_sequences_may_be_cut_anywhere() -> None:
    said = "日\x1b[31;1mred\x1b[0m\x1b]0;title\x1b\\\x1b[2;3Hx\u0301\x1b(0q\x1bP$qm\x1b\\".encode()
    whole = emulator(said)
    pieces = emulator(*[said[at : at + 1] for at in range(len(said))])
    assert state(whole) == state(pieces)
    assert whole.title == pieces.title == "title"


def test_an_unfinished_sequence_holds_little_and_the_next_is_understood() -> None:
    found = emulator("\x1b]0;" + "t" * 100000, "\x1b[Hgood")
    assert found.screen.text() == "good\n"
    found = emulator("\x1b[" + "1;" * 5000, "1;1mgood")
    assert found.screen.text() == "good\n"
    assert found.screen.pen.style == ""
    found = emulator("\x1b" + " " * 5000, "Fgood")
    assert found.screen.text() == "good\n"


def test_no_size_is_too_large_or_too_small() -> None:
    for rows, columns in ((0, 0), (-5, 3), (10**9, 10**9)):
        found = Emulator(rows, columns)
        found.feed(b"hello\r\n" * 3)
        found.resize(columns, rows)
        assert 1 <= found.screen.rows <= MAX_ROWS and 2 <= found.screen.columns <= MAX_COLUMNS


def test_a_smaller_window_keeps_the_lines_at_the_cursor() -> None:
    found = emulator("1\r\n2\r\n3\r\n4")
    found.resize(2, 10)
    assert found.screen.text() == "3\n4\n"
    assert list(found.screen.history) == ["1", "2"]
    found = emulator("1\r\n2")
    found.resize(3, 10)
    assert found.screen.text() == "1\n2\n"


CONTROLS = "\r|\n|\r\n|\b|\t|\x0e|\x0f"
ESCAPES = "7|8|D|E|M|H|=|c|#8|(0|(B|)0|[3g|[!p|[4h|[4l|[2 q"
MODES = "?6h|?6l|?7l|?7h|?25l|?1000h|?1049h|?1049l"
WORDS = (
    st.sampled_from(["a", "hello world", "x" * 25, "日本", "e\u0301", *CONTROLS.split("|")])
    | st.sampled_from(ESCAPES.split("|")).map(lambda word: f"\x1b{word}")
    | st.sampled_from(MODES.split("|")).map(lambda word: f"\x1b[{word}")
)
NUMBERS = st.sampled_from(
    ["", "0", "1", "2", "3", "5", "7", "19", "20", "21", "99", "38;5;9", "1:2"]
)
SEQUENCES = st.builds(
    lambda numbers, final: f"\x1b[{';'.join(numbers)}{final}",
    st.lists(NUMBERS, max_size=3),
    st.sampled_from("ABCDEFGHIJKLMPSTXZ@dfmrsubae`"),
)
PROGRAMS = st.lists(WORDS | SEQUENCES, max_size=30).map("".join)
ANYTHING = st.binary(max_size=200) | st.text(
    "\x1b[]P^_X\\;:?>=!$ 0123456789mhlnctqrpu\x07\x18\x9b\x9c\x90\x05\x0eab日\u202e", max_size=200
).map(str.encode)


@settings(max_examples=300)
@given(st.lists(ANYTHING, max_size=4))
def test_nothing_but_drawing_is_given_on_whatever_is_written(pieces: list[bytes]) -> None:
    found = Emulator(ROWS, COLUMNS)
    for piece in pieces:
        assert CLEAN.fullmatch(found.feed(piece).clean)
        assert found.title.isprintable()
    assert CLEAN.fullmatch(found.draw())
    assert all(len(row.chars) == len(row.styles) == COLUMNS for row in found.screen.lines)


@settings(max_examples=300)
@given(PROGRAMS)
def test_who_watches_sees_what_the_program_shows(program: str) -> None:
    original, watcher = Emulator(ROWS, COLUMNS), Emulator(ROWS, COLUMNS)
    watcher.feed(original.feed(program.encode()).clean.encode())
    assert state(watcher) == state(original)


@settings(max_examples=300)
@given(PROGRAMS, PROGRAMS)
def test_who_joins_later_sees_the_same(before: str, rest: str) -> None:
    original, joins = emulator(before), emulator("something\x1b[31m else\x1b[2;4r\x1b[?7l")
    joins.feed(original.draw().encode())
    assert state(joins) == state(original)
    joins.feed(original.feed(rest.encode()).clean.encode())
    assert state(joins) == state(original)


@settings(max_examples=100)
@given(PROGRAMS, st.integers(1, 12), st.integers(2, 30))
def test_a_window_of_another_size_shows_the_part_that_it_has_room_for(
    program: str, rows: int, columns: int
) -> None:
    original, other = emulator(program), Emulator(rows, columns)
    other.feed(original.draw((rows, columns)).encode())
    if (rows, columns) == (ROWS, COLUMNS):
        return
    for ours, theirs in zip(original.screen.lines, other.screen.lines, strict=False):
        want = "".join(ours.chars[:columns]).rstrip()
        assert theirs.text() == want or theirs.text() == want[:-1].rstrip()  # half of a wide one


# What pyte does as terminals do. It lacks the alternate screen, takes NEL for LF, does not delete a
# line (M) above one that was never written to, and differs in what is left of a wide character.
PLAIN_WORDS = st.sampled_from(["a", "hello", "x" * 25, "\r", "\n", "\r\n", "\b", "\t", "\x1bD"])
PLAIN_SEQUENCES = st.builds(
    lambda number, final: f"\x1b[{number}{final}",
    st.integers(1, 8),
    st.sampled_from("ABCDEFGLPX@d"),
) | st.builds(lambda y, x: f"\x1b[{y};{x}H", st.integers(1, 7), st.integers(1, 21))


@settings(max_examples=300)
@given(st.lists(PLAIN_WORDS | PLAIN_SEQUENCES, max_size=25))
def test_plain_programs_look_as_in_another_emulator(program: list[str]) -> None:
    other = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(other)
    ours = Emulator(ROWS, COLUMNS)
    for piece in program:
        if piece[-1] in "P@LMX" and other.cursor.x == COLUMNS:
            continue  # past the last column pyte deletes nothing
        stream.feed(piece)
        ours.feed(piece.encode())
    assert [row.text() for row in ours.screen.lines] == [line.rstrip() for line in other.display]


def test_the_users_terminal_is_left_as_plain_as_it_was() -> None:
    found = emulator(
        "\x1b[?1049h\x1b[?1000h\x1b[?2004h\x1b[?1h\x1b=\x1b[?25l\x1b[31m\x1b[2;3r\x1b[4h"
    )
    found.feed(LEAVE.encode())
    screen = found.screen
    assert found.modes == {7, 25} and not found.keypad and found.cursor_style == 0
    assert (screen.pen.style, screen.top, screen.bottom, screen.insert) == ("", 0, ROWS - 1, False)
    assert not screen.is_alternate
    assert ENTER.startswith("\x1b[?1049h") and LEAVE.endswith("\x1b[?1049l")
