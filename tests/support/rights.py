"""Running a part of a test as a user whom modes of files bind: root, too."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, linux/capability.h
_T = TypeVar("_T")


def without_capabilities(function: Callable[[], _T]) -> _T:
    """What `function` returns in a thread of its own that has no capability (capset(2))."""

    def run() -> _T:
        header = (ctypes.c_uint32 * 2)(_VERSION, 0)
        none = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0
        return function()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(timeout=60)
