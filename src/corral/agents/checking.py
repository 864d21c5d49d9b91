"""What `corral agent check` asks of a recipe, and what it makes of what happened. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ..scripted.model import Reply
from .model import Recipe
from .output import OutputEvent, Returned, Said

FILE, CONTENT = "corral-check.txt", "checked"
PROMPT = f"Write the word {CONTENT} into the file {FILE}, and nothing else."
LAST_WORDS = "That is done."


class Step(Struct, frozen=True, kw_only=True):
    """One thing that has to work. ok: None where it was not tried. detail: what was seen."""

    name: str
    ok: bool | None
    detail: str = ""


class Seen(Struct, frozen=True, kw_only=True):
    """What happened. version: what the program says it is, None when it did not start.

    status: of the headless run, None when it did not end in time. asked: requests that the model
    got; keyed: whether each had the gateway's key; results: whether a tool's result came back.
    file: what is in FILE, None without one. leaks: where the key was found in the sandbox. events:
    of its output.
    """

    program: str
    installed: bool
    version: str | None
    status: int | None = None
    asked: int = 0
    keyed: bool = False
    results: bool = False
    file: str | None = None
    leaks: Sequence[str] = ()
    events: Sequence[OutputEvent] = ()
    errors: str = ""


def script(recipe: Recipe) -> tuple[Reply, ...]:
    """What the model says: the tool's call, then that it is done."""
    check = recipe.table.check
    if not check.tool:
        return (Reply(text=check.text.strip("\n") or LAST_WORDS),)
    call = (check.tool, check.arguments or {})
    return Reply(text="I write it.", tools=(call,)), Reply(text=check.text or LAST_WORDS)


def judge(recipe: Recipe, seen: Seen, *, model: bool) -> Iterator[Step]:
    """Each step in its order. model: whether it was run with a prompt at all."""
    how = "installed by corral" if seen.installed else "of this machine"
    yield Step(name="program", ok=True, detail=f"{seen.program}, {how}")
    yield Step(name="starts", ok=seen.version is not None, detail=seen.version or seen.errors)
    if not model:
        why = "no gateway speaks to its model" if recipe.table.headless else "it takes no prompt"
        yield Step(name="model", ok=None, detail=why)
        return
    keyed = "" if seen.keyed or not seen.asked else ", without the gateway's key"
    yield Step(
        name="model", ok=seen.asked > 0 and seen.keyed, detail=f"{seen.asked} requests{keyed}"
    )
    check = recipe.table.check
    if check.tool:
        back = "its result came back" if seen.results else "no result of it came back"
        yield Step(name="tool", ok=seen.results, detail=f"{check.tool}: {back}")
    wrote = seen.file is not None and seen.file.strip() == CONTENT
    tried = bool(check.tool or check.text)
    yield Step(
        name="file",
        ok=wrote if tried else None,
        detail=(f"{FILE} was written" if wrote else f"{FILE} is not there, or has something else")
        if tried
        else "the recipe has no [check] that says how",
    )
    yield _output(seen)
    ended = "it did not end in time" if seen.status is None else f"status {seen.status}"
    yield Step(name="ends", ok=seen.status == 0, detail=ended + _why(seen))
    found = ", ".join(seen.leaks)
    yield Step(name="key", ok=not seen.leaks, detail=f"in {found}" if found else "not in there")


def _output(seen: Seen) -> Step:
    """Whether what it printed was understood."""
    ends = [event for event in seen.events if isinstance(event, Returned)]
    if ends:
        return Step(name="output", ok=ends[-1].ok, detail=f"{len(seen.events)} events, its result")
    said = any(isinstance(event, Said) and event.text.strip() for event in seen.events)
    return Step(name="output", ok=said, detail=f"{len(seen.events)} events")


def _why(seen: Seen) -> str:
    return f": {seen.errors}" if seen.status != 0 and seen.errors else ""


def summary(steps: Sequence[Step]) -> Mapping[str, object]:
    """For --json."""
    return {
        "ok": all(step.ok is not False for step in steps),
        "steps": [{"name": s.name, "ok": s.ok, "detail": s.detail} for s in steps],
    }
