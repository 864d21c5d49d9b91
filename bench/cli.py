"""What the command line costs before it does anything, over the bare interpreter.

    python -m bench.cli [--runs N]

Floor: `python -I -c pass`, in turn with the others. Bars: 120 ms for --version and `run --help`,
250 ms for all that `corral run` imports.
"""

from __future__ import annotations

import subprocess
import sys
import time

from .measure import arguments, median, show

IMPORTS = "import corral.cli.entry, corral.cli.run, corral.cli.session"
COMMANDS = {
    "corral --version": (("-m", "corral", "--version"), 0.120),
    "corral run --help": (("-m", "corral", "run", "--help"), 0.120),
    "imports of corral run": (("-c", IMPORTS), 0.250),
}


def timed(*words: str) -> float:
    """Seconds for one run of this interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-I", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "", runs=15)
    floors: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.runs):
        floors.append(timed("-c", "pass"))
        for name, (words, _bar) in COMMANDS.items():
            times[name].append(timed(*words))
    base = median(floors)
    rows = [("floor: bare interpreter", f"{base * 1000:.0f} ms")]
    for name, (_words, bar) in COMMANDS.items():
        over = median(times[name]) - base
        verdict = "met" if over <= bar else "MISSED"
        rows.append(
            (name, f"+{over * 1000:.0f} ms = {median(times[name]) / base:.1f} x floor; "
                   f"bar +{bar * 1000:.0f} ms: {verdict}")
        )  # fmt: skip
    show(f"command line, medians of {options.runs}", rows, as_json=options.json)


if __name__ == "__main__":
    main()
