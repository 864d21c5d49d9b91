"""Standard output: that it cannot be written is told as what it is, whichever verb was writing."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

from ..errors import CorralError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def guard() -> None:
    """From now on `sys.stdout` raises `unwritten` in place of an OSError.

    So nobody takes it for a failure of the files he works on meanwhile. BrokenPipeError stays.
    """
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream is sys.__stdout__:
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Guarded(stream.fileno(), "wb", closefd=False)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )


def unwritten(error: OSError) -> CorralError:
    """The error for standard output that cannot be written."""
    return CorralError(
        f"standard output cannot be written: {error.strerror or error}.",
        hint="Make room where it is written to, or write it elsewhere.",
    )


class _Guarded(io.FileIO):
    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """As ever; after a failure nothing, for what is left is written again at exit."""
        if self._failed:
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self._failed = True
            raise unwritten(error) from error
