"""OpenAI's responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..model import Reply
from .base import Dialect, event, numbered, words


class OpenAIResponses(Dialect):
    """https://platform.openai.com/docs/api-reference/responses."""

    def whole(self, asked: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
        text = {"type": "output_text", "text": reply.text, "annotations": []}
        output: list[dict[str, Any]] = [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        ]
        output += [_call(place, name, given) for place, (name, given) in numbered(asked, reply)]
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "status": "completed",
            "model": asked.get("model"),
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": reply.usage
            or {
                "input_tokens": 10,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": 15,
            },
        }

    def events(self, asked: Mapping[str, Any], reply: Reply) -> list[bytes]:
        whole = self.whole(asked, reply)
        said: list[dict[str, Any]] = []
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        said.append({"type": "response.created", "response": begun})
        for place, item in enumerate(whole["output"]):
            said.append({"type": "response.output_item.added", "output_index": place, "item": item})
            if item["type"] == "message":
                said += [
                    {
                        "type": "response.output_text.delta",
                        "item_id": item["id"],
                        "output_index": place,
                        "content_index": 0,
                        "delta": word,
                        "logprobs": [],
                    }
                    for word in words(reply.text)
                ]
            said.append({"type": "response.output_item.done", "output_index": place, "item": item})
        said.append({"type": "response.completed", "response": whole})
        return [
            event({**one, "sequence_number": number}, str(one["type"]))
            for number, one in enumerate(said)
        ]


def _call(place: int, name: str, given: Mapping[str, object] | str) -> dict[str, Any]:
    call = {"call_id": f"call_{place}", "name": name, "status": "completed"}
    if isinstance(given, str):
        return {"type": "custom_tool_call", "id": f"ctc_{place}", **call, "input": given}
    return {"type": "function_call", "id": f"fc_{place}", **call, "arguments": json.dumps(given)}
