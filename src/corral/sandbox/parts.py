"""What may take long and needs no sandbox yet: kernel, base image, file server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import HostError, MissingProgramError
from ..events import Report
from ..host import Facts, Program, Virtiofsd
from ..images import BaseImage, Kernel, ensure_base_image, ensure_kernel
from ..plan import Plan


@dataclass(frozen=True, slots=True)
class Parts:
    """What a sandbox is made of besides the plan. facts.qemu: the QEMU that runs it."""

    facts: Facts
    kernel: Kernel
    base: BaseImage
    file_server: Virtiofsd | None
    vsock_server: Program | None


def prepare(plan: Plan, facts: Facts, report: Report) -> Parts:
    """Get everything that is not there yet. Raises ImageError, FetchError, MissingProgramError."""
    bwrap = facts.bwrap
    if facts.qemu is None or bwrap is None:
        raise MissingProgramError(
            "QEMU and bubblewrap are needed.", hint="Run `corral doctor --fix`."
        )
    if not facts.user_namespaces.ok:
        raise HostError(
            f"corral needs user namespaces: {facts.user_namespaces.reason}",
            hint=facts.user_namespaces.hint,
        )
    wanted = Path(plan.kernel) if plan.kernel else None
    kernel = ensure_kernel(
        wanted=wanted, modules=plan.modules, later=plan.later_modules, report=report
    )
    base = ensure_base_image(kernel, facts.python, Path(bwrap.argv[0]), report)
    if plan.machine.checkpoints:
        facts = _with_checkpoints(facts, report)
    server = _file_server(facts, report) if plan.machine.transport == "virtiofs" else None
    vsock = None
    if plan.machine.carrier == "vsock":
        vsock = facts.vhost_device_vsock or _fetched("vhost-device-vsock", report)
    return Parts(facts, kernel, base, server, vsock)


def _file_server(facts: Facts, report: Report) -> Virtiofsd:
    """The host's virtiofsd, or Debian's Rust one."""
    return facts.own_virtiofsd or Virtiofsd(program=_fetched("virtiofsd", report), dialect="rust")


def _with_checkpoints(facts: Facts, report: Report) -> Facts:
    """The facts with a QEMU and a virtiofsd that can save their state: the host's, or Debian's."""
    qemu = facts.checkpoint_qemu or _fetched("qemu", report)
    server = facts.checkpoint_virtiofsd or Virtiofsd(
        program=_fetched("virtiofsd", report), dialect="rust"
    )
    return msgspec.structs.replace(facts, qemu=qemu, virtiofsd=server)


def _fetched(tool: str, report: Report) -> Program:
    from ..images.fetch import fetch_tool  # what fetching needs, few starts need

    return fetch_tool(tool, report)
