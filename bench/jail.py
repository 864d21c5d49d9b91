"""What a jail on the host costs against bare bubblewrap, and a seccomp profile against none.

Run it on a quiet machine: `python -m bench.jail [ROUNDS]`. Prints medians, ratios and their floors.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.corral import command

from corral.host import measure
from corral.jail.seccomp.compiler import compile_table
from corral.jail.seccomp.filters import filters, load
from corral.jail.seccomp.table import table
from corral.jail.seccomp.target import Target

SECONDS = 0.6  # of `corral jail -- true`, most of it Python's imports
PROFILE_RATIO = 1.5  # of a loop of system calls with the default profile to one without
LOOP = "import os, time\nt = time.perf_counter()\nfor _ in range(300000): os.getppid()\n"
LOOP += "print(time.perf_counter() - t)"


def median(work: Callable[[], float], rounds: int) -> float:
    """The median of so many measurements, in seconds."""
    return statistics.median(work() for _ in range(rounds))


def timed(argv: Sequence[str], folder: Path) -> float:
    """Seconds that a command takes."""
    began = time.perf_counter()
    subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    facts = measure()
    assert facts.bwrap is not None
    bare = [*facts.bwrap.argv, "--unshare-all", "--ro-bind", "/usr", "/usr"]
    bare += [*("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"), "/usr/bin/true"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        floor = median(lambda: timed(bare, folder), rounds)
        jail = median(lambda: timed(command("jail", "-T", "--", "true"), folder), rounds)

        def loop(profile: str) -> float:
            options = ("jail", "-T", "--seccomp", profile, "--", "/usr/bin/python3", "-c", LOOP)
            done = subprocess.run(command(*options), cwd=folder, capture_output=True, check=True)
            return float(done.stdout)

        none, default = (median(lambda p=p: loop(p), rounds) for p in ("none", "default"))  # type: ignore[misc]  # a lambda's default
    target = Target(machine=facts.arch, kernel=(6, 1))
    profile = load("default")
    assert profile is not None
    where = table(profile, target)

    def compiled() -> float:
        began = time.perf_counter()
        compile_table(where, target.machine)
        return time.perf_counter() - began

    def kept() -> float:
        began = time.perf_counter()
        filters("default", "errno", target)
        return time.perf_counter() - began

    print(f"bare bubblewrap       {floor:.3f} s")
    print(f"corral jail -- true   {jail:.3f} s (at most {SECONDS} s)")
    print(f"profile compiled      {median(compiled, rounds) * 1000:.2f} ms")
    print(f"profile of the cache  {median(kept, rounds) * 1000:.2f} ms")
    print(f"calls under it        {default / none:.2f} times without (at most {PROFILE_RATIO})")
    sys.exit(0 if jail <= SECONDS and default / none <= PROFILE_RATIO else 1)


if __name__ == "__main__":
    main()
