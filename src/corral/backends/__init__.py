"""Hypervisors: one folder each, with render.py (Plan to command lines) and control.py.

BACKENDS names them and the ways in which each can be put together. tests/conformance runs the same
tests on all of these; docs/adding-a-backend.md says how one more comes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to put a machine together.

    name: for people and tests. settings: what makes it, by key (spec/layers.py). needs: what the
    host must have beyond what corral installs, for a person to read; empty for nothing.
    """

    name: str
    settings: Mapping[str, str]
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """One hypervisor. variants: those that behave alike, as far as a command can see."""

    name: str
    variants: tuple[Variant, ...] = field(default=())


def _qemu(name: str, accel: str, carrier: str, filesystem: str, needs: str = "") -> Variant:
    settings = {
        "machine.accel": accel,
        "machine.carrier": carrier,
        "machine.filesystem": filesystem,
    }
    return Variant(name, MappingProxyType(settings), needs)


# Each accelerator, carrier and file system once with what is usual for the rest: they know nothing
# of each other, so all combinations would prove no more.
BACKENDS = (
    Backend(
        "qemu",
        (
            _qemu("tcg", "tcg", "serial", "virtiofs"),
            _qemu("vsock", "tcg", "vsock", "virtiofs"),
            _qemu("9p", "tcg", "serial", "9p"),
            _qemu("kvm", "kvm", "serial", "virtiofs", needs="KVM that works"),
        ),
    ),
)
