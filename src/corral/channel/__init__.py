"""The host side of the guest protocol: typed calls and byte streams over one connection."""

from corral.channel.carriers import accept_guest, prove_guest, serial_pair
from corral.channel.channel import Channel, Handler
from corral.channel.execution import Abandoned, Execution
from corral.channel.reason import Reason
from corral.channel.stream import Stream

__all__ = [
    "Abandoned",
    "Channel",
    "Execution",
    "Handler",
    "Reason",
    "Stream",
    "accept_guest",
    "prove_guest",
    "serial_pair",
]
