"""The tmux of a sandbox, as a person uses it: keys into a pane, and what that shows."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


def tmux(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """tmux ARGUMENTS, of the sandbox `name`."""
    argv = ["tmux", "-L", f"corral-{name}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=10)


def press(name: str, pane: str, *keys: str) -> None:
    """Press keys in a pane: text, or names of keys as tmux has them."""
    pressed = tmux(name, "send-keys", "-t", f"={name}:{pane}", *keys)
    assert pressed.returncode == 0, pressed


def pane_shows(name: str, pane: str, until: str, seconds: float = 40) -> str:
    """What a pane shows, once it shows `until`."""
    deadline = time.monotonic() + seconds
    while True:
        captured = tmux(name, "capture-pane", "-p", "-t", f"={name}:{pane}")
        if captured.returncode == 0 and until in captured.stdout:
            return captured.stdout
        assert time.monotonic() < deadline, captured
        time.sleep(0.2)  # tmux tells nobody


@contextlib.contextmanager
def sockets_in(folder: Path) -> Iterator[None]:
    """Sockets of tmux are in `folder` (TMUX_TMPDIR); no server is left there."""
    try:
        yield
    finally:
        for path in folder.glob("tmux-*/*"):
            subprocess.run(["tmux", "-S", str(path), "kill-server"], capture_output=True)
