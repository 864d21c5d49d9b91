"""From a request of the guest to the upstream's answer, and back. HTTP by aiohttp, both ways.

Nothing is buffered but the request's body, which has to be checked before a key is added to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from ..policy import ANTHROPIC, GATEWAY_DOMAIN, Gateway
from . import asked as asking
from . import bodies, headers
from .account import Budgets, Rate
from .asked import Asked
from .bodies import Memory, Room
from .config import Config
from .dialects import (
    BILLED,
    OPENAI_PREFIX,
    Refusal,
    Route,
    error_body,
    error_headers,
    key_header,
    route,
)
from .exchange import Exchange
from .flow import Flow, UnknownEncoding
from .found import Found
from .held import Keys
from .kept import Kept
from .prices import Table

MAX_AT_ONCE = 200  # requests of one agent
CONNECT_SECONDS = 30.0
SILENT_SECONDS = 900.0  # without a byte; longer than any SDK's own limit (600)
_REFUSALS = 100  # that are written down, of each agent in a minute
_NAME_END = f".{GATEWAY_DOMAIN}"
_log = logging.getLogger(__name__)


class Relay:
    """The gateways of one sandbox."""

    def __init__(
        self,
        config: Config,
        keys: Keys,
        kept: Kept,
        session: aiohttp.ClientSession,
        table: Table,
    ) -> None:
        self._gateways = {gateway.name: gateway for gateway in config.gateways}
        self._allowed = config.allowed
        self._life = config.life
        self._keys = keys
        self._kept = kept
        self._session = session
        self._table = table
        self._budgets = Budgets(kept.account())
        self._rates: dict[tuple[str, int], Rate] = {}
        self._refusals = {agent: Rate(_REFUSALS) for agent in config.agents}
        self._at_once = {agent: 0 for agent in config.agents}
        self._memory = Memory(config.agents, bodies.MAX_HELD)
        self._count = 0

    async def handle(self, agent: int, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request of an agent."""
        gateway: Gateway | None = None
        try:
            with self._one_more(agent):
                gateway = self._named(request)
                self._check_agent(agent, gateway)
                if request.method in ("GET", "HEAD") and request.raw_path.partition("?")[0] == "/":
                    return _said_here(200, b'{"gateway":"corral"}', {})
                path, _, query = request.raw_path.partition("?")
                found = route(gateway.dialect, request.method, path)
                with self._memory.room(agent) as room:
                    return await self._relayed(agent, gateway, found, query, request, room)
        except Refusal as refusal:
            if not refusal.recorded:
                self._record(agent, gateway, request, refusal)
            dialect = None if gateway is None else gateway.dialect
            body = self._keys.secrets.clean(error_body(dialect, refusal))
            return _said_here(refusal.status, body, error_headers(refusal))

    def _record(
        self, agent: int, gateway: Gateway | None, request: web.BaseRequest, refusal: Refusal
    ) -> None:
        """Write down what was refused before it was a request to a model.

        Not all of it: it costs the guest nothing, and is not to push other records out.
        """
        try:
            self._refusals[agent].take(time.monotonic())
        except Refusal:
            return
        record = {
            "kind": "refused",
            "time": round(time.time(), 3),
            "agent": agent,
            "gateway": None if gateway is None else gateway.name,
            "method": request.method[:16],
            "path": request.raw_path.partition("?")[0][:200],
            "status": refusal.status,
            "error": refusal.message,
        }
        self._kept.write(record, self._keys.secrets)

    @contextlib.contextmanager
    def _one_more(self, agent: int) -> Iterator[None]:
        if self._at_once[agent] >= MAX_AT_ONCE:
            text = f"more than {MAX_AT_ONCE} requests at once."
            raise Refusal(429, text, code="rate_limit_exceeded", retry_after=1.0)
        self._at_once[agent] += 1
        try:
            yield
        finally:
            self._at_once[agent] -= 1

    def _named(self, request: web.BaseRequest) -> Gateway:
        """The gateway that the Host header names. Raises Refusal."""
        hosts = request.headers.getall("Host", [])
        name = hosts[0].lower().removesuffix(":80") if len(hosts) == 1 else ""
        gateway = self._gateways.get(name.removesuffix(_NAME_END))
        if gateway is None or not name.endswith(_NAME_END):
            raise Refusal(404, "there is no gateway of that name.", code="not_found")
        return gateway

    def _check_agent(self, agent: int, gateway: Gateway) -> None:
        """The egress engine asks the same, but of a connection's name: here is the request's."""
        if gateway.name not in self._allowed.get(agent, self._gateways):
            raise Refusal(403, "this agent may not use that gateway.", code="permission_denied")

    async def _relayed(
        self,
        agent: int,
        gateway: Gateway,
        found: Route,
        query: str,
        request: web.BaseRequest,
        room: Room,
    ) -> web.StreamResponse:
        asked = await self._asked(gateway, found, request, room)
        self._count += 1
        number = f"{self._life}-{self._count}"
        exchange = Exchange(number, agent, gateway, found, asked, self._kept)
        sent = headers.onwards(request.headers.items(), oauth=False)
        query = headers.query(query)
        with contextlib.ExitStack() as admitted:
            if found.kind in BILLED:
                self._check_rate(gateway, agent)
                most = self._table.at_most(asked.models, asked.at_most())
                admitted.enter_context(self._budgets.under_way(gateway, agent, most))
            exchange.began(request.method, sent, self._keys.secrets)
            try:
                return await self._exchanged(exchange, gateway, found, query, request, asked)
            except Refusal as refusal:
                exchange.refused(refusal, self._keys.secrets)
                raise

    async def _asked(
        self, gateway: Gateway, found: Route, request: web.BaseRequest, room: Room
    ) -> Asked:
        """What is asked for. From then on its body is held as it will be sent, and no other."""
        if request.method != "POST":
            return Asked()
        data = await bodies.body(request, room)
        if not data and found.kind == "other":
            return Asked()
        asked = asking.read(found.kind, gateway, data, self._table)
        room.hold(len(asked.body))
        return asked

    def _check_rate(self, gateway: Gateway, agent: int) -> None:
        if gateway.rpm is not None:
            rate = self._rates.setdefault((gateway.name, agent), Rate(gateway.rpm))
            rate.take(time.monotonic())

    async def _exchanged(
        self,
        exchange: Exchange,
        gateway: Gateway,
        found: Route,
        query: str,
        request: web.BaseRequest,
        asked: Asked,
    ) -> web.StreamResponse:
        """Ask the upstream, a second time if the key has changed, and pass its answer on."""
        url = URL(address(gateway, found.path, query), encoded=True)
        key = None if gateway.key is None else await self._keys.get(gateway.name)
        ended, flow = "failed", None
        try:
            for last in (False, True):
                sent = self._headers(gateway, key, request, asked)
                exchange.sent()
                async with self._session.request(
                    request.method,
                    url,
                    headers=sent,
                    data=asked.body or None,
                    allow_redirects=False,
                ) as answer:
                    if answer.status == 401 and key is not None and key.key and not last:
                        another = await self._keys.another(gateway.name, key.key)
                        if another is not None:
                            key = another
                            continue
                    exchange.answered(answer.status)
                    flow = self._flow(exchange, answer, asked)
                    response, whole = await self._passed(exchange, answer, flow, request)
                    ended = "complete" if whole else "failed"
                    return response
            raise AssertionError  # the second time does not go on
        except (asyncio.CancelledError, aiohttp.ClientConnectionResetError):
            ended = "cancelled"
            raise
        except UnknownEncoding as error:
            raise Refusal(502, f"the upstream packs its answer as {error}.") from None
        except TimeoutError:
            raise _unreachable(gateway, "it does not answer") from None
        except aiohttp.ClientError as error:
            raise _unreachable(gateway, _why(error)) from None
        finally:
            if ended != "failed" or flow is not None:
                size = 0 if flow is None else flow.size
                secrets = self._keys.secrets
                exchange.over(ended, secrets, self._table, self._budgets, size=size)

    def _headers(
        self, gateway: Gateway, key: Found | None, request: web.BaseRequest, asked: Asked
    ) -> list[tuple[str, str]]:
        oauth = key is not None and key.bearer
        sent = headers.onwards(request.headers.items(), oauth=oauth)
        # Not packed: the gateway has to look into it, and packing holds small events back.
        sent.append(("accept-encoding", "identity"))
        if asked.body:
            sent.append(("content-type", "application/json"))
        if key is not None and key.key is not None:
            sent.append(key_header(gateway.dialect, gateway.header, key.key, bearer=key.bearer))
        return sent

    def _flow(self, exchange: Exchange, answer: aiohttp.ClientResponse, asked: Asked) -> Flow:
        events = answer.content_type == "text/event-stream"
        encoding = answer.headers.get("Content-Encoding", "").strip().lower()
        return Flow(
            exchange.answer,
            self._keys.secrets,
            encoding=encoding,
            events=events,
            only_ours=events and asked.injected,
        )

    async def _passed(
        self,
        exchange: Exchange,
        answer: aiohttp.ClientResponse,
        flow: Flow,
        request: web.BaseRequest,
    ) -> tuple[web.StreamResponse, bool]:
        """Pass the answer on as it comes; whether all of it came."""
        response = web.StreamResponse(status=answer.status)
        for name, value in headers.back(answer.headers.items(), self._keys.secrets):
            response.headers.add(name, value)
        response.headers["Server"] = "corral"
        if not answer.headers.get("Content-Encoding") and answer.content_length is not None:
            response.content_length = answer.content_length
        await response.prepare(request)
        try:
            async for data in answer.content.iter_any():
                for piece in flow.feed(data):
                    if piece:
                        exchange.first()
                        await response.write(piece)
            if last := flow.end():
                exchange.first()
                await response.write(last)
            await response.write_eof()
        except aiohttp.ClientConnectionResetError:
            raise
        except (aiohttp.ClientError, TimeoutError, zlib.error) as error:
            # It has begun, so all that is left is to hang up before its end.
            _log.info("an answer broke off: %s", type(error).__name__)
            if request.transport is not None:
                request.transport.close()
            return response, False
        return response, True


def address(gateway: Gateway, path: str, query: str) -> str:
    """The URL to ask. OpenAI's interface stands below /v1, unless the upstream says otherwise."""
    base = gateway.upstream.rstrip("/")
    if gateway.dialect == ANTHROPIC:
        base = base.removesuffix("/v1")
    elif not urlsplit(base).path:
        base += OPENAI_PREFIX
    return f"{base}{path}?{query}" if query else f"{base}{path}"


def _said_here(status: int, body: bytes, more: dict[str, str]) -> web.Response:
    said = {"content-type": "application/json", "server": "corral", **more}
    return web.Response(status=status, body=body, headers=said)


def _unreachable(gateway: Gateway, why: str) -> Refusal:
    return Refusal(502, f"the upstream of {gateway.name} cannot be reached: {why}.")


def _why(error: aiohttp.ClientError) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted"
        case aiohttp.ClientSSLError():
            return "TLS with it failed"
        case aiohttp.ClientConnectorDNSError():
            return "its name is not known"
        case aiohttp.ClientConnectorError():
            # asyncio's own text has the address in it, and no reason.
            return os.strerror(error.errno).lower() if error.errno else "no connection"
        case aiohttp.ServerDisconnectedError():
            return "it hung up"
        case _:
            return type(error).__name__
