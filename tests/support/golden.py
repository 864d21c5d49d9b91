"""Golden files: texts that were read and approved once, and must not change unnoticed.

`pytest --regenerate-golden` writes them anew; read the difference before it is committed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Golden = Callable[[str, Sequence[str]], None]


def add_option(parser: pytest.Parser) -> None:
    """The option of the command line."""
    parser.addoption(
        "--regenerate-golden", action="store_true", help="Write golden files anew; read the diff."
    )


def check(file: Path, lines: Sequence[str], *, regenerate: bool) -> None:
    """Compare lines, in which newlines are shown as \\n, with those of the file."""
    shown = [line.replace("\\", "\\\\").replace("\n", "\\n") for line in lines]
    if regenerate:
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(shown) + "\n")
    kept = file.read_text().splitlines() if file.exists() else []
    if kept != shown:
        difference = difflib.unified_diff(kept, shown, f"golden/{file.name}", "now", lineterm="")
        text = "\n".join(difference)
        pytest.fail(f"not as approved (see pytest --regenerate-golden):\n{text}", pytrace=False)
