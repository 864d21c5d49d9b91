"""What another process of this user has in its memory."""

from __future__ import annotations

from pathlib import Path

_PIECE = 1 << 20


def holds(pid: int, wanted: bytes) -> bool:
    """Whether these bytes are in memory that the process can read. Raises OSError (not allowed)."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split()
            if not fields[1].startswith("r") or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            if "corral-ram" in line:  # the guest's: it is searched by itself
                continue
            first, last = (int(part, 16) for part in fields[0].split("-"))
            before = b""
            for place in range(first, last, _PIECE):
                try:
                    memory.seek(place)
                    data = memory.read(min(_PIECE, last - place))
                except (OSError, ValueError):
                    break  # a mapping of a file beyond its end, a device
                if wanted in before + data:
                    return True
                before = data[-len(wanted) :]
    return False
