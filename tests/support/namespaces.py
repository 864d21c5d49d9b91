"""Hosts that lack something, made for real: mounts and limits of a namespace of the test's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from corral.host import Need, measure

# Mounts and limits are set with all capabilities; what is then run has those of its user only.
_SCRIPT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind=None, flags=0, data=None):
    encoded = [x.encode() if x is not None else None for x in (source, target, kind, data)]
    if libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")
BIND, REMOUNT, READ_ONLY = 4096, 32, 1
def read_only(folder):
    mount(folder, folder, None, BIND)
    kept = os.statvfs(folder).f_flag & (2 | 4 | 8 | 1024)  # nosuid, nodev, noexec, noatime
    mount(None, folder, None, BIND | REMOUNT | READ_ONLY | kept)
exec(sys.argv[1])
libc.prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL
os.execvp(sys.argv[2], sys.argv[2:])
"""


def where(setup: str, *, bwrap: Sequence[str] = (), user_namespace: bool = False) -> list[str]:
    """What to put before a command to run it on a host changed by the Python code `setup`.

    It may call mount(source, target, kind, flags, data) and read_only(folder). bwrap: further
    options of bubblewrap. user_namespace: one of its own for root, too (others need one anyway).
    """
    found = measure(need=Need(kvm=False, user_namespaces=False)).bwrap
    assert found is not None, "bubblewrap is needed: corral doctor --fix"
    user = ["--unshare-user"] if user_namespace or os.getuid() != 0 else []
    return [
        *(*found.argv, *user, "--cap-add", "ALL", "--dev-bind", "/", "/", *bwrap, "--"),
        *(sys.executable, "-I", "-c", _SCRIPT, setup),
    ]
