"""Anthropic's Messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..model import Reply
from .base import Dialect, event, numbered, words


class AnthropicMessages(Dialect):
    """https://docs.claude.com/en/api/messages."""

    def error(self, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "api_error", "message": message}}

    def whole(self, asked: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
        content += [
            {"type": "tool_use", "id": f"toolu_{place}", "name": name, "input": given}
            for place, (name, given) in numbered(asked, reply)
        ]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked.get("model"),
            "content": content,
            "stop_reason": "tool_use" if reply.tools else "end_turn",
            "stop_sequence": None,
            "usage": reply.usage or {"input_tokens": 10, "output_tokens": 5},
        }

    def events(self, asked: Mapping[str, Any], reply: Reply) -> list[bytes]:
        whole = self.whole(asked, reply)
        usage = whole["usage"]
        begun = {
            **whole,
            "content": [],
            "stop_reason": None,
            "usage": {**usage, "output_tokens": 1},
        }
        said = [event({"type": "message_start", "message": begun}, "message_start")]
        for index, block in enumerate(whole["content"]):
            is_text = block["type"] == "text"
            empty = {"type": "text", "text": ""} if is_text else {**block, "input": {}}
            start = {"type": "content_block_start", "index": index, "content_block": empty}
            said.append(event(start, "content_block_start"))
            if is_text:
                deltas = [{"type": "text_delta", "text": word} for word in words(block["text"])]
            else:
                deltas = [
                    {"type": "input_json_delta", "partial_json": piece}
                    for piece in words(json.dumps(block["input"]))
                ]
            for delta in deltas:
                more = {"type": "content_block_delta", "index": index, "delta": delta}
                said.append(event(more, "content_block_delta"))
            stop = {"type": "content_block_stop", "index": index}
            said.append(event(stop, "content_block_stop"))
        ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        last = {
            "type": "message_delta",
            "delta": ending,
            "usage": {"output_tokens": usage["output_tokens"]},
        }
        said.append(event(last, "message_delta"))
        said.append(event({"type": "message_stop"}, "message_stop"))
        return said
