"""What may go out of a sandbox, as values, and the decision about it. Pure: no I/O here."""

from .credentials import ANTHROPIC, OPENAI, Dialect, Gateway, Key, Secret
from .decision import Verdict, decide, decide_address
from .model import GATEWAY_DOMAIN, Address, Limits, Mode, Network, Publish, Rule
from .names import BadName, Host

__all__ = [
    "ANTHROPIC",
    "GATEWAY_DOMAIN",
    "OPENAI",
    "Address",
    "BadName",
    "Dialect",
    "Gateway",
    "Host",
    "Key",
    "Limits",
    "Mode",
    "Network",
    "Publish",
    "Rule",
    "Secret",
    "Verdict",
    "decide",
    "decide_address",
]
