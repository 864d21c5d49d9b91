"""Named points at which a test kills corral, to prove that nothing is left wherever it dies.

`crash_point("qemu-spawned")` does nothing, unless the environment variable CORRAL_TEST_CRASH_AT has
that name: then this process ends by SIGKILL, there and then, as from the kernel's memory killer.
tests/vm/test_kill.py kills at every point of POINTS. The variable can do no harm: whoever sets
corral's environment can send it the signal.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "CORRAL_TEST_CRASH_AT"

# In the order in which a run comes by them.
POINTS = (
    "run-folder-unfinished",
    "run-folder-locked",
    "run-folder-made",
    "warden-spawned",
    "warden-up",
    "file-server-spawned",
    "qemu-spawned",
    "monitor-connected",
    "memory-copied",
    "machine-restored",
    "file-server-plugged",
    "channel-started",
    "guest-ready",  # --cold only
    "jails-made",  # --cold only
    "guest-awake",
    "vsock-listening",  # --carrier vsock only
    "vsock-server-spawned",  # --carrier vsock only
    "vsock-plugged",  # --carrier vsock only
    "guest-set-up",
    "agent-up",
    "command-starting",
    "command-running",
    "command-ended",
    "before-sync",
    "after-sync",
    "qemu-quit",
    "warden-ending",
    "helpers-gone",
)

# In the order in which a keeper comes by them that saves its sandbox, and one that goes on then.
CHECKPOINT_POINTS = (
    "checkpoint-frozen",
    "checkpoint-state",
    "checkpoint-memory",
    "fork-copying",  # corral fork only
    "checkpoint-thawed",
    "checkpoint-written",
    "copy-attached",
    "copy-awake",
)

# In the order in which `corral run --review` and `corral apply` come by them.
REVIEW_POINTS = (
    "snapshot-retired",
    "snapshot-made",
    "snapshot-placed",
    "apply-written",
    "apply-taken",  # of a file that is removed
    "apply-exchanged",  # of a file that is replaced
    "apply-placed",
    "apply-remembered",
)


def crash_point(name: str) -> None:
    """End this process by SIGKILL if a test wants it to end here."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
