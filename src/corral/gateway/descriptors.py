"""The numbers of descriptors in the processes that `corral.sandbox.doors` starts."""

from __future__ import annotations

# The configuration; the pipe that keys come by; the pipe by which something is told; listening
# sockets from FIRST_LISTENER on.
CONFIG_FD, KEYS_FD, TELL_FD, FIRST_LISTENER = 10, 11, 12, 20
