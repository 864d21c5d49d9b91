"""Conditions on the arguments of a call: whether they hold, and whether two can hold at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from .profile import Argument

Conditions = tuple[Argument, ...]  # of which all hold; none: always
_GREATEST = (1 << 64) - 1


def alternatives(args: Sequence[Argument]) -> list[Conditions]:
    """Conditions on one argument twice are alternatives (as runc has it), others hold together."""
    indices = [argument.index for argument in args]
    if len(indices) != len(set(indices)):
        return [(argument,) for argument in args]
    return [tuple(args)]


def holds(condition: Argument, arguments: Sequence[int]) -> bool:
    """Whether a condition is met; a missing argument is 0."""
    value = arguments[condition.index] if condition.index < len(arguments) else 0
    return _met(condition, value)


def _met(condition: Argument, value: int) -> bool:
    match condition.op:
        case "SCMP_CMP_NE":
            return value != condition.value
        case "SCMP_CMP_LT":
            return value < condition.value
        case "SCMP_CMP_LE":
            return value <= condition.value
        case "SCMP_CMP_EQ":
            return value == condition.value
        case "SCMP_CMP_GE":
            return value >= condition.value
        case "SCMP_CMP_GT":
            return value > condition.value
        case "SCMP_CMP_MASKED_EQ":
            return value & condition.value == condition.valueTwo
        case _:
            assert_never(condition.op)


def apart(first: Conditions, second: Conditions) -> bool:
    """Whether no call meets both. False also where this is not told easily: a mask and a range."""
    return any(one.index == two.index and _apart(one, two) for one in first for two in second)


def _apart(one: Argument, two: Argument) -> bool:
    for each, other in ((one, two), (two, one)):
        if each.op == "SCMP_CMP_EQ":
            return not _met(other, each.value)
    if one.op == two.op == "SCMP_CMP_MASKED_EQ":
        return bool((one.valueTwo ^ two.valueTwo) & one.value & two.value)
    ranges = (_range(one), _range(two))
    return max(least for least, _most in ranges) > min(most for _least, most in ranges)


def _range(condition: Argument) -> tuple[int, int]:
    """The least and the greatest value that can meet it."""
    value = condition.value
    match condition.op:
        case "SCMP_CMP_LT":
            return (0, value - 1)
        case "SCMP_CMP_LE":
            return (0, value)
        case "SCMP_CMP_EQ":
            return (value, value)
        case "SCMP_CMP_GE":
            return (value, _GREATEST)
        case "SCMP_CMP_GT":
            return (value + 1, _GREATEST)
        case "SCMP_CMP_NE" | "SCMP_CMP_MASKED_EQ":
            return (0, _GREATEST)
        case _:
            assert_never(condition.op)
