"""The gateway between an agent and its model: what goes out, what comes back, and when."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import aiohttp
import pytest

from corral.gateway.found import Found
from corral.scripted import Models, Reply
from tests.support.https import TestAuthority
from tests.unit.gateway.conftest import KEY, World, anthropic, openai, started

CREDENTIALS = {
    "Authorization": "Bearer of-the-guest",
    "X-Api-Key": "of-the-guest",
    "Api-Key": "of-the-guest",
    "X-Goog-Api-Key": "of-the-guest",
    "Cookie": "a=of-the-guest",
    "Proxy-Authorization": "Basic of-the-guest",
    "X-Auth-Token": "of-the-guest",
    "X-Amz-Security-Token": "of-the-guest",
}


async def test_the_key_is_added_and_what_the_guest_sent_as_one_is_dropped(world: World) -> None:
    status, said = await world.messages(headers=CREDENTIALS)
    assert status == 200 and said["content"][0]["text"] == "Hello"
    (seen,) = world.models.seen
    assert seen.headers["x-api-key"] == KEY
    assert "of-the-guest" not in json.dumps([seen.headers, seen.query])
    assert seen.path == "/v1/messages"


async def test_openai_gets_its_key_as_a_bearer_below_the_upstreams_path(
    models: Models, folder: Path
) -> None:
    gateways = [openai(models, upstream=f"{models.url}/api/v1", name="router")]
    async with started(models, folder, gateways) as world:
        body = {"model": "some/model", "messages": []}
        for path in ("/v1/chat/completions", "/v1/responses"):
            async with world.ask("POST", path, host="router", json=body) as answer:
                assert answer.status == 200
    assert [seen.path for seen in models.seen] == ["/api/v1/chat/completions", "/api/v1/responses"]
    assert {seen.headers["authorization"] for seen in models.seen} == {f"Bearer {KEY}"}


async def test_a_query_passes_without_keys_in_it(world: World) -> None:
    path = "/v1/messages?beta=true&key=of-the-guest&api_key=x&access_token=y"
    async with world.ask("POST", path, json={"model": "claude-opus-5"}) as answer:
        assert answer.status == 200
    assert world.models.seen[0].query == "beta=true"


async def test_headers_that_clients_rely_on_pass_both_ways(world: World) -> None:
    limits = {
        "anthropic-ratelimit-requests-remaining": "7",
        "x-ratelimit-remaining-tokens": "8",
        "retry-after": "3",
        "openai-processing-ms": "5",
        "set-cookie": "a=b",
        "alt-svc": 'h3=":443"',
    }
    world.models.replies.append(Reply(status=529, error="overloaded", headers=limits))
    sent = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "one,two",
        "x-stainless-lang": "py",
    }
    async with world.ask(
        "POST", "/v1/messages", json={"model": "claude-opus-5"}, headers=sent
    ) as answer:
        assert answer.status == 529
        assert (await answer.json())["error"]["message"] == "overloaded"
        assert answer.headers["request-id"] == "req_scripted"
        for name in ("retry-after", "x-ratelimit-remaining-tokens", "openai-processing-ms"):
            assert answer.headers[name] == limits[name]
        assert "set-cookie" not in answer.headers and "alt-svc" not in answer.headers
    got = world.models.seen[0].headers
    assert {name: got[name] for name in sent} == sent


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("anthropic", "/v1/messages"),
        ("openai", "/v1/chat/completions"),
        ("openai", "/v1/responses"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
async def test_events_arrive_as_they_are_sent(
    world: World, host: str, path: str, packed: bool
) -> None:
    """The server sends an event only after the client has the one before."""
    received = asyncio.Semaphore(0)
    sent: list[int] = []

    async def pace(number: int) -> None:
        if number:
            await received.acquire()
        sent.append(number)

    world.models.replies.append(Reply(text="one two three four", pace=pace, gzip=packed))
    body = {"model": "claude-opus-5", "stream": True, "messages": []}
    got = b""
    async with asyncio.timeout(20), world.ask("POST", path, host=host, json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in answer.headers
        while data := await answer.content.readany():
            for _event in range((got + data).count(b"\n\n") - got.count(b"\n\n")):
                received.release()
            got += data
            if got.count(b"\n\n") >= len(sent) and b"stop" in got:
                received.release()  # the event that is ours alone does not arrive
    assert b"three" in got and len(sent) > 5


async def test_usage_that_the_gateway_asked_for_is_not_passed_on(world: World) -> None:
    async def chunks(**more: object) -> str:
        body = {"model": "gpt-5", "stream": True, "messages": [], **more}
        async with world.ask("POST", "/v1/chat/completions", host="openai", json=body) as answer:
            data: bytes = await answer.read()
            return data.decode()

    plain, asked = await chunks(), await chunks(stream_options={"include_usage": True})
    assert '"prompt_tokens"' not in plain and plain.endswith("data: [DONE]\n\n")
    assert '"prompt_tokens"' in asked and asked.endswith("data: [DONE]\n\n")
    ends = [record for record in world.transcript() if record["kind"] == "response"]
    assert [record["usage"] for record in ends] == [{"input": 10, "output": 5}] * 2


async def test_a_client_that_goes_cancels_the_upstream_at_once(world: World) -> None:
    forever = asyncio.Event()

    async def pace(number: int) -> None:
        if number == 3:
            await forever.wait()

    world.models.replies.append(Reply(text="one two three", pace=pace))
    body = {"model": "claude-opus-5", "stream": True}
    async with world.ask("POST", "/v1/messages", json=body) as answer:
        await answer.content.readany()
        answer.close()
    await world.models.until(lambda: world.models.gone == 1)
    (end,) = [record for record in world.transcript() if record["kind"] == "response"]
    assert end["ended"] == "cancelled"
    assert end["usage"]["estimated"] and end["usage"]["input"] == 10


async def test_an_answer_that_breaks_off_is_not_made_to_look_whole(world: World) -> None:
    world.models.replies.append(Reply(text="one two three", breaks=3))
    body = {"model": "claude-opus-5", "stream": True}
    with pytest.raises(aiohttp.ClientPayloadError):
        async with world.ask("POST", "/v1/messages", json=body) as answer:
            await answer.read()
    end = world.transcript()[-1]
    assert end["ended"] == "failed" and end["status"] == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("packed", [False, True])
async def test_an_upstream_that_echoes_gives_no_credential_away(
    world: World, stream: bool, packed: bool
) -> None:
    world.models.replies.append(Reply(echo=True, gzip=packed))
    body = {"model": "claude-opus-5", "stream": stream}
    async with world.ask("POST", "/v1/messages", json=body) as answer:
        text = (await answer.read()).decode()
        headers = str(answer.headers)
    assert world.models.seen[0].headers["x-api-key"] == KEY
    assert "x-api-key" in text and "*" * len(KEY) in text and "*" * len(KEY) in headers
    for spelling in (KEY, KEY.replace("/", "\\/"), json.dumps(KEY)[1:-1]):
        assert spelling not in text and spelling not in headers
    assert KEY not in (world.folder / "transcript.jsonl").read_text()


async def test_a_key_that_the_guest_writes_is_not_in_the_transcript(world: World) -> None:
    await world.messages(messages=[{"role": "user", "content": f"is it {KEY}?"}])
    assert KEY not in (world.folder / "transcript.jsonl").read_text()


async def test_a_redirect_is_passed_on_and_not_followed(world: World) -> None:
    world.models.replies.append(Reply(redirect=f"{world.models.url}/elsewhere"))
    async with world.ask(
        "POST", "/v1/messages", json={"model": "claude-opus-5"}, allow_redirects=False
    ) as answer:
        assert answer.status == 307
    assert len(world.models.seen) == 1


async def test_a_packed_request_is_taken_and_checked(world: World) -> None:
    body = gzip.compress(json.dumps({"model": "claude-opus-5", "messages": []}).encode())
    for encoding, expected in (("gzip", 200), ("br", 415)):
        async with world.ask(
            "POST", "/v1/messages", data=body, headers={"content-encoding": encoding}
        ) as answer:
            assert answer.status == expected
    (seen,) = world.models.seen
    assert seen.body["model"] == "claude-opus-5"
    bomb = gzip.compress(b" " * (65 << 20))
    async with world.ask(
        "POST", "/v1/messages", data=bomb, headers={"content-encoding": "gzip"}
    ) as answer:
        assert answer.status == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/messages/batches", 404),
        ("POST", "/v1/files", 404),
        ("GET", "/v1/organizations/me", 404),
        ("POST", "/v1/messages/../files", 404),
        ("POST", "/v1/messages%2f..%2ffiles", 404),
        ("POST", "//v1/messages", 404),
        ("GET", "/v1/messages", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/", 404),
        ("GET", "/", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/claude-opus-5", 200),
    ],
)
async def test_only_requests_to_models_are_passed_on(
    world: World, method: str, path: str, status: int
) -> None:
    from yarl import URL

    headers = {"Host": "anthropic.corral.internal"}
    url = URL(f"http://gateway{path}", encoded=True)
    async with world.clients[1].request(method, url, headers=headers) as answer:
        assert answer.status == status
    passed = status == 200 and path != "/"
    assert [seen.path for seen in world.models.seen] == ([path] if passed else [])


@pytest.mark.parametrize(
    "host",
    ["other.corral.internal", "api.anthropic.com", "anthropic", "anthropic.corral.internal:81"],
)
async def test_a_host_that_is_no_gateway_is_refused(world: World, host: str) -> None:
    async with world.clients[1].post(
        "http://gateway/v1/messages", json={"model": "claude-opus-5"}, headers={"Host": host}
    ) as answer:
        assert answer.status == 404
    assert not world.models.seen


async def test_a_model_that_is_not_allowed_is_refused_in_the_dialects_words(
    models: Models, folder: Path
) -> None:
    gateways = [anthropic(models, models=("claude-haiku-*",)), openai(models, models=("gpt-5",))]
    async with started(models, folder, gateways) as world:
        status, said = await world.messages(model="claude-opus-5")
        assert (status, said["type"], said["error"]["type"]) == (404, "error", "not_found_error")
        assert said["error"]["message"] == (
            "corral: the model claude-opus-5 is not allowed here; allowed: claude-haiku-*."
        )
        assert (await world.messages(model="claude-haiku-5-5"))[0] == 200
        for body in (
            {"model": "gpt-5", "models": ["gpt-5", "o1-pro"]},
            {"model": "o1-pro"},
            {"models": ["o1-pro"]},
            {"Model": "o1-pro", "model": "gpt-5"},
        ):
            async with world.ask(
                "POST", "/v1/chat/completions", host="openai", json=body
            ) as answer:
                assert answer.status in (400, 404)
                assert answer.headers["x-should-retry"] == "false"
                assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}
        refused = [record for record in world.transcript() if record["kind"] == "refused"]
        assert len(refused) == 5
    assert len(models.seen) == 1


async def test_of_a_key_that_comes_twice_the_checked_one_is_sent(
    models: Models, folder: Path
) -> None:
    async with started(models, folder, [anthropic(models, models=("claude-haiku-*",))]) as world:
        for body in (
            b'{"model": "claude-opus-5", "model": "claude-haiku-5-5"}',
            b'{"model": "claude-haiku-5-5", "mod\\u0065l": "claude-haiku-4-5"}',
        ):
            async with world.ask("POST", "/v1/messages", data=body) as answer:
                assert answer.status == 200
    assert [seen.body["model"] for seen in models.seen] == ["claude-haiku-5-5", "claude-haiku-4-5"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"model": 5}', b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model":""}'],
)
async def test_a_body_that_is_no_request_is_refused(world: World, body: bytes) -> None:
    async with world.ask("POST", "/v1/messages", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["type"] == "invalid_request_error"
    assert not world.models.seen


async def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    async def endless() -> object:
        while True:
            yield b"x" * (1 << 20)

    async with world.ask("POST", "/v1/messages", data=endless()) as answer:
        assert answer.status == 413


async def test_an_upstream_that_is_not_there_is_an_error_of_the_dialect(
    models: Models, folder: Path
) -> None:
    gateways = [anthropic(models, upstream="http://127.0.0.1:9")]
    async with started(models, folder, gateways) as world:
        status, said = await world.messages()
    assert status == 502 and said["error"]["type"] == "api_error"
    assert said["error"]["message"] == (
        "corral: the upstream of anthropic cannot be reached: connection refused."
    )


async def test_an_upstream_that_does_not_speak_tls_is_told_as_such(
    models: Models, folder: Path
) -> None:
    gateways = [anthropic(models, upstream=models.url.replace("http:", "https:"))]
    async with started(models, folder, gateways) as world:
        status, said = await world.messages()
    assert status == 502 and "cannot be reached: TLS with it failed." in said["error"]["message"]


async def test_a_request_waits_for_the_key(models: Models, folder: Path) -> None:
    async with started(models, folder, [anthropic(models)], key=False) as world:
        answer = asyncio.create_task(world.messages())
        await asyncio.sleep(0)
        world.keys.take(Found(name="anthropic", key=KEY))
        assert (await answer)[0] == 200


async def test_a_key_that_cannot_be_had_is_told_and_asked_for_again(
    models: Models, folder: Path
) -> None:
    async with started(models, folder, [anthropic(models)], key=False) as world:
        world.keys.take(Found(name="anthropic", key=None, problem="the variable X is not set."))
        status, said = await world.messages()
        assert status == 401 and "the variable X is not set" in said["error"]["message"]
        assert world.told == ["anthropic: the variable X is not set."]
        assert world.asked_again == [{"anthropic": ""}]
        world.keys.take(Found(name="anthropic", key=KEY))
        assert (await world.messages())[0] == 200


async def test_a_key_that_is_refused_is_found_again_once(world: World) -> None:
    world.models.replies += [Reply(status=401, error="no"), Reply(text="now")]
    asked = asyncio.create_task(world.messages())
    await world.models.until(lambda: world.models.seen)
    await world.asked.wait()
    world.keys.take(Found(name="anthropic", key="another-key-of-the-user"))
    status, said = await asked
    assert status == 200 and said["content"][0]["text"] == "now"
    assert world.models.seen[1].headers["x-api-key"] == "another-key-of-the-user"
    # And the one before is still looked for in what comes back.
    world.models.replies.append(Reply(text=f"once it was {KEY}"))
    assert KEY not in json.dumps(await world.messages())


async def test_a_subscriptions_token_goes_as_a_bearer_with_its_beta(world: World) -> None:
    world.keys.take(Found(name="anthropic", key="sk-ant-oat01-token", bearer=True))
    await world.messages(headers={"anthropic-beta": "tools-2025"})
    got = world.models.seen[0].headers
    assert got["authorization"] == "Bearer sk-ant-oat01-token" and "x-api-key" not in got
    assert got["anthropic-beta"] == "tools-2025,oauth-2025-04-20"


async def test_agents_are_told_apart_by_their_sockets(world: World) -> None:
    await world.messages(agent=1)
    await world.messages(agent=2, headers={"x-corral-agent": "1"})
    agents = [record["agent"] for record in world.transcript() if record["kind"] == "response"]
    assert agents == [1, 2]


async def test_fifty_streams_at_once(world: World) -> None:
    begun = asyncio.Barrier(50)

    async def pace(number: int) -> None:
        if number == 2:
            await begun.wait()

    world.models.default = Reply(text="one two three", pace=pace)

    async def one(agent: int) -> bytes:
        body = {"model": "claude-opus-5", "stream": True}
        async with world.ask("POST", "/v1/messages", agent=agent, json=body) as answer:
            found: bytes = await answer.read()
            return found

    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(one(1 + place % 2) for place in range(50)))
    assert all(b"message_stop" in answer for answer in answers)
    ends = [record for record in world.transcript() if record["kind"] == "response"]
    assert len(ends) == 50 and all(record["ended"] == "complete" for record in ends)


@pytest.mark.parametrize("name", ["localhost", "other.test", "expired"])
async def test_an_upstream_has_to_prove_who_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The key goes to no server whose certificate is another's, is over, or of no known authority.

    The control: one that an authority of this machine certifies.
    """
    authority = TestAuthority(folder / "authority")
    expired = name == "expired"
    tls = authority.context("localhost" if expired else name, expired=expired)
    async with Models(tls=tls) as models:
        async with started(models, folder, [anthropic(models)]) as world:
            status, said = await world.messages()
            assert status == 502 and "its certificate is not trusted" in said["error"]["message"]
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with started(models, folder, [anthropic(models)]) as world:
            assert (await world.messages())[0] == (200 if name == "localhost" else 502)
    assert len(models.seen) == (1 if name == "localhost" else 0)
