"""Model servers that say what a script says: the Messages API, chat completions, responses.

    async with Models() as models:
        models.replies.append(Reply(text="Hi", tools=(("Bash", {"command": "true"}),)))
        ... requests to models.url ...
        assert models.seen[0].headers["x-api-key"] == "..."

Without a script each answers "Hello". As a program it serves until it is ended, and says of each
request what it had: `python -m tests.support.models PORT`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import sys
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Pace = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Reply:
    """What one request is answered with.

    tools: (name, input) of calls. status, error: an error in the dialect's form. headers: further
    ones. gzip: the answer is packed, whether that was asked for or not. usage: in place of the
    dialect's own. pace: awaited before each event, with its number. breaks: hang up after so many
    events. echo: the answer's text is the request, headers and all. redirect: to this address.
    """

    text: str = "Hello"
    tools: tuple[tuple[str, dict[str, Any]], ...] = ()
    status: int = 200
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    gzip: bool = False
    usage: dict[str, Any] | None = None
    pace: Pace | None = None
    breaks: int | None = None
    echo: bool = False
    redirect: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any


class Models:
    """The servers, on one port of the loopback. gone: how many clients went before the end."""

    def __init__(
        self,
        port: int = 0,
        *,
        report: Callable[[Seen], None] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.replies: deque[Reply] = deque()
        self.default = Reply()
        self.seen: list[Seen] = []
        self.gone = 0
        self.changed = asyncio.Event()
        self._report = report
        self._port = port
        self._tls = tls
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Models:
        server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        await site.start()
        (address,) = self._runner.addresses
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://{'127.0.0.1' if self._tls is None else 'localhost'}:{address[1]}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def until(self, done: Callable[[], object]) -> None:
        """Until something has come that makes this true."""
        async with asyncio.timeout(20):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        data = await request.content.read()
        try:
            body = json.loads(data) if data else None
        except ValueError:
            body = data
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.method, request.path, request.query_string, headers, body)
        self.seen.append(seen)
        if self._report is not None:
            self._report(seen)
        self.changed.set()
        reply = self.replies.popleft() if self.replies else self.default
        try:
            return await self._answer(request, seen, reply)
        except (asyncio.CancelledError, ConnectionError):
            self.gone += 1
            self.changed.set()
            raise

    async def _answer(
        self, request: web.BaseRequest, seen: Seen, reply: Reply
    ) -> web.StreamResponse:
        if reply.redirect:
            return web.Response(status=307, headers={"location": reply.redirect})
        if reply.echo:
            reply.text = json.dumps({"headers": seen.headers, "body": seen.body})
            reply.headers = {**reply.headers, "x-echo": seen.headers.get("x-api-key", "")}
        for path, dialect in _DIALECTS.items():
            if seen.path.endswith(path):
                return await self._say(request, seen, reply, dialect)
        if seen.path.endswith(("/count_tokens", "/input_tokens")):
            return web.json_response({"input_tokens": 7}, headers=dict(reply.headers))
        if "/models" in seen.path:
            said = {"data": [{"id": "a-model", "object": "model", "type": "model"}]}
            return web.json_response({**said, "has_more": False, "object": "list"})
        return web.json_response({"error": {"message": "no such thing"}}, status=404)

    async def _say(
        self, request: web.BaseRequest, seen: Seen, reply: Reply, dialect: Dialect
    ) -> web.StreamResponse:
        asked = seen.body if isinstance(seen.body, dict) else {}
        headers = {"request-id": "req_scripted", **reply.headers}
        if reply.status >= 400:
            return web.json_response(
                dialect.error(reply.error or "scripted"), status=reply.status, headers=headers
            )
        if not asked.get("stream"):
            data = json.dumps(dialect.whole(asked, reply)).encode()
            if reply.gzip:
                data, headers = gzip.compress(data), {**headers, "content-encoding": "gzip"}
            return web.Response(body=data, headers=headers, content_type="application/json")
        response = web.StreamResponse(headers=headers)
        response.content_type = "text/event-stream"
        if reply.gzip:
            response.headers["content-encoding"] = "gzip"
        await response.prepare(request)
        packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        for number, event in enumerate(dialect.events(asked, reply)):
            if reply.breaks == number:
                assert request.transport is not None
                request.transport.abort()
                return response
            if reply.pace is not None:
                await reply.pace(number)
            if reply.gzip:
                event = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
            await response.write(event)
        if reply.gzip:
            await response.write(packer.flush())
        await response.write_eof()
        return response


class Dialect:
    """How one interface says what a reply holds."""

    def error(self, message: str) -> dict[str, Any]:
        """An error."""
        return {"error": {"message": message, "type": "scripted", "param": None, "code": None}}

    def whole(self, asked: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """An answer that is not streamed."""
        raise NotImplementedError

    def events(self, asked: dict[str, Any], reply: Reply) -> list[bytes]:
        """One that is."""
        raise NotImplementedError


def _event(said: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(said)}\n\n".encode()


def _words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


class AnthropicMessages(Dialect):
    """https://docs.claude.com/en/api/messages."""

    def error(self, message: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "api_error", "message": message}}

    def whole(self, asked: dict[str, Any], reply: Reply) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
        content += [
            {"type": "tool_use", "id": f"toolu_{place}", "name": name, "input": given}
            for place, (name, given) in enumerate(reply.tools)
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

    def events(self, asked: dict[str, Any], reply: Reply) -> list[bytes]:
        whole = self.whole(asked, reply)
        usage = whole["usage"]
        begun = {
            **whole,
            "content": [],
            "stop_reason": None,
            "usage": {**usage, "output_tokens": 1},
        }
        said = [_event({"type": "message_start", "message": begun}, "message_start")]
        for index, block in enumerate(whole["content"]):
            is_text = block["type"] == "text"
            empty = {"type": "text", "text": ""} if is_text else {**block, "input": {}}
            start = {"type": "content_block_start", "index": index, "content_block": empty}
            said.append(_event(start, "content_block_start"))
            if is_text:
                deltas = [{"type": "text_delta", "text": word} for word in _words(block["text"])]
            else:
                deltas = [
                    {"type": "input_json_delta", "partial_json": piece}
                    for piece in _words(json.dumps(block["input"]))
                ]
            for delta in deltas:
                more = {"type": "content_block_delta", "index": index, "delta": delta}
                said.append(_event(more, "content_block_delta"))
            stop = {"type": "content_block_stop", "index": index}
            said.append(_event(stop, "content_block_stop"))
        ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        last = {
            "type": "message_delta",
            "delta": ending,
            "usage": {"output_tokens": usage["output_tokens"]},
        }
        said.append(_event(last, "message_delta"))
        said.append(_event({"type": "message_stop"}, "message_stop"))
        return said


class ChatCompletions(Dialect):
    """https://platform.openai.com/docs/api-reference/chat."""

    def _calls(self, reply: Reply) -> list[dict[str, Any]]:
        return [
            {
                "id": f"call_{place}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given)},
            }
            for place, (name, given) in enumerate(reply.tools)
        ]

    def _usage(self, reply: Reply) -> dict[str, Any]:
        return reply.usage or {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

    def whole(self, asked: dict[str, Any], reply: Reply) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if reply.tools:
            message["tool_calls"] = self._calls(reply)
        finish = "tool_calls" if reply.tools else "stop"
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": asked.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": self._usage(reply),
        }

    def events(self, asked: dict[str, Any], reply: Reply) -> list[bytes]:
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
            return _event({**common, "choices": [choice]})

        said = [chunk({"role": "assistant", "content": ""})]
        said += [chunk({"content": word}) for word in _words(reply.text)]
        for place, call in enumerate(self._calls(reply)):
            empty = {**call, "index": place, "function": {**call["function"], "arguments": ""}}
            said.append(chunk({"tool_calls": [empty]}))
            for piece in _words(call["function"]["arguments"]):
                more = {"index": place, "function": {"arguments": piece}}
                said.append(chunk({"tool_calls": [more]}))
        said.append(chunk({}, "tool_calls" if reply.tools else "stop"))
        if with_usage:
            said.append(_event({**common, "choices": [], "usage": self._usage(reply)}))
        said.append(b"data: [DONE]\n\n")
        return said


class OpenAIResponses(Dialect):
    """https://platform.openai.com/docs/api-reference/responses."""

    def whole(self, asked: dict[str, Any], reply: Reply) -> dict[str, Any]:
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
        output += [
            {
                "type": "function_call",
                "id": f"fc_{place}",
                "call_id": f"call_{place}",
                "name": name,
                "arguments": json.dumps(given),
                "status": "completed",
            }
            for place, (name, given) in enumerate(reply.tools)
        ]
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

    def events(self, asked: dict[str, Any], reply: Reply) -> list[bytes]:
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
                    for word in _words(reply.text)
                ]
            said.append({"type": "response.output_item.done", "output_index": place, "item": item})
        said.append({"type": "response.completed", "response": whole})
        return [
            _event({**event, "sequence_number": number}, str(event["type"]))
            for number, event in enumerate(said)
        ]


_DIALECTS: Mapping[str, Dialect] = {
    "/v1/messages": AnthropicMessages(),
    "/chat/completions": ChatCompletions(),
    "/responses": OpenAIResponses(),
}


async def _serve(port: int) -> AsyncIterator[Seen]:
    queue: asyncio.Queue[Seen] = asyncio.Queue()
    async with Models(port, report=queue.put_nowait) as models:
        print(models.url, flush=True)
        while True:
            yield await queue.get()


async def _main(port: int) -> None:
    async for seen in _serve(port):
        print(json.dumps([seen.method, seen.path, seen.headers, seen.body]), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
