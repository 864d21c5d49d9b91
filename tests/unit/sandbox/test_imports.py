"""What a start imports before QEMU starts: what every sandbox needs, and no more."""

from __future__ import annotations

import subprocess
import sys

SOME = (
    "corral.gateway.account",
    "corral.images.fetch",
    "corral.network",
    "corral.sandbox.gateway",
    "corral.sandbox.secrets",
    "corral_guest.debug",
    "h11",
    "importlib.metadata",
)


def test_what_only_some_sandboxes_need_is_imported_by_those() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import corral.cli.session, sys; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    modules = set(found.stdout.split())
    assert "corral.sandbox.start" in modules
    assert modules.isdisjoint(SOME), modules.intersection(SOME)
