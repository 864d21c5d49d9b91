"""What comes out of a descriptor, kept to a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

LOG_BYTES = 256 * 1024
MAX_LINE = 400  # characters of a line that are shown
_DRAIN_READS = 64


class Log:
    """The last LOG_BYTES out of a descriptor; reading never stops, so no writer blocks.

    tap: called with all that is read, which must not take long.
    """

    def __init__(self, echo: int | None = None) -> None:
        self._data = bytearray()
        self._fd = -1
        self._echo = echo
        self.tap: Callable[[bytes], None] | None = None
        self.ended = asyncio.Event()

    def attach(self, fd: int) -> None:
        """Read from fd, which becomes ours, until its end."""
        os.set_blocking(fd, False)
        self._fd = fd
        asyncio.get_running_loop().add_reader(fd, self._read)

    def drain(self) -> None:
        """Read what is there now; of a writer that never stops, only so much."""
        for _ in range(_DRAIN_READS):
            if self._fd < 0 or not self._read():
                return

    def _read(self) -> bool:
        """Take what one read gives; False when there is nothing now or no more."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        if self._echo is not None:
            with contextlib.suppress(OSError):
                os.write(self._echo, data)
        if self.tap is not None:
            self.tap(data)
        self._data += data
        if len(self._data) > 2 * LOG_BYTES:  # not at every read: that would move it all each time
            del self._data[:-LOG_BYTES]
        return True

    def tail(self, lines: int = 12) -> str:
        """The last lines as text, control characters made harmless, long lines cut."""
        recent = self._data[-(lines + 1) * 4 * MAX_LINE :]
        text = recent.decode("utf-8", "replace").replace("\r\n", "\n")
        shown = "".join(
            c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text
        )
        kept = [line.rstrip() for line in shown.splitlines()[-lines:]]
        return "\n".join(f"{s[:MAX_LINE]} ..." if len(s) > MAX_LINE else s for s in kept)

    def content(self) -> bytes:
        """All that is kept: at most LOG_BYTES."""
        return bytes(self._data[-LOG_BYTES:])

    def close(self) -> None:
        """Stop reading."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self.ended.set()
