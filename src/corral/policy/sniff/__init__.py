"""What a client says first, held against the name that it asked a connection to. No I/O."""

from .first import Kind, looks_like
from .http import HttpRequest, refusal_text
from .refused import Refused
from .tls import TlsStart

__all__ = [
    "HttpRequest",
    "Kind",
    "Refused",
    "TlsStart",
    "looks_like",
    "refusal_text",
]
