"""OpenAI's chat completions, which many others speak."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..model import Reply
from .base import Dialect, event, numbered, words


class ChatCompletions(Dialect):
    """https://platform.openai.com/docs/api-reference/chat."""

    def _calls(self, asked: Mapping[str, Any], reply: Reply) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{place}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for place, (name, given) in numbered(asked, reply)
        ]

    def _usage(self, reply: Reply) -> Mapping[str, object]:
        return reply.usage or {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

    def whole(self, asked: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.tools:
            message["tool_calls"] = self._calls(asked, reply)
        finish = "tool_calls" if reply.tools else "stop"
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": asked.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": self._usage(reply),
        }

    def events(self, asked: Mapping[str, Any], reply: Reply) -> list[bytes]:
        with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        common: dict[str, Any] = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": asked.get("model"),
            **({"usage": None} if with_usage else {}),
        }

        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            return event({**common, "choices": [choice]})

        said = [chunk({"role": "assistant", "content": ""})]
        said += [chunk({"content": word}) for word in words(reply.text)]
        for place, call in enumerate(self._calls(asked, reply)):
            empty = {**call, "index": place, "function": {**call["function"], "arguments": ""}}
            said.append(chunk({"tool_calls": [empty]}))
            for piece in words(call["function"]["arguments"]):
                more = {"index": place, "function": {"arguments": piece}}
                said.append(chunk({"tool_calls": [more]}))
        said.append(chunk({}, "tool_calls" if reply.tools else "stop"))
        if with_usage:
            said.append(event({**common, "choices": [], "usage": self._usage(reply)}))
        said.append(b"data: [DONE]\n\n")
        return said
