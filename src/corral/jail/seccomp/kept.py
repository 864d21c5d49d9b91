"""Compiled filters in the cache: making one takes some 8 ms, for which every start would wait."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence

from ... import paths
from ...spec.files import write_atomically

_FORMAT = b"3"  # another when `table` or `compiler` makes other programs of a profile
_DIGEST = 32  # bytes
# The kernel takes no longer program (BPF_MAXINSNS in linux/bpf_common.h)
_MOST = 8 * 4096 + 64


def kept(inputs: Sequence[bytes], make: Callable[[], bytes]) -> bytes:
    """The program made from `inputs`, of the cache or of `make`.

    A file that is not as it was written is not believed. A cache that cannot be used is no error.
    """
    named = b"\0".join((_FORMAT, *inputs))
    key = hashlib.blake2b(named, digest_size=16).hexdigest()
    try:
        path = paths.cache_dir() / "seccomp" / key
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            content = file.read(_MOST)
        program = content[_DIGEST:]
        if program and content[:_DIGEST] == _digest(named, program):
            return program
    except OSError:
        pass
    program = make()
    with contextlib.suppress(OSError):
        path = paths.cache_dir() / "seccomp" / key
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, _digest(named, program) + program, mode=0o600)
    return program


def _digest(named: bytes, program: bytes) -> bytes:
    return hashlib.blake2b(named + b"\0" + program, digest_size=_DIGEST).digest()
