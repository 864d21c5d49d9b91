"""The machine, and what it may use of the host."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from ..model import (
    Accel,
    Carrier,
    Filesystem,
    P9Cache,
)
from .base import Table


class MachineTable(Table, frozen=True, kw_only=True):
    """The virtual machine."""

    cpus: (
        Annotated[
            int | str,
            Meta(
                description="Virtual CPUs, 1 to 128; default: the host's, at most 4.", examples=[2]
            ),
        ]
        | UnsetType
    ) = UNSET
    memory: (
        Annotated[
            int | str,
            Meta(
                description="Memory, 64MiB to 1024GiB; default: half of the host's, at most 4GiB.",
                examples=["4GiB"],
            ),
        ]
        | UnsetType
    ) = UNSET
    disk: (
        Annotated[
            int | str,
            Meta(
                description="A disk for what `corral up` keeps, 64MiB to 10TiB; default: none.",
                examples=["20GiB"],
            ),
        ]
        | UnsetType
    ) = UNSET
    accel: (
        Annotated[
            Accel, Meta(description="auto measures whether KVM works, and uses TCG otherwise.")
        ]
        | UnsetType
    ) = UNSET
    carrier: (
        Annotated[Carrier, Meta(description="What carries the channel between host and guest.")]
        | UnsetType
    ) = UNSET
    filesystem: (
        Annotated[Filesystem, Meta(description="How the guest reaches shared folders.")] | UnsetType
    ) = UNSET
    kernel: (
        Annotated[str, Meta(description="A guest kernel of your own: a vmlinuz or vmlinux file.")]
        | UnsetType
    ) = UNSET
    cold: (
        Annotated[bool, Meta(description="Boot the machine instead of restoring a saved one.")]
        | UnsetType
    ) = UNSET
    p9_cache: (
        Annotated[P9Cache, Meta(description="The 9p client's cache mode; see the kernel's 9p.rst.")]
        | UnsetType
    ) = UNSET
    p9_msize: (
        Annotated[int | str, Meta(description="Bytes of one 9p message.", examples=["512KiB"])]
        | UnsetType
    ) = UNSET
    debug_shell: (
        Annotated[bool, Meta(description="A shell of each agent at a vsock port.")] | UnsetType
    ) = UNSET
    checkpoints: (
        Annotated[
            bool,
            Meta(
                description="It can be checkpointed and forked; needs QEMU 10 and virtiofsd 1.13."
            ),
        ]
        | UnsetType
    ) = UNSET


class LimitsTable(Table, frozen=True, kw_only=True):
    """What a sandbox may use of the host, all its processes together (cgroup v2)."""

    memory: (
        Annotated[
            int | str,
            Meta(description="Memory, 256MiB to 1024GiB.", examples=["6GiB"]),
        ]
        | UnsetType
    ) = UNSET
    cpu: (
        Annotated[
            int | str,
            Meta(description="Processor time, in percent of one processor.", examples=["150%"]),
        ]
        | UnsetType
    ) = UNSET
    pids: (
        Annotated[
            int | str,
            Meta(description="Processes and threads.", examples=[500]),
        ]
        | UnsetType
    ) = UNSET
    io_weight: (
        Annotated[
            int | str,
            Meta(
                description="Weight against others on the same disk, 1 to 10000; theirs is 100.",
                examples=[50],
            ),
        ]
        | UnsetType
    ) = UNSET
    io_read: (
        Annotated[
            int | str,
            Meta(description="Bytes a second read from the workspace's disk.", examples=["50MiB"]),
        ]
        | UnsetType
    ) = UNSET
    io_write: (
        Annotated[
            int | str,
            Meta(description="Bytes a second written to the workspace's disk.", examples=["50MiB"]),
        ]
        | UnsetType
    ) = UNSET
