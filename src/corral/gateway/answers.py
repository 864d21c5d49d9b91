"""What an answer says, gathered while it passes: its usage, and its body for the transcript. Pure.

One gatherer for each kind of request; `event` for each server-sent event, `whole` for a body that
is JSON. Whatever they are given, they do not fail: an answer that makes no sense passes as it is.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import usage
from .dialects import Kind
from .usage import Usage, number

MAX_KEPT = 4 << 20  # characters of text that are kept of one answer
_MAX_PARTS = 1000  # blocks, choices or tool calls of one answer
_CHARACTERS_A_TOKEN = 3


class Answer:
    """Of requests that are not paid for, and the base of the others."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.finished = False  # the usage is told as a whole
        self.body: Any = None
        self._kept = 0

    def event(self, data: bytes) -> bool:
        """The data of an event; whether it is only the usage that was asked for on our behalf."""
        try:
            said = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return False
        return isinstance(said, dict) and self.told(said)

    def whole(self, data: bytes) -> None:
        """A body of JSON."""
        try:
            said = msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return
        self.body = said
        if isinstance(said, dict):
            self.tell_usage(said)

    def told(self, said: dict[str, Any]) -> bool:
        """An event. Whether it is only the usage."""
        return False

    def tell_usage(self, said: dict[str, Any]) -> None:
        """The usage of a whole body."""

    def text(self, piece: object) -> str:
        """A piece of text, as long as there is room."""
        if not isinstance(piece, str):
            return ""
        self._kept += len(piece)
        return piece if self._kept <= MAX_KEPT else ""

    def settled(self, sent: int) -> Usage:
        """The usage, guessed where it was not told. sent: bytes of the request's body."""
        if self.finished:
            return self.usage
        told = self.usage
        taken = told.input if told.all_input else sent // _CHARACTERS_A_TOKEN + 1
        given = max(told.output, self._kept // _CHARACTERS_A_TOKEN + 1)
        return msgspec.structs.replace(told, input=taken, output=given, estimated=True)


class Messages(Answer):
    """Anthropic's messages."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}  # joined at the end

    def told(self, said: dict[str, Any]) -> bool:
        """An event; see https://docs.claude.com/en/docs/build-with-claude/streaming."""
        match said:
            case {"type": "message_start", "message": dict(message)}:
                self.body = {**message, "content": []}
                self._add(message.get("usage"))
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                if len(self._blocks) < _MAX_PARTS:
                    self._blocks[index] = dict(block)
                    self.text(str(block))
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                self._delta(index, delta)
            case {"type": "message_delta", "delta": dict(delta)}:
                if isinstance(self.body, dict):
                    self.body |= delta
                self._add(said.get("usage"))
                self.finished = True
            case {"type": "error"}:
                self.body = {**(self.body or {}), "error": said.get("error")}
        return False

    def _delta(self, index: int, delta: dict[str, Any]) -> None:
        if index not in self._blocks:
            return
        for kind in ("text", "thinking", "signature", "partial_json"):
            if isinstance(delta.get(kind), str):
                self._pieces.setdefault((index, kind), []).append(self.text(delta[kind]))

    def settled(self, sent: int) -> Usage:
        for (index, kind), pieces in self._pieces.items():
            block, text = self._blocks[index], "".join(pieces)
            if kind != "partial_json":
                begun = block.get(kind)
                block[kind] = (begun if isinstance(begun, str) else "") + text
                continue
            try:
                block["input"] = msgspec.json.decode(text) if text else {}
            except (msgspec.DecodeError, RecursionError, ValueError):
                block["input"] = text
        self._pieces.clear()
        if self._blocks and isinstance(self.body, dict):
            self.body["content"] = [self._blocks[index] for index in sorted(self._blocks)]
        return super().settled(sent)

    def tell_usage(self, said: dict[str, Any]) -> None:
        """The usage of a whole body."""
        if isinstance(said.get("usage"), dict):
            self._add(said["usage"])
            self.finished = True

    def _add(self, said: object) -> None:
        if isinstance(said, dict):
            self.usage = usage.anthropic(said, self.usage)


class Chat(Answer):
    """OpenAI's chat completions, and the older completions and embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self._choices: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}  # joined at the end, as in _calls
        self._calls: list[dict[str, Any]] = []

    def told(self, said: dict[str, Any]) -> bool:
        """A chunk; https://platform.openai.com/docs/api-reference/chat-streaming."""
        self.tell_usage(said)
        choices = said.get("choices")
        if not isinstance(choices, list):
            return False
        if self.body is None:
            self.body = {key: said.get(key) for key in ("id", "model", "object")}
        for choice in choices:
            if isinstance(choice, dict):
                self._add(choice)
        return not choices and isinstance(said.get("usage"), dict)

    def _add(self, choice: dict[str, Any]) -> None:
        index = number(choice.get("index")) or 0
        if index not in self._choices and len(self._choices) >= _MAX_PARTS:
            return
        whole = self._choices.setdefault(index, {"role": "assistant", "content": ""})
        if isinstance(choice.get("finish_reason"), str):
            whole["finish_reason"] = choice["finish_reason"]
        self._say(index, "content", choice.get("text"))
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for name in ("content", "refusal", "reasoning", "reasoning_content"):
            self._say(index, name, delta.get(name))
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._call(whole.setdefault("tool_calls", []), call)

    def _say(self, index: int, name: str, piece: object) -> None:
        if isinstance(piece, str):
            self._pieces.setdefault((index, name), []).append(self.text(piece))

    def _call(self, calls: list[dict[str, Any]], said: dict[str, Any]) -> None:
        place = number(said.get("index")) or 0
        if place >= _MAX_PARTS:
            return
        while len(calls) <= place:
            calls.append({"function": {"name": [], "arguments": []}})
            self._calls.append(calls[-1])
        call, function = calls[place], said.get("function")
        if isinstance(said.get("id"), str):
            call["id"] = self.text(said["id"])
        if isinstance(function, dict):
            for name in ("name", "arguments"):
                call["function"][name].append(self.text(function.get(name)))

    def settled(self, sent: int) -> Usage:
        for (index, name), pieces in self._pieces.items():
            self._choices[index][name] = "".join(pieces)
        self._pieces.clear()
        for call in self._calls:
            function = call["function"]
            call["function"] = {name: "".join(pieces) for name, pieces in function.items()}
        self._calls.clear()
        if self._choices and isinstance(self.body, dict):
            self.body["choices"] = [self._choices[index] for index in sorted(self._choices)]
        return super().settled(sent)

    def tell_usage(self, said: dict[str, Any]) -> None:
        """The usage of a whole body, or of a chunk."""
        if isinstance(said.get("usage"), dict):
            self.usage = usage.openai(said["usage"])
            self.finished = True


class Responses(Answer):
    """OpenAI's responses."""

    def told(self, said: dict[str, Any]) -> bool:
        """An event; its last one has the whole response."""
        kind, response = said.get("type"), said.get("response")
        if isinstance(kind, str) and kind.endswith(".delta"):
            self.text(said.get("delta"))
        if isinstance(response, dict):
            self.body = response
            if kind in ("response.completed", "response.incomplete", "response.failed"):
                self.tell_usage(response)
        elif kind == "error":
            self.body = said
        return False

    def tell_usage(self, said: dict[str, Any]) -> None:
        """The usage of a whole response."""
        if isinstance(said.get("usage"), dict):
            self.usage = usage.openai(said["usage"])
            self.finished = True


def answer(kind: Kind) -> Answer:
    """The gatherer for a kind of request."""
    match kind:
        case "messages":
            return Messages()
        case "chat" | "completions" | "embeddings":
            return Chat()
        case "responses":
            return Responses()
        case "count" | "other":
            return Answer()
