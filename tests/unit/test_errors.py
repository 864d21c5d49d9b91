"""The error tree is what the top of errors.py says, and every error can be shown to a user."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import corral
from corral import errors
from corral.errors import CorralError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, CorralError)
}


def drawn_tree() -> dict[str, str]:
    """Each class in the drawing of the docstring, with the class it is drawn below."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^( *[│├└─ ]*)([A-Z]\w+Error)\b", line)
        if match is None:
            continue
        column, name = len(match[1]), match[2]
        while path and path[-1][0] >= column:
            path.pop()
        parents[name] = path[-1][1] if path else "Exception"
        path.append((column, name))
    return parents


def test_the_drawing_matches_the_classes() -> None:
    assert drawn_tree() == {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}


def test_the_drawing_names_the_exit_statuses() -> None:
    drawing = errors.__doc__ or ""
    for name, kind in CLASSES.items():
        own = "exit_status" in vars(kind)
        line = next(line for line in drawing.splitlines() if re.search(rf"\b{name}\b", line))
        numbers = re.findall(r"exit status (\d+)", line)
        assert numbers == ([str(kind.exit_status)] if own else []), name


def test_no_error_for_users_is_defined_anywhere_else() -> None:
    root = Path(corral.__file__).parent
    pattern = re.compile(rf"^class \w+\((?:{'|'.join(CLASSES)})\b", re.MULTILINE)
    elsewhere = [
        str(file.relative_to(root))
        for file in root.rglob("*.py")
        if file.name != "errors.py" and pattern.search(file.read_text())
    ]
    assert elsewhere == []


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_error_has_a_docstring_and_a_status_that_a_shell_can_carry(
    kind: type[CorralError],
) -> None:
    assert kind.__doc__
    assert 1 <= kind.exit_status <= 127


def test_an_error_carries_what_happened_the_next_step_and_the_evidence() -> None:
    error = CorralError("it broke.", hint="Mend it.", detail="line 1\nline 2")
    assert (str(error), error.message) == ("it broke.", "it broke.")
    assert (error.hint, error.detail) == ("Mend it.", "line 1\nline 2")
