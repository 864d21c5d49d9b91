"""The real SDKs of Anthropic and OpenAI in a sandbox, before scripted servers, by the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from textwrap import dedent
from typing import Any

import pytest

from corral.channel import Execution
from corral.scripted import Reply
from tests.support.clients import python_sdks
from tests.support.gateways import KEY, GatewaySandbox, gateway_sandbox

# Importing an SDK takes most of a minute under emulation, so one process does it once.
WORKER = """
import contextlib, io, json, sys, traceback
sys.path.insert(0, "/sdks")
import anthropic, openai
ASK = dict(model="claude-opus-5", max_tokens=64, messages=[{"role": "user", "content": "Hi"}])
CHAT = dict(model="gpt-5", messages=[{"role": "user", "content": "Hi"}])
names = dict(globals())
for line in sys.stdin:
    said, problem = io.StringIO(), ""
    with contextlib.redirect_stdout(said):
        try:
            exec(json.loads(line), dict(names))
        except BaseException:
            problem = traceback.format_exc()
    print(json.dumps([said.getvalue(), problem]), flush=True)
"""
IMPORTS = 240  # seconds, on a host that is busy with other machines

pytestmark = pytest.mark.timeout(IMPORTS + 60)


class Worker(GatewaySandbox):
    """A sandbox with a process in it that has both SDKs."""

    execution: Execution

    def responses(self) -> list[dict[str, Any]]:
        """The answers so far, in the order of their questions.

        A client may go on before the gateway has seen the end of a stream.
        """
        ends = [record for record in self.transcript() if record["kind"] == "response"]
        return sorted(ends, key=lambda record: int(record["id"].rpartition("-")[2]))

    async def said(self, program: str) -> list[str]:
        """What a program prints, by lines."""
        line = json.dumps(dedent(program)).encode() + b"\n"
        await self.execution.stdin.write(line)
        answer = b""
        async with asyncio.timeout(IMPORTS):
            while not answer.endswith(b"\n"):
                data = await self.execution.stdout.read()
                if not data:
                    assert self.execution.stderr is not None
                    raise AssertionError((await self.execution.stderr.read()).decode())
                answer += data
        printed, problem = json.loads(answer)
        assert not problem, problem
        lines: list[str] = printed.splitlines()
        return lines


@pytest.fixture(scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worker]:
    base = tmp_path_factory.mktemp("gateway")
    async with gateway_sandbox(base, {"share": [f"{python_sdks()}:/sdks"]}) as found:
        worker = Worker(found.models, found.sandbox, found.workspace, found.events)
        worker.execution = await found.sandbox.exec(["/usr/bin/python3", "-c", WORKER])
        yield worker


@pytest.fixture(autouse=True)
def fresh(setting: Worker) -> None:
    setting.models.seen.clear()
    setting.models.replies.clear()
    setting.models.gone = 0


async def test_anthropic_plain_tools_streams_and_tokens(setting: Worker) -> None:
    earlier = len(setting.responses())
    tool = ("Bash", {"command": "uname -a", "n": [1, {"a": "é"}]})
    setting.models.replies += [
        Reply(text="one two", headers={"anthropic-organization-id": "org"}),
        Reply(text="", tools=(tool,)),
        Reply(text="three four", tools=(tool,)),
        Reply(text="packed", gzip=True),
        Reply(text="five six", gzip=True),
        Reply(),
        Reply(),
    ]
    lines = await setting.said(
        """
        client = anthropic.Anthropic()
        answer = client.messages.with_raw_response.create(**ASK)
        print(answer.parse().content[0].text, answer.headers["request-id"])
        tools = [{"name": "Bash", "input_schema": {"type": "object"}}]
        answer = client.messages.create(**ASK, tools=tools)
        print(answer.stop_reason, json.dumps(answer.content[0].input))
        with client.messages.stream(**ASK) as stream:
            print("|".join(stream.text_stream))
            last = stream.get_final_message()
        print(last.usage.output_tokens, json.dumps(last.content[1].input))
        print(client.messages.create(**ASK).content[0].text)
        with client.messages.stream(**ASK) as stream:
            print("".join(stream.text_stream))
        question = {"model": ASK["model"], "messages": ASK["messages"]}
        print(client.messages.count_tokens(**question).input_tokens)
        print([model.id for model in client.models.list()])
        """,
    )
    given = '{"command": "uname -a", "n": [1, {"a": "\\u00e9"}]}'
    assert lines == [
        "one two req_scripted",
        f"tool_use {given}",
        "three |four",
        f"5 {given}",
        "packed",
        "five six",
        "7",
        "['a-model']",
    ]
    assert {seen.headers["x-api-key"] for seen in setting.models.seen} == {KEY}
    ends = setting.responses()[earlier:]
    assert ends[0]["usage"] == {"input": 10, "output": 5} and ends[0]["cost_usd"] > 0
    assert ends[2]["body"]["content"][1]["input"] == tool[1]


async def test_openai_chat_and_responses(setting: Worker) -> None:
    tool = ("Bash", {"command": "uname -a"})
    setting.models.replies += [
        Reply(text="one"),
        Reply(text="two three", tools=(tool,)),
        Reply(text="four", gzip=True),
        Reply(text="five"),
        Reply(text="six seven", tools=(tool,)),
        Reply(),
    ]
    lines = await setting.said(
        """
        client = openai.OpenAI()
        print(client.chat.completions.create(**CHAT).choices[0].message.content)
        text, arguments = "", ""
        for chunk in client.chat.completions.create(**CHAT, stream=True):
            delta = chunk.choices[0].delta
            text += delta.content or ""
            arguments += "".join(call.function.arguments for call in delta.tool_calls or ())
        print(text, arguments)
        print(client.chat.completions.create(**CHAT).choices[0].message.content)
        print(client.responses.create(model="gpt-5", input="Hi").output_text)
        with client.responses.stream(model="gpt-5", input="Hi") as stream:
            text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
            print(text, stream.get_final_response().usage.output_tokens)
        print([model.id for model in client.models.list()])
        """,
    )
    assert lines == [
        "one",
        'two three {"command": "uname -a"}',
        "four",
        "five",
        "six seven 5",
        "['a-model']",
    ]
    assert {seen.headers["authorization"] for seen in setting.models.seen} == {f"Bearer {KEY}"}


async def test_errors_are_the_sdks_own_and_are_retried_as_they_should_be(setting: Worker) -> None:
    fast = {"retry-after-ms": "1"}
    setting.models.replies += [
        Reply(status=529, error="overloaded", headers=fast),
        Reply(status=429, error="slow down", headers=fast),
        Reply(text="at last"),
        Reply(status=400, error="bad thing"),
        Reply(status=500, error="broken", headers=fast),
        Reply(text="again"),
        Reply(status=403, error="not yours"),
    ]
    lines = await setting.said(
        """
        client = anthropic.Anthropic()
        print(client.messages.create(**ASK).content[0].text)
        try:
            client.messages.create(**ASK)
        except anthropic.BadRequestError as error:
            print(error.status_code, error.body["error"]["message"])
        client = openai.OpenAI()
        print(client.chat.completions.create(**CHAT).choices[0].message.content)
        try:
            client.chat.completions.create(**CHAT)
        except openai.PermissionDeniedError as error:
            print(error.status_code, error.body["message"])
        """,
    )
    assert lines == ["at last", "400 bad thing", "again", "403 not yours"]
    assert not setting.models.replies


async def test_a_stream_that_is_left_is_cancelled_upstream(setting: Worker) -> None:
    forever = asyncio.Event()

    async def pace(number: int) -> None:
        if number == 3:
            await forever.wait()

    setting.models.replies.append(Reply(text="one two three", pace=pace))
    lines = await setting.said(
        """
        with anthropic.Anthropic().messages.stream(**ASK) as stream:
            print(next(iter(stream.text_stream)))
        """,
    )
    assert lines == ["one "]
    await setting.models.until(lambda: setting.models.gone == 1)


async def test_events_arrive_in_the_sandbox_as_they_are_sent(setting: Worker) -> None:
    """The server goes on only when the guest has said, by another request, what it has."""
    arrived = asyncio.Semaphore(0)

    async def pace(number: int) -> None:
        if number > 2:  # after the start of the message and of its text
            await arrived.acquire()

    async def heard(_number: int) -> None:
        arrived.release()

    setting.models.replies.append(Reply(text="a b c d", pace=pace))
    setting.models.default = Reply(pace=heard, text="")
    arrived.release()
    lines = await setting.said(
        """
        client = anthropic.Anthropic()
        with client.messages.stream(**ASK) as stream:
            for text in stream.text_stream:
                print(text)
                with client.messages.stream(**ASK) as other:  # each event of it lets one more go
                    other.close()
        """,
    )
    setting.models.default = Reply()
    assert lines == ["a ", "b ", "c ", "d"]
