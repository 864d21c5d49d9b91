"""Every door is told what of the host its sandbox can change."""

from __future__ import annotations

import ast
from pathlib import Path

import corral.sandbox


def test_no_door_is_opened_without_the_folders_of_its_guests() -> None:
    """From these nothing is run for a key; a door that forgets them would find programs there."""
    doors = []
    for file in Path(corral.sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Door":
                doors.append((file.name, {keyword.arg for keyword in node.keywords}))
    assert {name for name, _arguments in doors} >= {"gateway.py", "secrets.py"}
    assert [name for name, arguments in doors if "guests" not in arguments] == []
