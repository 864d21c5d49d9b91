"""The egress engine: every connection that leaves a sandbox is decided and made here."""

from .engine import Engine, Stream

__all__ = ["Engine", "Stream"]
