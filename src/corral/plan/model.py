"""The Plan: everything that will be done, decided, as values.

A Plan is built by `build` from a Spec and what the host has, and only read after that. Descriptor
numbers and paths in it are those of the processes to be started.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ..policy import Gateway, Network, Secret
from ..proc.bwrap import Step
from ..spec import Restart

AGENT_UID_BASE = 2000  # agent n has uid and gid 2000+n in the guest (docs/architecture.md)
_P9_MAX_ACCESS = "access=client"
NOBODY = 65534  # overflowuid: what the toolbox's files belong to, and every unmapped id

Arch = Literal["x86_64", "aarch64"]
Accel = Literal["kvm", "tcg"]
Carrier = Literal["serial", "vsock"]
Transport = Literal["virtiofs", "9p"]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """A tree assembled on the host and served to the guest under a tag.

    uid: the one id of its user namespace. tree: below /export. submounts: whether the guest is told
    where one host file system ends and another begins. cache, writeback:
    virtiofsd's; measured by bench/io.py.
    """

    tag: str
    uid: int
    tree: tuple[Step, ...]
    submounts: bool
    cache: Literal["none", "auto", "always"]
    writeback: bool = False


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's shape. memory: bytes. ports: PCIe root ports for hot-plugged devices.

    cold: boot it, and do not restore it from a template.
    checkpoints: what it is made of can be saved while it runs, and go on elsewhere.
    """

    arch: Arch
    accel: Accel
    cpus: int
    memory: int
    carrier: Carrier
    transport: Transport
    ports: int
    p9_cache: str = "none"
    p9_msize: int = 0
    cold: bool = False
    checkpoints: bool = False


def mounted(tag: str, machine: Machine) -> dict[str, object]:
    """How the guest mounts an export."""
    if machine.transport == "virtiofs":
        return {"tag": tag, "kind": "virtiofs", "options": ""}
    options = f"trans=virtio,version=9p2000.L,{_P9_MAX_ACCESS},cache={machine.p9_cache}"
    if machine.p9_msize:
        options += f",msize={machine.p9_msize}"
    return {"tag": tag, "kind": "9p", "options": options}


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One jailed worker. jail, setup: what the guest is told, JSON values only.

    jail is what can be known before there is a workspace: a template holds jails made of it.
    environment: of every command. workdir: where commands start. watched: host paths whose
    appearance is reported at the end. network: what it may reach, and gateways, by name, in place
    of what the plan says for all. restart: when its jail, once lost, is made again.
    """

    number: int
    export: Export
    jail: dict[str, object]
    setup: dict[str, object]
    environment: tuple[tuple[str, str], ...]
    workdir: str
    watched: tuple[str, ...]
    network: Network | None = None
    gateways: tuple[str, ...] | None = None
    restart: Restart = "never"


class HostLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How limits are enforced on the host.

    subtree: a control group below the folder `base`, with `controllers` and `files` (name, text).
    scope: one of systemd's (the user's or the system's), made by the program `base`, with
    `properties`.
    """

    way: Literal["subtree", "scope"]
    base: str
    controllers: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    manager: Literal["user", "system"] | None = None
    properties: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox. modules: guest kernel modules wanted, by name. later_modules: those loaded
    when asked for. disk: bytes of the disk that keeps what is written to the system; 0: none.
    setup: the guest's first message. notes: what the user should know. network, gateways,
    secrets: what goes out, for the host's side of it. debug_shell: of each agent, at a vsock port.
    """

    name: str
    machine: Machine
    modules: tuple[str, ...]
    later_modules: tuple[str, ...]
    toolbox: Export
    agents: tuple[Agent, ...]
    setup: dict[str, object]
    kernel: str | None
    notes: tuple[str, ...]
    disk: int = 0
    debug_shell: bool = False
    limits: HostLimits | None = None
    network: Network = Network()
    gateways: tuple[Gateway, ...] = ()
    secrets: tuple[Secret, ...] = ()
