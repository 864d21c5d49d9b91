"""What `corral agent check` makes of what happened."""

from __future__ import annotations

import msgspec

from corral import agents
from corral.agents.checking import CONTENT, Seen, judge, script, summary
from corral.agents.output import Called, Returned, Said

GOOD = Seen(
    program="/usr/bin/claude",
    installed=False,
    version="2.1.330",
    status=0,
    asked=2,
    keyed=True,
    results=True,
    file=f"{CONTENT}\n",
    events=(Called(tool="Bash", arguments="{}"), Said(text="Done."), Returned(ok=True)),
)


def verdicts(name: str, seen: Seen, *, model: bool = True) -> dict[str, bool | None]:
    return {step.name: step.ok for step in judge(agents.find(name), seen, model=model)}


def test_all_is_well() -> None:
    assert set(verdicts("claude", GOOD).values()) == {True}
    assert summary(list(judge(agents.find("claude"), GOOD, model=True)))["ok"] is True


def test_each_thing_that_is_wrong_is_told() -> None:
    for changes, name in (
        ({"version": None}, "starts"),
        ({"asked": 0}, "model"),
        ({"keyed": False}, "model"),
        ({"results": False}, "tool"),
        ({"file": None}, "file"),
        ({"file": "other"}, "file"),
        ({"events": ()}, "output"),
        ({"events": (Returned(ok=False),)}, "output"),
        ({"status": 1}, "ends"),
        ({"status": None}, "ends"),
        ({"leaks": ("its environment",)}, "key"),
    ):
        found = verdicts("claude", msgspec.structs.replace(GOOD, **changes))
        assert [step for step, ok in found.items() if ok is False] == [name], changes


def test_what_cannot_be_tried_is_no_failure() -> None:
    steps = list(judge(agents.find("gemini"), GOOD, model=False))
    assert {step.name: step.ok for step in steps} == {
        "program": True,
        "starts": True,
        "model": None,
    }
    assert summary(steps)["ok"] is True


def test_a_model_calls_the_tool_or_says_the_words() -> None:
    first, last = script(agents.find("claude"))
    assert first.tools[0][0] == "Bash"
    assert last.text
    (only,) = script(agents.find("aider"))
    assert only.text.startswith("corral-check.txt\n")
