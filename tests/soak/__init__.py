"""Many sandboxes, many of them killed at random moments: `make soak`; tests/vm has a short one."""
