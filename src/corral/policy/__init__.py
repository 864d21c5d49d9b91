"""What may go out of a sandbox, as values, and the decision about it. Pure: no I/O here."""

from .credentials import ANTHROPIC, OPENAI, Dialect, Gateway, Key, Secret
from .model import GATEWAY_DOMAIN, Address, Limits, Mode, Network, Publish, Rule

__all__ = [
    "ANTHROPIC",
    "GATEWAY_DOMAIN",
    "OPENAI",
    "Address",
    "Dialect",
    "Gateway",
    "Key",
    "Limits",
    "Mode",
    "Network",
    "Publish",
    "Rule",
    "Secret",
]
