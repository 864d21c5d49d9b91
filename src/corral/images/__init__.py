"""Guest kernel, base image, and programs that this host's distribution lacks."""

from __future__ import annotations

from .kernel import DEFAULT_MODULES, NINE_P_MODULES, Kernel, ensure_kernel

__all__ = ["DEFAULT_MODULES", "NINE_P_MODULES", "Kernel", "ensure_kernel"]
