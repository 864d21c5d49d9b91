"""Supervision: the one place that starts and ends processes."""

from .crash import crash_point
from .log import Log
from .process import Helpers, Process

__all__ = ["Helpers", "Log", "Process", "crash_point"]
