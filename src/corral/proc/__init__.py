"""Supervision: the one place that starts and ends processes."""

from .crash import crash_point
from .log import Log
from .process import Bounds, Helpers, Process

__all__ = ["Bounds", "Helpers", "Log", "Process", "crash_point"]
