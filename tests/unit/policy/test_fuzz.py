"""The fuzz targets: over their corpus, and for a few seconds each with atheris."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[2] / "fuzz" / "corpus"
RUNS = 3000


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_holds(target: str) -> None:
    seeds = sorted((CORPUS / target).iterdir())
    assert seeds
    for seed in seeds:
        TARGETS[target](seed.read_bytes())


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not to be had for this Python"
)
@pytest.mark.parametrize("target", TARGETS)
def test_a_few_thousand_mutations_find_nothing(target: str, tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", target, f"-runs={RUNS}", "-max_total_time=20"),
            *("-max_len=4096", f"-artifact_prefix={found}/", str(tmp_path), str(CORPUS / target)),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    assert not list(found.iterdir())
