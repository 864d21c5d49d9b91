"""Words of a line that are corral's own, and words of what it runs."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from corral.cli import inside
from corral.cli.attach import Command
from corral.cli.exec import command


@pytest.mark.parametrize(
    ("line", "agent", "argv"),
    [
        ("app make -j2 --agent 3", 1, "make -j2 --agent 3"),
        ("app --agent 2 -- make -- -x", 2, "make -- -x"),
        ("--agent=2 app -w /x -eA=b make -e C", 2, "make -e C"),
        ("-ie A=b app -Tw /x - --json", 1, "- --json"),
        ("-i -- app make -i", 1, "make -i"),
    ],
)
def test_what_follows_the_command_of_exec_is_its_own(
    line: str, agent: int, argv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[str, tuple[str, ...], int]] = []

    def run(name: str, asked: Command, *, agent: int, **_options: Any) -> int:
        found.append((name, tuple(asked.argv), agent))
        return 0

    monkeypatch.setattr(inside, "run", run)
    said = CliRunner().invoke(command, line.split())
    assert said.exit_code == 0, said.output
    assert found == [("app", tuple(argv.split()), agent)]
