"""What a program writes cannot have the user's terminal type, copy, print or change anything.

The list is of what terminals have been made to do: titles that are typed (CVE-2003-0063), DECRQSS
(CVE-2008-2383), fonts (CVE-2022-45063), pictures with repeats (CVE-2022-24130) and so on.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from corral.cli.playing import Player, text
from corral.paths import log_dir
from corral.terminals import cast, recordings
from corral.terminals.drawing import PLAIN
from corral.terminals.emulator import CLEAN, Emulator
from tests.support.terminals import terminal

ATTACKS = {
    "answerback, which terminals type": "\x05",
    "a title that is typed": "\x1b]0;\nrm -rf ~\n\x07\x1b[21t",
    "an icon's title that is typed": "\x1b]1;\nrm -rf ~\n\x07\x1b[20t",
    "a title from the stack": "\x1b[22;0t\x1b[23;0t",
    "the setting that is told, with a command in it": "\x1bP$q\nrm -rf ~\n\x1b\\",
    "the setting that is told, in eight bits": "\x90$q\nrm -rf ~\n\x9c",
    "a capability that is told": "\x1bP+q0a726d0a\x1b\\",
    "a font's name that is told": "\x1b]50;\nrm -rf ~\n\x07\x1b]50;?\x07",
    "the clipboard, written": "\x1b]52;c;cm0gLXJmIH4K\x07",
    "the clipboard, read": "\x1b]52;c;?\x07",
    "the clipboard, kitty's way": "\x1b]5522;type=read;Lg==\x1b\\",
    "the clipboard, iTerm's way": "\x1b]1337;Copy=;cm0gLXJmIH4K\x07",
    "a colour that is told": "\x1b]4;1;?\x07\x1b]10;?\x07\x1b]11;?\x1b\\",
    "colours that hide": "\x1b]10;#000000\x07\x1b]11;#000000\x07",
    "where the cursor is": "\x1b[6n\x1b[?6n\x9b6n",
    "what the terminal is": "\x1b[c\x1b[>c\x1b[=c\x1bZ\x1b[>q\x9bc",
    "modes and parameters that are told": "\x1b[?1$p\x1b[4$p\x1b[x\x1b[1x\x1b[&x",
    "what is on the screen, as checksums": "\x1b[1;1;1;1;24;80*y\x1b[2*x",
    "keys of a terminal's own, set": "\x1bP0;1|17/0a726d0a\x1b\\",
    "macros": "\x1bP1;0;1!z0a726d0a\x1b\\\x1b[1*z",
    "printing": "\x1b[5i evil \x1b[4i\x1b[?5i\x1b[0i",
    "a window that is moved, resized, hidden": "\x1b[3;0;0t\x1b[8;1;1t\x1b[2t\x1b[9;1t\x1b[5t",
    "the width of the screen": "\x1b[?40h\x1b[?3h",
    "another terminal (VT52), which answers, too": "\x1b[?2l\x1bZ",
    "controls of eight bits from now on": '\x1b G\x1b%@\x1b[62;0"p',
    "keys in other codes, so that none detaches": "\x1b[>4;2m\x1b[>1u\x1b[=1;1u\x1b[?u",
    "line feeds that are returns": "\x1b[20h",
    "a keyboard that is locked": "\x1b[2h",
    "pictures that are files of yours": "\x1b_Ga=T,t=f;L2V0Yy9wYXNzd2Q=\x1b\\",
    "pictures with repeats": "\x1bPq#1!2147483647@\x1b\\",
    "characters of a font of its own": "\x1bP1;1;1{ @~~~~\x1b\\",
    "links to what they do not say": "\x1b]8;;file:///etc/passwd\x07https://good\x1b]8;;\x07",
    "a message on the desktop": "\x1b]9;evil\x07\x1b]777;notify;evil;evil\x07\x1b]99;;evil\x1b\\",
    "a folder and marks for the shell": "\x1b]7;file://evil/\x07\x1b]133;C\x07\x1b]633;E;evil\x07",
    "files that are sent": "\x1b]1337;File=inline=0:ZXZpbA==\x07",
    "files that are fetched": "\x1b]1337;RequestUpload=format=tgz\x07",
    "what tmux passes on": "\x1bPtmux;\x1b\x1b]52;c;ZXZpbA==\x07\x1b\\",
    "what screen passes on": "\x1bP\x1b]52;c;ZXZpbA==\x07\x1b\\",
    "a privacy message, a string without an end": "\x1b^evil\x1b\\\x1bXevil\x1b\\\x1b]0;evil",
    "what has left the screen, erased": "\x1b[3J",
    "a reset": "\x1bc\x1b[!p",
    "text that runs backwards": "\u202eevil\u2066\u200f",
    "a sequence in a sequence": "\x1b[\x1b]52;c;ZXZpbA==\x07\x1b[6\x1b[21t\x1b[2\x051t",
    "cut by what ends sequences": "\x1b[2\x181t\x1b]52;\x1ac;ZXZpbA==\x07",
    "bytes that are no text": b"\xff\x9b21t\xc2\x9b21t\xe2\x9b21t".decode("latin-1"),
}


def passed(found: Emulator, attack: str) -> str:
    return found.feed(attack.encode()).clean


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_only_drawing_is_given_on(attack: str) -> None:
    found = Emulator(24, 80)
    for pieces in ([attack], list(attack)):
        shown = "".join(passed(found, piece) for piece in pieces)
        assert CLEAN.fullmatch(shown)
        # Of what can be passed on, these ask for nothing: no final character that a question has.
        for sequence in shown.split("\x1b")[1:]:
            assert sequence[:1] in "[M>=(" and "$" not in sequence[:8]
            assert not sequence.startswith(("[?2l", "[?3", "[20h", "[2h", "[?40"))
    passed(found, "\x07\x1b\\\x18safe")
    assert "safe" in found.screen.text()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_recording_of_whomever_is_played_as_drawing(attack: str) -> None:
    happened: list[cast.Header | cast.Event] = [
        cast.Header(version=2, width=80, height=24, title=attack, command=attack),
        cast.Event(0.1, "o", attack),
        cast.Event(0.2, "i", attack),
        cast.Event(0.3, attack, attack),
        cast.Event(0.4, "r", attack),
    ]
    for window in ((24, 80), (10, 30)):
        for _wait, piece in Player(window).pieces(happened, 1.0, 2.0):
            assert CLEAN.fullmatch(piece)
    for line in text(happened):
        assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in line)


def test_replay_of_a_file_that_was_tampered_with_drives_no_terminal(project: Path) -> None:
    """At a real terminal, to its end."""
    folder = log_dir("tampered") / recordings.RECORDINGS
    path = recordings.new_path(folder, 1, "main")
    lines = [cast.header(24, 80, time.time(), title="", command="")]
    lines += [cast.event(0.01, "o", f"{attack}\x07\x1b\\\x18") for attack in ATTACKS.values()]
    path.write_bytes(b"".join([*lines, cast.event(0.02, "o", "\r\nthe end\r\n")]))
    with terminal(project, ["replay", "tampered"], rows=24, columns=80) as person:
        assert person.wait() == 0
        seen = person.rest().decode()
    assert "the end" in seen
    assert seen.startswith("\x1b[?1049h" + PLAIN) and "\x1b[?1049l" in seen
    assert CLEAN.fullmatch(seen)
