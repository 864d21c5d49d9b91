"""What this package gives: a kernel, and the base image made for it."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Kernel(msgspec.Struct, frozen=True):
    """A kernel that QEMU boots.

    image: an ELF vmlinux where it could be unpacked, else what the distribution boots. release: as
    `uname -r` says it. modules: files in load order. later: the same, for what a guest loads only
    when it is asked to. origin: where it is from, for a person.
    """

    image: Path
    release: str
    modules: tuple[Path, ...]
    origin: str
    later: tuple[Path, ...] = ()
