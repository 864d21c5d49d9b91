"""The scripted model servers: what they answer to whom, and what they keep."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping

import aiohttp
import pytest

from corral.scripted import Models, Reply, Seen

CALL = ("Bash", {"command": "true"})
TOOLS = [{"name": "Bash"}]
SCRIPT = (Reply(text="", tools=(CALL,)), Reply(text="Done."))


async def post(url: str, body: Mapping[str, object]) -> dict[str, object]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        found: dict[str, object] = await answer.json()
        return found


RESULTS: Mapping[str, Mapping[str, object]] = {
    "/v1/messages": {
        "messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]
    },
    "/v1/chat/completions": {"messages": [{"role": "tool", "content": "x"}]},
    "/v1/responses": {"input": [{"type": "function_call_output", "output": "x"}]},
}


@pytest.mark.parametrize("path", RESULTS)
async def test_a_conversation_finds_its_place_in_the_script(path: str) -> None:
    async with Models(script=SCRIPT) as models:
        first = await post(models.url + path, {"tools": TOOLS})
        again = await post(models.url + path, {"tools": TOOLS})
        second = await post(models.url + path, {"tools": TOOLS, **RESULTS[path]})
        aside = await post(models.url + path, {})
    assert "Bash" in json.dumps(first) and first == again
    assert "Done." in json.dumps(second) and "Bash" not in json.dumps(second["model"])
    assert "Hello" in json.dumps(aside)
    assert [seen.results for seen in models.seen] == [(), (), ("x",), ()]


async def test_what_is_laid_ready_goes_before_the_script() -> None:
    async with Models(script=SCRIPT) as models:
        models.replies.append(Reply(text="first"))
        said = await post(f"{models.url}/v1/messages", {"tools": TOOLS})
    assert "first" in json.dumps(said)


async def test_a_connection_serves_many_requests_and_none_that_is_no_http() -> None:
    async with Models() as models:
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.get(f"{models.url}/v1/models") as answer:
                    assert (await answer.json())["data"][0]["id"] == "a-model"
            async with session.head(f"{models.url}/v1/models") as answer:
                assert answer.status == 200 and await answer.read() == b""
            async with session.get(f"{models.url}/v1/files") as answer:
                assert answer.status == 404
        port = int(models.url.rpartition(":")[2])
        for said in (b"\x16\x03\x01 no HTTP\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            writer.write_eof()
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()
        assert (await post(f"{models.url}/v1/messages", {}))["role"] == "assistant"


async def test_the_servers_end_while_clients_are_being_answered() -> None:
    async def never(_number: int) -> None:
        await asyncio.Event().wait()

    async with asyncio.timeout(5), aiohttp.ClientSession() as session:
        async with Models() as models:
            models.default = Reply(pace=never)
            answer = await session.post(f"{models.url}/v1/messages", json={"stream": True})
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


def test_nothing_that_is_no_conversation_has_results_of_tools() -> None:
    bodies: tuple[object, ...] = (
        None,
        b"x",
        [],
        {"messages": 1},
        {"messages": [1, {"content": "x"}]},
    )
    for body in bodies:
        seen = Seen("POST", "/v1/messages", "", {}, body)
        assert seen.results == () and not seen.offers_tools


def test_as_a_program_it_tells_what_it_was_asked() -> None:
    argv = [sys.executable, "-m", "corral.scripted"]
    script = json.dumps([{"tools": [["Bash", {"command": "ls"}]]}, {"text": "Done."}]).encode()
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None and server.stdout is not None
        server.stdin.write(script)
        server.stdin.close()
        url = server.stdout.readline().decode().strip()
        said = asyncio.run(post(f"{url}/v1/messages", {"tools": TOOLS}))
        method, path, _headers, body = json.loads(server.stdout.readline())
        server.terminate()
    assert (method, path, body) == ("POST", "/v1/messages", {"tools": TOOLS})
    assert said["stop_reason"] == "tool_use"
