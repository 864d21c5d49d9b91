"""Why what a client says is not passed on."""

from __future__ import annotations


class Refused(ValueError):
    """The client's bytes are not passed on; the message says why, in a few words."""
