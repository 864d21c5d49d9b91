"""Guest kernel, base image, and programs that this host's distribution lacks."""

from __future__ import annotations

from .base import BaseImage, ensure_base_image
from .fetch import TOOLS, cached_tool, fetch_tool
from .kernel import DEFAULT_MODULES, NINE_P_MODULES, Kernel, ensure_kernel

__all__ = [
    "DEFAULT_MODULES",
    "NINE_P_MODULES",
    "TOOLS",
    "BaseImage",
    "Kernel",
    "cached_tool",
    "ensure_base_image",
    "ensure_kernel",
    "fetch_tool",
]
