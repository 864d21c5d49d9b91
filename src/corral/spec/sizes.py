"""Sizes, counts and durations as people write them, with limits.

Units follow Docker and QEMU: `4g`, `4gb` and `4GiB` all mean 4 * 1024**3 bytes. All functions
raise ConfigError with a message that names the value and what is accepted.
"""

from __future__ import annotations

import math
import re

from ..errors import ConfigError
from .text import printable

KIB = 1024
MIB = KIB * 1024
GIB = MIB * 1024
TIB = GIB * 1024

MIN_MEMORY = 64 * MIB
MAX_MEMORY = 1024 * GIB
MIN_CPUS = 1
MAX_CPUS = 128
MIN_DISK = 64 * MIB  # ext4 with a journal
MAX_DISK = 10 * TIB
MIN_MSIZE = 4 * KIB
MAX_MSIZE = 16 * MIB
MAX_DURATION = 365 * 86400.0
MIN_LIMIT_MEMORY = 256 * MIB  # QEMU, the file servers and the smallest guest
MIN_RATE, MAX_RATE = 64 * KIB, TIB  # bytes a second
MIN_CPU_PERCENT, MAX_CPU_PERCENT = 1, 100 * 1024
MIN_PIDS, MAX_PIDS = 32, 1 << 22  # QEMU and two file servers have some twenty threads
MIN_WEIGHT, MAX_WEIGHT = 1, 10_000  # io.weight in the kernel's cgroup-v2.rst

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([a-z]*)")
_SIZE_UNITS = {
    name: factor
    for factor, names in (
        (1, ("", "b")),
        (KIB, ("k", "kb", "kib")),
        (MIB, ("m", "mb", "mib")),
        (GIB, ("g", "gb", "gib")),
        (TIB, ("t", "tb", "tib")),
    )
    for name in names
}
_CPUS = re.compile(r"([0-9]{1,9})\s*(?:cpus?)?")
_DURATION_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_memory(value: object) -> int:
    """Bytes of memory, 64 MiB to 1024 GiB, rounded down to whole MiB; an int is bytes."""
    size = _size(value, "memory", MIN_MEMORY, MAX_MEMORY, example="4GiB")
    return size // MIB * MIB


def parse_disk(value: object) -> int:
    """Bytes of a disk, 64 MiB to 10 TiB, rounded down to whole MiB; an int is bytes. 0: none."""
    if value == 0 or (isinstance(value, str) and value.strip().lower() in ("0", "none")):
        return 0
    return _size(value, "a disk", MIN_DISK, MAX_DISK, example="20GiB") // MIB * MIB


def parse_msize(value: object) -> int:
    """Bytes of a 9p message, 4 KiB to 16 MiB; an int is bytes. The kernel may use less."""
    return _size(value, "a 9p message", MIN_MSIZE, MAX_MSIZE, example="512KiB")


def parse_limit_memory(value: object) -> int:
    """Bytes of the host's memory, 256 MiB to 1024 GiB, rounded down to whole MiB."""
    size = _size(value, "memory", MIN_LIMIT_MEMORY, MAX_MEMORY, example="6GiB")
    return size // MIB * MIB


def parse_rate(value: object) -> int:
    """Bytes a second, 64 KiB to 1 TiB: `50MiB`, `"50MiB/s"`; an int is bytes."""
    if isinstance(value, str):
        value = value.strip().removesuffix("/s")
    return _size(value, "a rate", MIN_RATE, MAX_RATE, example="50MiB")


def parse_percent(value: object) -> int:
    """Percent of one processor's time, 1 to 102400: `150%`, `"150"` or 150."""
    text = value.strip().removesuffix("%").rstrip() if isinstance(value, str) else value
    return _count(text, value, MIN_CPU_PERCENT, MAX_CPU_PERCENT, "a share of processors", "150%")


def parse_pids(value: object) -> int:
    """A number of processes and threads, 32 to 4194304."""
    return _count(value, value, MIN_PIDS, MAX_PIDS, "a number of processes", "500")


def parse_weight(value: object) -> int:
    """A weight among groups that use the same disk, 1 to 10000; 100 is everybody's."""
    return _count(value, value, MIN_WEIGHT, MAX_WEIGHT, "a weight", "50")


def _count(text: object, value: object, low: int, high: int, what: str, example: str) -> int:
    count: int | None = None
    if isinstance(text, int) and not isinstance(text, bool):
        count = text
    elif isinstance(text, str) and re.fullmatch(r"[0-9]{1,9}", text.strip()):
        count = int(text)
    if count is None:
        raise ConfigError(f"{_shown(value)} is not {what}.", hint=f"Write it like {example}.")
    if not low <= count <= high:
        raise ConfigError(f"{_shown(value)} is out of range: {low} to {high} is possible.")
    return count


def parse_count(value: object, low: int, high: int, what: str, example: str) -> int:
    """A whole number in a range. what: for messages, as "a port"."""
    return _count(value, value, low, high, what, example)


def parse_amount(value: object, low: int, high: int, *, example: str) -> int:
    """Bytes in a range; an int is bytes."""
    return _size(value, "this", low, high, example=example)


def parse_cpus(value: object) -> int:
    """A number of virtual CPUs, 1 to 128: `2`, `"2"` or `"2cpu"`."""
    count: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    elif isinstance(value, str) and (match := _CPUS.fullmatch(value.strip().lower())):
        count = int(match[1])
    if count is None:
        raise ConfigError(
            f"{_shown(value)} is not a number of CPUs.", hint="Write it like 2 or 2cpu."
        )
    if not MIN_CPUS <= count <= MAX_CPUS:
        raise ConfigError(
            f"{_shown(value)} CPUs is out of range: {MIN_CPUS} to {MAX_CPUS} are possible."
        )
    return count


def parse_duration(value: object) -> float:
    """Seconds, more than 0 and at most 365 days: `"30s"`, `"1h30m"`, `"500ms"`; a number is
    seconds."""
    seconds: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = min(float(value), math.inf) if abs(value) < 1e18 else math.inf
    elif isinstance(value, str):
        seconds = _duration(value.strip().lower())
    if seconds is None or math.isnan(seconds):
        raise ConfigError(
            f"{_shown(value)} is not a duration.", hint="Write it like 30s, 5m or 1h30m."
        )
    if not 0.0 < seconds <= MAX_DURATION:
        raise ConfigError(
            f"{_shown(value)} is out of range: a duration is more than 0 and at most 365d."
        )
    return seconds


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that divides it: 4294967296 is `4GiB`."""
    for factor, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """`seconds` as parse_duration reads it back: 5400.0 is `1h30m`."""
    milliseconds = round(seconds * 1000)
    if milliseconds < 1:
        return f"{seconds:.9f}s"
    parts = []
    for factor, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")):
        count, milliseconds = divmod(milliseconds, factor)
        if count:
            parts.append(f"{count}{unit}")
    if milliseconds:
        parts.append(f"{milliseconds}ms")
    return "".join(parts)


def _size(value: object, what: str, low: int, high: int, *, example: str) -> int:
    size: int | None = None
    bare = False
    if isinstance(value, int) and not isinstance(value, bool):
        size, bare = value, True
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip().lower())):
        factor = _SIZE_UNITS.get(match[2])
        if factor is not None:
            whole, _, fraction = match[1].partition(".")
            size = int(whole) * factor
            if fraction:
                size += int(fraction) * factor // 10 ** len(fraction)
            bare = not match[2]
    if size is None:
        raise ConfigError(f"{_shown(value)} is not a size.", hint=f"Write it like {example}.")
    if not low <= size <= high:
        limits = f"{format_size(low)} to {format_size(high)}"
        raise ConfigError(
            f"{_shown(value)}{' bytes' if bare else ''} of memory is out of range: "
            f"{limits} is possible."
            if what == "memory"
            else f"{_shown(value)}{' bytes' if bare else ''} for {what} is out of range: "
            f"{limits} is possible.",
            hint=f"A number without a unit is bytes; write {example}, say." if bare else None,
        )
    return size


def _duration(text: str) -> float | None:
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", text):
        return float(text)
    seconds, position = 0.0, 0
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        if match is None:
            return None
        seconds += float(match[1]) * _DURATION_UNITS[match[2]]
        position = match.end()
    return seconds if text else None


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"“{printable(value, 60)}”"
    return printable(str(value) if isinstance(value, (bool, float)) else _int_text(value), 60)


def _int_text(value: object) -> str:
    # str() of an int with more than 4300 digits raises ValueError (sys.set_int_max_str_digits).
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 70 digits"
    return str(value)
