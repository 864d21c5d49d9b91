"""Fuzz one target with atheris: python -m tests.fuzz names -max_total_time=60 [CORPUS]

What it finds is written to the current folder; put it into tests/fuzz/corpus/TARGET with its fix.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["corral.policy", "corral.gateway", "idna", "h11"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    """Never returns."""
    target, rest = sys.argv[1], sys.argv[2:]
    seeds = [str(CORPUS / target)] if not any(not each.startswith("-") for each in rest) else []
    atheris.Setup([sys.argv[0], *rest, *seeds], TARGETS[target])
    atheris.Fuzz()


main()
