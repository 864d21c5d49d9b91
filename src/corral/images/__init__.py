"""Guest kernel, base image, and programs that this host's distribution lacks (see `fetch`)."""

from __future__ import annotations

from .base import BaseImage, ensure_base_image
from .kernel import DEFAULT_MODULES, NINE_P_MODULES, Kernel, ensure_kernel

__all__ = [
    "DEFAULT_MODULES",
    "NINE_P_MODULES",
    "BaseImage",
    "Kernel",
    "ensure_base_image",
    "ensure_kernel",
]
