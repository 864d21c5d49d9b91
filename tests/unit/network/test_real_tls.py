"""Handshakes of OpenSSL with OpenSSL through the engine, in every shape that they take."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.support.egress import ask, policy, running
from tests.support.guests import Guest
from tests.support.https import TestAuthority

NAME = "web.test"
CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")


async def spoken(guest: Guest, context: ssl.SSLContext, question: bytes) -> tuple[str, bytes, int]:
    """What a TLS client at the guest's end is answered: the version, the bytes; how many times it
    said a ClientHello.
    """
    hellos = 0
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=NAME)

    async def progress() -> None:
        nonlocal hellos
        said = outgoing.read()
        record = said.removeprefix(CHANGE_CIPHER_SPEC)
        hellos += record[:1] == b"\x16" and record[5:6] == b"\1"
        await guest.say(said)
        data = await guest.hear_some()
        if data:
            incoming.write(data)
        else:
            incoming.write_eof()

    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            await progress()
    client.write(question)
    answer = b""
    while not answer.endswith(b"."):
        try:
            answer += client.read()
        except ssl.SSLWantReadError:
            await progress()
    return str(client.version()), answer, hellos


@pytest.mark.parametrize(
    ("newest", "group"),
    [
        (ssl.TLSVersion.TLSv1_3, None),
        (ssl.TLSVersion.TLSv1_3, "secp521r1"),  # the server asks for a second ClientHello
        (ssl.TLSVersion.TLSv1_2, None),
    ],
)
async def test_a_handshake_goes_through(
    tmp_path: Path, newest: ssl.TLSVersion, group: str | None
) -> None:
    authority = TestAuthority(tmp_path)
    context = authority.context(NAME)
    if group is not None:
        context.set_ecdh_curve(group)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.readuntil(b"?")
        writer.write(question.upper() * 10_000 + b".")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    client = ssl.create_default_context(cafile=str(authority.file))
    client.maximum_version = newest
    async with listening, running(policy(NAME, to={NAME: port})) as engine:
        guest = ask(engine, NAME, 443)
        version, answer, hellos = await spoken(guest, client, b"hello?")
        assert version == newest.name.replace("_", ".")
        assert hellos == (2 if group else 1)
        assert answer == b"HELLO?" * 10_000 + b"."
        await guest.finish()
