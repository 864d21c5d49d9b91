"""What `diff`, `apply` and `discard` have in common: names, paths, words, colours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from ..errors import UsageError
from ..review.everybody import Everybody
from ..review.model import Danger
from ..review.overview import Touched
from ..review.patch import Counts, quoted
from ..review.showing import Shown
from ..review.store import Review
from ..spec import MAX_AGENTS
from ..spec.text import harmless, printable

_SAID = 100
_HEADS = (b"+++", b"---", b"diff ", b"index ", b"new ", b"deleted ", b"old ")


def known_review(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """For completion: the sandboxes with changes whose names begin so."""
    from ..review.shelf import names

    return [name for name in names() if name.startswith(begun)]


name_argument = click.argument("name", shell_complete=known_review)
paths_argument = click.argument("paths", nargs=-1, metavar="[PATH]...")
agent_option = click.option(
    "--agent",
    type=click.IntRange(1, MAX_AGENTS),
    metavar="N",
    help="Of which one of several agents.",
)


def whose(review: Review, agent: int | None) -> int:
    """The agent that is meant. Raises UsageError where that cannot be told."""
    known = review.meta().agents
    if agent is None and len(known) > 1:
        raise UsageError(
            f"{review.name} has changes of {len(known)} agents.",
            hint=f"Say whose: --agent N. All of them at a glance: corral diff {review.name}",
        )
    return known[0] if agent is None else agent


def inside(review: Review, paths: Sequence[str]) -> list[str]:
    """Paths as they are below the reviewed folder. Raises UsageError.

    Relative ones start at the current folder where that is in it, else at the folder itself.
    """
    root = review.meta().workspace
    try:
        here = os.path.realpath(".")
    except OSError:  # the current folder is gone
        here = "/"
    start = here if here == root or here.startswith(root.rstrip("/") + "/") else root
    found = []
    for path in paths:
        whole = os.path.normpath(os.path.join(start, path))  # noqa: PTH118 - path may be absolute
        if whole != root and not whole.startswith(root.rstrip("/") + "/"):
            raise UsageError(
                f"{printable(path)} is not in {printable(root)}.",
                hint=f"The sandbox {review.name} works on that folder.",
            )
        found.append("" if whole == root else os.path.relpath(whole, root))
    return found


def shown_name(path: str) -> str:
    """A name as git shows it: in quotes and with escapes where it is not plain."""
    return quoted(path).decode("ascii")


def reasons(dangers: Iterable[Danger]) -> str:
    """Why a change is dangerous."""
    return "; ".join(dict.fromkeys(danger.reason for danger in dangers))


def safe(data: bytes) -> str:
    """Bytes of a guest's as text that cannot drive a terminal, as less(1) shows them."""
    text = data.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 32 or code == 127:
        return f"^{chr(code ^ 64)}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"<{code - 0xDC00:02X}>"
    return f"<U+{code:04X}>"


def coloured(line: bytes, *, hunk: bool = False) -> str:
    """A line of a patch for a terminal. hunk: it is a line of the file, whatever it looks like."""
    text = safe(line.rstrip(b"\n"))
    if line.startswith(b"@@"):
        return click.style(text, fg="cyan")
    if not hunk and line.startswith(_HEADS):
        return click.style(text, bold=True)
    if line.startswith(b"+"):
        return click.style(text, fg="green")
    return click.style(text, fg="red") if line.startswith(b"-") else text


def stat(shown: Sequence[Shown], width: int) -> Iterator[str]:
    """What `--stat` prints: a line for each change, and their sum."""
    names = [_moved(one) for one in shown]
    room = min(max((len(name) for name in names), default=0), max(20, width - 30))
    most = max((_lines(one.lines) for one in shown), default=0)
    bar = max(5, width - room - 16)
    added = removed = 0
    for name, one in zip(names, shown, strict=True):
        short = name if len(name) <= room else "..." + name[-(room - 3) :]
        lines = one.lines or Counts()
        added, removed = added + lines.added, removed + lines.removed
        mark = click.style(" !", fg="red") if one.dangers else ""
        mark += click.style(" conflict", fg="red") if one.standing.state == "conflict" else ""
        if lines.binary:
            yield f" {short:<{room}} |   Bin{mark}"
            continue
        scale = 1.0 if most <= bar else bar / most
        plus, minus = (_scaled(number, scale) for number in (lines.added, lines.removed))
        signs = click.style("+" * plus, fg="green") + click.style("-" * minus, fg="red")
        yield f" {short:<{room}} | {lines.added + lines.removed:>5} {signs}{mark}".rstrip()
    files = f"{len(shown):,} file{'' if len(shown) == 1 else 's'} changed"
    yield f" {files}, {added:,} insertions(+), {removed:,} deletions(-)"


def _moved(one: Shown) -> str:
    name = shown_name(one.change.path)
    return f"{shown_name(one.pair.moved_from)} => {name}" if one.pair.moved_from else name


def _lines(counts: Counts | None) -> int:
    return counts.added + counts.removed if counts is not None else 0


def _scaled(number: int, scale: float) -> int:
    return max(1, round(number * scale)) if number else 0


def as_values(shown: Sequence[Shown]) -> list[dict[str, object]]:
    """Changes for programs."""
    return [
        {
            "path": one.change.path,
            "status": "R" if one.pair.moved_from else one.change.status,
            "from": one.pair.moved_from or None,
            "old_mode": one.change.old.git_mode if one.change.old else None,
            "new_mode": one.change.new.git_mode if one.change.new else None,
            "size": one.change.new.size if one.change.new else 0,
            "added": one.lines.added if one.lines else None,
            "removed": one.lines.removed if one.lines else None,
            "binary": one.lines.binary if one.lines else None,
            "state": one.standing.state,
            "reason": one.standing.reason or one.change.problem,
            "dangers": [{"rule": d.rule, "reason": d.reason} for d in one.dangers],
        }
        for one in shown
    ]


def everybody(name: str, found: Everybody) -> Iterator[str]:
    """Lines for a person: what each agent changed, then every path, then what to do."""
    for number, changes in found.changes.items():
        yield f"agent {number}: {len(changes):,} change{'' if len(changes) == 1 else 's'}"
    if not found.touched:
        return
    yield ""
    for one in found.touched:
        by = " ".join(f"{number}:{found.changes[number][one.path].status}" for number in one.agents)
        yield f"  {shown_name(one.path)}  {by}{click.style(_stated(one), fg='red')}"
    yield ""
    count = sum(1 for one in found.touched if one.state == "disagree")
    if count:
        yield (
            f"they disagree on {count:,} path{'' if count == 1 else 's'}: what is applied first "
            "stays, the other is then in conflict."
        )
    yield f"go on with: corral diff {name} --agent N | corral apply {name} --agent N"


def _stated(one: Touched) -> str:
    """What is to be said of agents at one path; each begins in its own place or nothing does."""
    if one.state != "disagree":
        return "  all the same" if one.state == "agree" else ""
    if one.blocked_by:
        first, more = shown_name(one.blocked_by[0]), len(one.blocked_by) - 1
        return f"  disagree: cannot be beside {first}" + (f" and {more:,} more" if more else "")
    return "  disagree"


def everybody_values(found: Everybody) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "path": one.path,
            "agents": [
                {"agent": number, "status": found.changes[number][one.path].status}
                for number in one.agents
            ],
            "state": one.state,
            "blocked_by": list(one.blocked_by),
        }
        for one in found.touched
    ]


def say_all(lines: Sequence[str]) -> None:
    """Some lines on standard error; of very many, which a guest may have made, how many."""
    for line in lines[:_SAID]:
        say(line)
    if len(lines) > _SAID:
        say(f"and {len(lines) - _SAID:,} more like this")


def say(text: str) -> None:
    """A line for a person, on standard error."""
    print(f"corral: {harmless(text)}", file=sys.stderr, flush=True)
