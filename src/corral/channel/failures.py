"""Failures that many tasks meet at once, and text of a guest made safe to show."""

from __future__ import annotations

from corral.errors import CorralError

MAX_TEXT = 4096


def printable(text: str) -> str:
    """Text from a guest without control characters, which could drive a terminal, and not long."""
    shown = text[:MAX_TEXT]
    if not shown.isprintable():
        shown = "".join(
            each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
            for each in shown
        )
    return shown if len(text) <= MAX_TEXT else f"{shown} ..."


def again(failure: CorralError) -> CorralError:
    """The same failure as a new exception, so that many tasks can raise it at once."""
    copy = type(failure)(failure.message, hint=failure.hint, detail=failure.detail)
    copy.__cause__ = failure.__cause__
    return copy
