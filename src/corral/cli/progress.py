"""What is happening, on standard error, when it takes long and a person watches."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from ..events import Event, Notice, Phase
from ..spec.text import harmless

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

PATIENCE = 0.5  # seconds before anything is shown


class Progress:
    """A Report for terminals: the current phase beside a spinner, notices on lines of their own.

    Where standard error is no terminal, notices only.
    """

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._message = ""
        self._timer: threading.Timer | None = None
        self._status: Status | None = None

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Notice):
            self._line(f"corral: {harmless(event.message)}")
        elif isinstance(event, Phase) and self._shown:
            with self._lock:
                self._message = harmless(event.message)
                if self._status is not None:
                    self._status.update(_plain(self._message))
                elif self._timer is None:
                    self._timer = threading.Timer(PATIENCE, self._begin)
                    self._timer.daemon = True
                    self._timer.start()

    def _begin(self) -> None:
        from rich.console import Console

        with self._lock:
            if self._timer is None:
                return
            self._status = Console(stderr=True).status(_plain(self._message))
            self._status.start()

    def _line(self, text: str) -> None:
        with self._lock:
            if self._status is not None:
                self._status.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Take the spinner away; the terminal belongs to the command now."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._status is not None:
                self._status.stop()
                self._status = None


def _plain(message: str) -> Text:
    """Without markup: a message may name any path."""
    from rich.text import Text

    return Text(message)
