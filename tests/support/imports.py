"""What importing a module brings along, in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys


def imported_with(module: str) -> set[str]:
    """The names of all modules that are loaded once `module` is imported."""
    # Without the variables by which coverage follows new processes: it imports a lot.
    environment = {name: text for name, text in os.environ.items() if "COVERAGE" not in name}
    code = f"import sys, {module}; print(*sys.modules)"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())
