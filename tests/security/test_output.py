"""What was said in a guest drives no terminal: every verb that prints it, run at one.

No machine is needed: what is on disk and in events here is what a hostile guest would have had
written, also by a keeper that did not look at it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral import paths
from corral.cli import doings, entry, keeping, narration, reviewing, tasking
from corral.cli.progress import Progress
from corral.errors import SandboxError
from corral.events import Failed, Notice, Phase, json_line
from corral.gateway.config import TRANSCRIPT
from corral.keeper.model import Problem, Request, Status, encode
from corral.keeper.store import Record
from corral.review.store import Review
from corral.sandbox.network import JOURNAL
from corral.tasks.model import Result
from tests.support import examples
from tests.support.terminals import terminal

# The window's title, a report that is typed back, C1's CSI, DEL, directions, a tag, a line of ours.
EVIL = "x\x1b]0;owned\x07\x1b[6n\x9b2J\x7f\x08\u202e\u2066\U000e0041\rcorral: all is well"
STYLES = re.compile(rb"\x1b\[[0-9;]*m")  # colours are corral's own


def harmless(shown: bytes | str) -> bool:
    """Whether nothing in it drives a terminal, but for colours, and it is no empty answer."""
    data = shown.encode("utf-8", "surrogateescape") if isinstance(shown, str) else shown
    text = STYLES.sub(b"", data).replace(b"\r\n", b"\n").decode("utf-8", "surrogateescape")
    assert "owned" in text, f"what was said did not appear at all: {text!r}"
    return all(character.isprintable() or character in "\n\t" for character in text)


def test_the_test_can_fail() -> None:
    assert not harmless(f"owned {EVIL}")
    assert not any(harmless(f"owned {c}") for c in "\x1b\x9b\x7f\u202e\r\x08\U000e0041")
    assert harmless("\x1b[31mowned\x1b[0m\r\n")


@pytest.mark.parametrize(
    "event",
    [
        {"event": "notice", "level": EVIL, "message": EVIL},
        {"event": "phase", "message": EVIL},
        {"event": "agent", "agent": EVIL, "state": EVIL, "reason": EVIL},
        {"event": "output", "stream": EVIL, "data": EVIL},
        {"event": "started", "sandbox": EVIL, "accel": EVIL, "carrier": EVIL, "seconds": EVIL},
        {"event": "exited", "status": EVIL, "seconds": EVIL},
        {"event": "command-started", "command": EVIL, "argv": [EVIL, EVIL]},
        {"event": "command-ended", "command": 1, "status": EVIL, "seconds": EVIL},
        {"event": "connection", "name": EVIL, "port": EVIL, "verdict": EVIL, "reason": EVIL},
        {"event": "failed", "message": EVIL, "hint": EVIL},
        {"event": EVIL},
    ],
    ids=lambda event: str(event["event"])[:12],
)
def test_an_event_as_a_line_for_a_person_and_as_json(event: Mapping[str, Any]) -> None:
    assert harmless(narration.line({"time": 1.0, **event}))
    line = json_line({"time": 1.0, **event})
    assert harmless(line) and line.count(b"\n") == 1
    assert json.loads(line) == {"time": 1.0, **event}, "and says the same to a program"
    assert json_line({"word": "Grüße, 日本 🙂"}) == '{"word":"Grüße, 日本 🙂"}\n'.encode()


def test_what_corral_says_itself(capsys: pytest.CaptureFixture[str]) -> None:
    entry.show(SandboxError(EVIL, hint=EVIL))
    keeping.say(EVIL)
    reviewing.say(EVIL)
    progress = Progress()
    progress(Notice(level="warning", message=EVIL))
    progress.stop()
    said = capsys.readouterr().err
    assert said.count("owned") == 5 and harmless(said)


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "started", "command": EVIL, "argv": [EVIL], "session": EVIL},
        {"kind": "ended", "command": EVIL, "status": EVIL, "session": EVIL},
        {"kind": "output", "text": f"{EVIL}\nowned"},
        {"kind": "agent", "state": EVIL, "reason": EVIL},
        {"kind": "task", "task": EVIL, "status": EVIL},
        {"kind": "files", "added": [EVIL], "modified": [EVIL], "deleted": [EVIL]},
    ],
    ids=lambda record: str(record["kind"]),
)
def test_what_an_agent_did_in_the_transcript(record: dict[str, Any]) -> None:
    assert harmless("\n".join(doings.lines({"time": 1.0, "agent": EVIL, **record})))


def test_what_a_task_came_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result(
        id="1", agent=1, action="run", status="failed", error=EVIL, hint=EVIL, stdout=EVIL,
        stderr=EVIL,
    )  # fmt: skip
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    tasking.show(result, as_json=False)
    said = "".join(capsys.readouterr())
    assert said.count("owned") == 4 and harmless(said)


def test_a_spinner_says_it_harmlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress()
    progress(Phase(name="boot", message=EVIL))
    shown = progress._message
    progress.stop()
    assert harmless(shown)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder after a hostile guest, of a sandbox called app; the project's folder."""
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PAGER", "cat")  # less has words of its own for a terminal
    project = tmp_path / "project"
    project.mkdir()
    record = Record("app")
    record.folder.mkdir(mode=0o700)
    (record.folder / "request.json").write_bytes(
        encode(Request(spec=examples.spec(), environ={}, created=1.0))
    )
    problem = Problem.of(SandboxError(EVIL, hint=EVIL))
    status = Status(state="failed", since=time.time(), problem=problem, notices=(EVIL,))
    (record.folder / "status.json").write_bytes(encode(status))
    events = (Notice(level="warning", message=EVIL), Failed(message=EVIL, hint=EVIL, status=125))
    (record.folder / "events.jsonl").write_bytes(
        b"".join(
            json_line({"time": 1.0, "sandbox": "app", **msgspec.to_builtins(event)})
            for event in events
        )
    )
    (record.folder / "console.log").write_bytes(EVIL.encode() + b"\r\n\xff\xc2")
    connection = {
        "event": "connection", "time": 1.0, "agent": 1, "name": EVIL, "port": 1, "address": EVIL,
        "verdict": EVIL, "reason": EVIL, "rule": EVIL,
    }  # fmt: skip
    (paths.log_dir("app") / JOURNAL).write_text(json.dumps(connection) + "\n")
    said = {"role": EVIL, "content": [{"type": "text", "text": EVIL}, {"type": EVIL}]}
    asked = {"messages": [said], "system": EVIL, "tools": [{"name": EVIL}]}
    records = (
        {
            "kind": "request",
            "time": 1,
            "agent": EVIL,
            "gateway": EVIL,
            "model": EVIL,
            "body": asked,
        },
        {
            "kind": "response",
            "agent": EVIL,
            "body": {"error": EVIL, "content": EVIL},
            "ended": EVIL,
        },
        {"kind": "refused", "agent": EVIL, "gateway": EVIL, "error": EVIL},
    )
    kept = paths.log_dir("app") / "gateway"
    kept.mkdir()
    (kept / TRANSCRIPT).write_text("".join(json.dumps(r) + "\n" for r in records))
    with Review("app").begin(str(project), None) as begun:
        evil = EVIL.replace("/", "")
        Path(begun.works[1], evil).write_text(f"owned {EVIL}\n")
        Path(begun.works[1], "l").symlink_to(f"/owned{EVIL}")
    return project


@pytest.mark.parametrize(
    "arguments",
    [
        ("logs", "app"), ("logs", "app", "--console"), ("events", "app"), ("ps", "-a"),
        ("ps", "-a", "--json"), ("inspect", "app"), ("net", "log", "app"),
        ("net", "log", "app", "--json"), ("transcript", "app"), ("transcript", "app", "--json"),
        ("diff", "app"), ("diff", "app", "--stat"), ("diff", "app", "--json"),
        ("apply", "app", "--yes-dangerous"), ("wait", "app"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_at_a_terminal(home: Path, arguments: tuple[str, ...]) -> None:
    with terminal(home, arguments) as person:
        person.wait(30)
        shown = person.rest()
    if arguments[0] == "apply":
        shown += b"owned"  # it says no names of what it applied
    assert harmless(shown), shown
