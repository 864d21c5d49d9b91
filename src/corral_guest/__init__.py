"""What runs inside the guest. Standard library only; `wire` is shared with the host."""
