"""At the end of a run: what was refused, how often, and what would permit it."""

from __future__ import annotations

from corral.cli.refusals import MAX_KEPT, Refusals
from corral.events import Connection, Event, Notice
from corral.policy import Network


def told(*events: tuple[str, int, str]) -> list[str]:
    seen: list[Event] = []
    refusals = Refusals(seen.append, Network(mode="allow"))
    for name, port, reason in events:
        verdict = "denied" if reason else "allowed"
        refusals(
            Connection(time=1.0, agent=1, name=name, port=port, verdict=verdict, reason=reason)
        )
    assert len(seen) == len(events)  # passed on
    refusals.tell()
    return [event.message for event in seen if isinstance(event, Notice)]


def test_nothing_is_said_when_nothing_was_refused() -> None:
    assert told(("pypi.org", 443, "")) == []


def test_each_is_named_once_with_the_option_that_permits_it() -> None:
    (message,) = told(
        ("pypi.org", 443, "not on the list"),
        ("pypi.org", 443, "not on the list"),
        ("git.test", 22, "port not on the list"),
        ("2001:db8::1", 443, "not on the list"),
        ("printer.test", 80, "private address"),
    )
    assert message == (
        "5 connections were refused: pypi.org:443 (not on the list, 2 times), "
        "git.test:22 (port not on the list), [2001:db8::1]:443 (not on the list), "
        "printer.test:80 (private address). "
        "To permit them: --allow pypi.org --allow git.test:22 --allow '[2001:db8::1]:443'"
    )


def test_one_is_one() -> None:
    (message,) = told(("pypi.org", 443, "not on the list"))
    assert message.startswith("1 connection was refused: ")
    assert message.endswith("To permit it: --allow pypi.org")


def test_a_guest_that_asks_for_everything_makes_no_long_message() -> None:
    (message,) = told(*((f"n{n}.test", 443, "not on the list") for n in range(MAX_KEPT + 50)))
    assert message.startswith(f"{MAX_KEPT + 50} connections were refused: ")
    assert "and others" in message
    assert len(message) < 1000
