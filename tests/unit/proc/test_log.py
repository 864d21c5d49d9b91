"""A log is bounded whatever is written, and harmless to show."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from corral.proc import Log
from corral.proc.log import LOG_BYTES, MAX_LINE


async def written(data: bytes, piece: int = 65536) -> Log:
    """A log of `data`, written to it in pieces by a thread that waits for nobody."""
    read, write = os.pipe()
    log = Log()
    log.attach(read)

    def pour() -> None:
        for start in range(0, len(data), piece):
            os.write(write, data[start : start + piece])
        os.close(write)

    await asyncio.to_thread(pour)
    await asyncio.wait_for(log.ended.wait(), 10)
    return log


@pytest.mark.parametrize("piece", [1 << 16, 7])
async def test_a_flood_is_read_to_its_end_and_only_its_end_is_kept(piece: int) -> None:
    size = 8_000_000 if piece > 1000 else 1_000_000
    data = b"x" * size + b"\nthe end\n"
    log = await written(data, piece)
    assert log.content() == data[-LOG_BYTES:]
    assert log.tail(1) == "the end"


async def test_what_it_holds_is_bounded_also_for_crumbs() -> None:
    read, write = os.pipe()
    log = Log()
    log.attach(read)
    try:
        for _ in range(300_000):
            os.write(write, b".")
            log.drain()
        assert sys.getsizeof(log._data) < 3 * LOG_BYTES
    finally:
        os.close(write)
        log.close()


async def test_draining_ends_also_when_the_writer_does_not() -> None:
    read, write = os.pipe()
    log = Log()
    log.attach(read)
    stop = False

    def pour() -> None:
        while not stop:
            os.write(write, b"y" * 65536)

    thread = asyncio.ensure_future(asyncio.to_thread(pour))
    await asyncio.sleep(0.05)
    log.drain()
    stop = True
    await thread
    os.close(write)
    log.close()


async def test_what_is_shown_drives_no_terminal() -> None:
    log = await written(b"plain\r\n\x1b]0;title\x07\x1b[2J red\xff\nlast \xc3\xa4\n")
    shown = log.tail()
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert shown.splitlines()[0] == "plain"
    assert shown.splitlines()[-1] == "last ä"


async def test_a_line_without_end_is_cut() -> None:
    log = await written(b"z" * 100_000)
    assert len(log.tail()) <= MAX_LINE + 4


async def test_only_so_many_lines_are_shown() -> None:
    log = await written(b"".join(b"%d\n" % n for n in range(1000)))
    assert log.tail(3).splitlines() == ["997", "998", "999"]


async def test_it_can_be_echoed_and_a_closed_echo_is_no_error() -> None:
    read, write = os.pipe()
    echo_read, echo_write = os.pipe()
    log = Log(echo_write)
    log.attach(read)
    os.write(write, b"seen")
    log.drain()
    assert os.read(echo_read, 100) == b"seen"
    os.close(echo_read)
    os.write(write, b"unseen")
    log.drain()
    assert log.content() == b"seenunseen"
    for fd in (write, echo_write):
        os.close(fd)
    log.close()
    log.close()  # twice is once
