"""Supervision: the one place that starts and ends processes."""

from .process import Helpers, Log, Process

__all__ = ["Helpers", "Log", "Process"]
