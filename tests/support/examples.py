"""A spec, the facts of a host and a survey of a workspace, made of values: what planning takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from corral.host import AppArmor, Facts, Finding, KvmFinding, OsRelease, Program, User, Virtiofsd
from corral.host.layout import Layout
from corral.host.layout import Workspace as Survey
from corral.plan import Plan, build
from corral.spec import Spec
from corral.spec.model import Machine, Run, Workspace

GIB = 1 << 30
PROJECT = "/home/ada/src/demo"
ADA = User("ada", 1000, 1000, "/home/ada", "Ada Lovelace", "ada@example.org", "ada")
ROOT = User("root", 0, 0, "/root", None, None, "root")

FILTERS = (bytes(8),)  # a seccomp program, as far as planning goes

KVM_WORKS = KvmFinding("works", "KVM works.")
KVM_ABSENT = KvmFinding("absent", "there is no /dev/kvm.")

QEMU = Program(("/usr/bin/qemu-system-x86_64",), "7.2.22", ("/usr",))
BWRAP = Program(("/usr/bin/bwrap",), "0.8.0", ("/usr",))
C_VIRTIOFSD = Virtiofsd(Program(("/usr/lib/qemu/virtiofsd",), "7.2.22", ("/usr",)), "c")
_FETCHED = "/cache/tools/virtiofsd-1.13.2"
RUST_VIRTIOFSD = Virtiofsd(
    Program(
        (
            *(f"{_FETCHED}/root/usr/lib64/ld-linux-x86-64.so.2", "--library-path"),
            *(f"{_FETCHED}/root/usr/lib", f"{_FETCHED}/root/usr/libexec/virtiofsd"),
        ),
        "1.13.2",
        (_FETCHED,),
    ),
    "rust",
)
OLD_RUST_VIRTIOFSD = Virtiofsd(Program(("/usr/libexec/virtiofsd",), "1.10.0", ("/usr",)), "rust")
MKE2FS = Program(("/usr/sbin/mke2fs",), "", ("/usr",))
VHOST_DEVICE_VSOCK = Program(("/usr/bin/vhost-device-vsock",), "0.3.0", ("/usr",))


def spec(
    *,
    machine: Mapping[str, Any] | None = None,
    workspace: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Spec:
    """What `corral run` wants on Ada's project, changed in the parts named."""
    parts: dict[str, Any] = {
        "machine": Machine(
            **{
                **{"cpus": 2, "memory": GIB, "accel": "auto", "carrier": "auto"},
                **{"filesystem": "auto", "kernel": None, "p9_cache": "none", "p9_msize": 524288},
                **(machine or {}),
            }
        ),
        "workspace": Workspace(
            **{
                **{"path": PROJECT, "read_only": False, "mask": (), "unprotect": ()},
                **(workspace or {}),
            }
        ),
        "run": Run(
            **{
                **{"user": None, "workdir": None, "env": (), "timeout": None, "tools": ()},
                **{"image": "host"},
                **(run or {}),
            }
        ),
    }
    return Spec(**{"shares": (), "name": "demo", **parts, **rest})


def facts(**changes: Any) -> Facts:
    """A Debian 12 host of Ada's, without usable KVM, changed in the facts named."""
    measured = Facts(
        arch="x86_64",
        user=ADA,
        python=Path("/usr/bin/python3.11"),
        qemu=QEMU,
        bwrap=BWRAP,
        virtiofsd=C_VIRTIOFSD,
        vhost_device_vsock=None,
        kvm=KVM_ABSENT,
        user_namespaces=Finding(True, "they work."),
        cpus=4,
        memory=8 * GIB,
        os_release=OsRelease("debian", "12", "Debian 12", "bookworm"),
        apparmor=AppArmor(False, False, False),
        mke2fs=MKE2FS,
    )
    return msgspec.structs.replace(measured, **changes)


def layout(**workspace: Any) -> Layout:
    """Debian's toolbox and Ada's project, a plain git repository."""
    found = Survey(
        **{
            "path": PROJECT,
            "mounts": (f"{PROJECT}/.git",),
            "protected": (f"{PROJECT}/.git/hooks", f"{PROJECT}/.git/config"),
            "absent": (f"{PROJECT}/corral.toml",),
            **workspace,
        }
    )
    return Layout(
        folders=("/usr", "/opt"),
        links=(("/bin", "usr/bin"), ("/lib", "usr/lib")),
        etc=("/etc/ld.so.cache", "/etc/ssl/certs"),
        workspace=found,
    )


def plan(
    wanted: Spec | None = None, host: Facts | None = None, found: Layout | None = None
) -> Plan:
    """The plan of these, or of the defaults, for an environment of nothing but a PATH.

    Of an agent with a copy of its own, that has been surveyed.
    """
    wanted = wanted or spec()
    surveys = {
        agent.number: Survey(
            path=agent.copy,
            mounts=(f"{agent.copy}/.git",),
            protected=(f"{agent.copy}/.git/config",),
        )
        for agent in wanted.agents
        if agent.copy is not None
    }
    environ = {"PATH": "/usr/bin:/bin"}
    return build(wanted, host or facts(), found or layout(), environ, FILTERS, surveys)
