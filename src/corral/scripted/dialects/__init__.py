"""How each interface says what a reply holds, by the end of its path. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Dialect
from .chat import ChatCompletions
from .messages import AnthropicMessages
from .responses import OpenAIResponses

DIALECTS: Mapping[str, Dialect] = {
    "/v1/messages": AnthropicMessages(),
    "/chat/completions": ChatCompletions(),
    "/responses": OpenAIResponses(),
}

__all__ = ["DIALECTS", "Dialect"]
