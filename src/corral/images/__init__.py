"""Guest kernel, base image, and programs that this host's distribution lacks (see `fetch`)."""

from __future__ import annotations

from .base import BaseImage, ensure_base_image
from .kernel import ensure_kernel
from .model import Kernel

__all__ = [
    "BaseImage",
    "Kernel",
    "ensure_base_image",
    "ensure_kernel",
]
