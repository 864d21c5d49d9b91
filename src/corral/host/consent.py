"""Asking the user before this machine is changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

Confirm = Callable[[str], bool | None]
"""Asks a question: True for yes, False for no, None when nobody can be asked."""


def ask_on_terminal(question: str) -> bool | None:
    """Ask on the terminal, on stderr so that it never mixes with output. Only y or yes is a yes."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def unattended(assume_yes: bool, environ: Mapping[str, str]) -> bool:
    """Whether no question is to be asked: --yes, or CI=true as CI services set it."""
    return assume_yes or environ.get("CI", "").lower() in ("true", "1")
