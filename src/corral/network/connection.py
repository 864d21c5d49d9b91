"""One connection of an agent, from the asking to its end."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import NamedTuple

from corral import events
from corral.errors import CorralError
from corral.policy import BadName, Host, Network, decide, decide_address
from corral.policy.decision import addresses_of, matches
from corral.policy.names import IPAddress, from_address, parse, shown
from corral.policy.rules import rule_text
from corral.policy.sniff import Refused, refusal_text

from .client import Client
from .dial import dial, interleave, is_own
from .doors import Doors
from .ledger import Ledger
from .limits import Usage
from .outcome import Denied, Failed, Outcome
from .pump import pump
from .resolver import MOST, Resolve
from .stream import Stream

HTTP_PORT = 80

Targets = list[tuple[IPAddress, int]]


class Asked(NamedTuple):
    """What the guest said."""

    agent: int
    name: str
    port: int


class Connection:
    """Decides about one connection, makes it, and tells what became of it."""

    def __init__(
        self,
        asked: Asked,
        stream: Stream,
        network: Network,
        doors: Doors,
        usage: Usage,
        ledger: Ledger,
        resolve: Resolve,
    ) -> None:
        self._asked = asked
        self._stream = stream
        self._network = network
        self._doors = doors
        self._usage = usage
        self._ledger = ledger
        self._resolve = resolve
        self._time = time.time()
        self._began = time.monotonic()
        self._name = shown(asked.name)[1:-1]
        self._rule = ""
        self._address = ""
        self._client = Client(stream, usage)

    def refuse(self, reason: str) -> None:
        """It comes to nothing, at once."""
        self._tell("denied", reason)
        self._stream.reset(reason)

    async def run(self) -> None:
        """All of it; raises nothing but what is a fault of this program."""
        try:
            await self._run()
        except Outcome as outcome:
            if isinstance(outcome, Denied):
                self._rule = outcome.rule  # not the one that allowed it until then
            self._tell(outcome.verdict, outcome.reason)
            await self._say_no(outcome)
        except CorralError:
            # The guest gave the stream up, or is gone, before there was a connection.
            self._tell("failed", "given up by the sandbox")
        except asyncio.CancelledError:
            self._stream.reset("the sandbox ends")
            raise
        except BaseException:
            self._stream.reset("a fault of corral")
            raise

    async def _run(self) -> None:
        host = self._host()
        port = self._asked.port
        self._usage.count(0)
        if self._doors.is_gateway(host):
            await self._wait_for_turn()
            sock = await self._doors.to_gateway(self._asked.agent, host, port)
            self._rule = "gateway"
        else:
            sock = await self._to_the_world(host, port)
        with sock:
            await self._carry(sock)

    def _host(self) -> Host:
        try:
            host = parse(self._asked.name)
        except BadName as error:
            raise Denied("not a host name") from error
        self._name = host.text
        return host

    async def _to_the_world(self, host: Host, port: int) -> socket.socket:
        verdict = decide(self._network, host, port, extra=self._doors.rules)
        if not verdict.allowed:
            raise Denied(verdict.reason, verdict.rule)
        self._rule = verdict.rule
        secret = any(rule.port == port and matches(rule, host) for rule in self._doors.rules)
        await self._wait_for_turn()
        try:
            await self._client.inspect(host, port, tls=secret)
        except Refused as error:
            raise Denied(str(error)) from error
        targets = await self._targets(host, port)
        if secret:
            return await self._doors.to_interceptor(self._asked.agent, host, port, targets)
        sock, address = await dial(targets)
        self._address = str(address)
        return sock

    async def _wait_for_turn(self) -> None:
        if delay := self._usage.delay():
            await asyncio.sleep(delay)  # the rate: this connection's turn is then

    async def _targets(self, host: Host, port: int) -> Targets:
        """The addresses that may be dialled, all checked. Raises Denied and Failed."""
        said = addresses_of(self._network, host, port)
        found: Targets
        if said:
            found = [(_address(each.address), each.to_port or port) for each in said]
        elif host.address is not None:
            found = [(host.address, port)]
        else:
            answers = (await self._resolve(host.text))[:MOST]
            found = [(_canonical(each), port) for each in interleave(answers)]
        if not found:
            raise Failed("no such name")
        for address, dialled in found:
            verdict = decide_address(
                self._network, address, dialled, own=is_own(address), named=bool(said)
            )
            if not verdict.allowed:
                raise Denied(verdict.reason, verdict.rule)
            self._rule = verdict.rule or self._rule
        return found

    async def _carry(self, sock: socket.socket) -> None:
        self._tell("allowed", "")
        reason = ""
        try:
            await pump(self._client, self._stream, sock, self._usage)
        except Outcome as outcome:
            reason = outcome.reason
        except Refused as error:
            reason = str(error)
        except CorralError:
            reason = "given up by the sandbox"
        finally:
            self._tell("allowed", reason, over=True)
        if reason:
            self._stream.reset(reason)

    async def _say_no(self, outcome: Outcome) -> None:
        """Plain HTTP gets an answer that a person can read; everything else a reset."""
        name, port = self._name, self._asked.port
        try:
            if port == HTTP_PORT and isinstance(outcome, Denied):
                await self._client.wait_for_request()
            if self._client.speaks_http and isinstance(outcome, Denied):
                text = refusal_text(name, port, outcome.reason, _hint(outcome, name, port))
                await self._client.answer(text)
        except (CorralError, Outcome, TimeoutError):
            pass  # nobody wants to read it
        self._stream.reset(outcome.reason)

    def _tell(self, verdict: str, reason: str, *, over: bool = False) -> None:
        self._ledger.tell(
            events.Connection(
                time=self._time,
                agent=self._asked.agent,
                name=self._name,
                port=self._asked.port,
                verdict=verdict,
                reason=reason,
                rule=self._rule,
                address=self._address,
                sent=self._client.sent,
                received=self._client.received,
                seconds=time.monotonic() - self._began if over else None,
            )
        )


def _canonical(address: IPAddress) -> IPAddress:
    """An IPv4 address in the clothes of an IPv6 one (RFC 4291, 2.5.5.2) is an IPv4 address."""
    return from_address(address).address or address


def _address(text: str) -> IPAddress:
    address = parse(text).address
    assert address is not None, "the policy has addresses here"
    return address


def _is_literal(name: str) -> bool:
    return parse(name).address is not None


def _hint(outcome: Denied, name: str, port: int) -> str:
    match outcome.reason:
        case "denied by a rule":
            return f"On the host, the rule is: --deny {outcome.rule}"
        case "no network" | "not on the list" | "port not on the list":
            return f"On the host, allow it with: corral run --allow {rule_text(name, port)} ..."
        case reason if reason.endswith(" address") and _is_literal(name):
            return f"On the host, allow it with: corral run --allow {rule_text(name, port)} ..."
        case reason if reason.endswith(" address"):
            return f"On the host, name it with: corral run --host {name}=ADDRESS ..."
        case _:
            return "On the host, `corral net log` has more."
