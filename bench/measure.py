"""What the benchmarks share: medians, tables, a workspace."""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def arguments(
    description: str, *, runs: int, further: Mapping[str, Mapping[str, Any]] | None = None
) -> argparse.Namespace:
    """--runs, --json, and further options with what add_argument is told of each."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=runs, help=f"how often (default {runs})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    for option, settings in (further or {}).items():
        parser.add_argument(option, **settings)
    return parser.parse_args()


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder."""
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as folder:
        yield Path(folder)


def show(title: str, rows: Sequence[tuple[str, str]], *, as_json: bool) -> None:
    """Print a table, or the same as JSON."""
    if as_json:
        json.dump({"title": title, **dict(rows)}, sys.stdout, indent=2)
        print()
        return
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")
