"""One connection leads to one host: by TLS, by each request, by certificate and by address."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from corral.gateway.intercept.authority import Authority
from corral.gateway.intercept.messages import Trouble
from tests.support.https import TestAuthority, plain, serving

from .conftest import HOST, OTHER_HOST, PLACEHOLDER, Door, intercepting, request


async def test_another_name_in_tls_is_refused(tmp_path: Path, upstreams: TestAuthority) -> None:
    context = upstreams.context(HOST, OTHER_HOST)
    async with serving(context, plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            for sni in (OTHER_HOST, "192.0.2.1", "api.example.test.other.test"):
                with pytest.raises((OSError, ssl.SSLError)):
                    async with door.tls(server.port, sni=sni):
                        pass
    assert server.connections == 0
    assert all(isinstance(word, Trouble) for word in door.words) and door.words


async def test_tls_without_a_name_is_refused(tmp_path: Path, upstreams: TestAuthority) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            context = door.trust()
            context.check_hostname = False
            async with door.raw(server.port) as (_reader, writer):
                with pytest.raises((OSError, ssl.SSLError)):
                    await writer.start_tls(context)
    assert server.connections == 0


async def test_no_tls_is_refused(tmp_path: Path, upstreams: TestAuthority) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.raw(server.port) as (reader, writer):
                writer.write(request(f"Authorization: {PLACEHOLDER}", port=server.port))
                assert await asyncio.wait_for(reader.read(), 10) == b""
    assert server.connections == 0


BAD = [
    b"GET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: %(host)s\r\nHost: other.example.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: %(host)s\r\nHost: %(host)s\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET https://other.example.test/ HTTP/1.1\r\nHost: %(host)s\r\n\r\n",
    b"GET http://%(host)s/ HTTP/1.1\r\nHost: %(host)s\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: api.example.test.other.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x@api.example.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: api.example.test\x00.other.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: api.example.test:1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: %(host)s\r\nX: a\rHost: other.example.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: %(host)s\r\n Host: other.example.test\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : other.example.test\r\nHost: %(host)s\r\n\r\n",
    b"CONNECT other.example.test:443 HTTP/1.1\r\nHost: other.example.test:443\r\n\r\n",
    b"CONNECT %(host)s HTTP/1.1\r\nHost: %(host)s\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: %(host)s\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET / HTTP/1.1\r\nHost: other.example.test\r\n\r\n",
]


@pytest.mark.parametrize("asked", BAD)
async def test_a_request_for_another_host_is_refused(
    tmp_path: Path, upstreams: TestAuthority, asked: bytes
) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        host = f"{HOST}:{server.port}".encode()
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (reader, writer):
                writer.write(asked.replace(b"%(host)s", host))
                back = await asyncio.wait_for(reader.read(), 10)
    assert back.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400")), back
    assert server.requests == []


async def test_also_when_it_is_a_later_request(tmp_path: Path, upstreams: TestAuthority) -> None:
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (reader, writer):
                for _ in range(2):
                    writer.write(request(port=server.port))
                    await asyncio.wait_for(reader.readuntil(b"hello"), 10)
                writer.write(
                    request(
                        f"Authorization: Bearer {PLACEHOLDER}", host=OTHER_HOST, port=server.port
                    )
                )
                back = await asyncio.wait_for(reader.read(), 10)
    assert back.startswith(b"HTTP/1.1 421") and b"for another host" in back
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault", ["unknown", "expired", "name"])
async def test_a_server_with_a_bad_certificate_is_refused(
    tmp_path: Path, upstreams: TestAuthority, fault: str
) -> None:
    if fault == "unknown":
        context = TestAuthority(tmp_path / "unknown", "somebody else").context(HOST)
    else:
        context = upstreams.context(
            OTHER_HOST if fault == "name" else HOST, expired=fault == "expired"
        )
    async with serving(context, plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            asked = request(f"Authorization: Bearer {PLACEHOLDER}", port=server.port)
            back = await door.ask(server.port, asked)
    assert back.startswith(b"HTTP/1.1 502") and b"Certificate verify failed" in back
    assert server.requests == []
    assert any(isinstance(word, Trouble) for word in door.words)


async def test_only_the_given_addresses_are_dialled(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    """The name itself is never looked up here: rebinding it changes nothing."""
    async with serving(upstreams.context(HOST), plain(b"hello")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            for addresses, expected in (
                (("127.0.0.2",), b"502"),
                (("127.0.0.2", "127.0.0.1"), b"200"),
            ):
                async with door.tls(server.port, addresses=addresses) as (reader, writer):
                    writer.write(request("Connection: close", port=server.port))
                    back = await asyncio.wait_for(reader.read(), 10)
                assert back.startswith(b"HTTP/1.1 " + expected), back
    assert server.connections == 1


async def test_an_address_that_is_a_name_is_no_address(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            for addresses in (("localhost",), (), ("127.0.0.1%lo",), ("127.1",)):
                async with door.raw(server.port, addresses=addresses) as (reader, _writer):
                    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert server.connections == 0


async def test_no_two_sandboxes_have_the_same_authority(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    one, two = Authority((HOST,)), Authority((HOST,))
    assert one.certificate.public_key() != two.certificate.public_key()
    assert one.certificate.serial_number != two.certificate.serial_number
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            other = Door(door.path, two)
            with pytest.raises(ssl.SSLCertVerificationError):
                async with door.tls(server.port, trust=other.trust()):
                    pass


async def test_a_certificate_is_for_exactly_the_name(
    tmp_path: Path, upstreams: TestAuthority
) -> None:
    async with serving(upstreams.context(HOST), plain(b"")) as server:
        async with intercepting(tmp_path, upstreams, server.port) as door:
            async with door.tls(server.port) as (_reader, writer):
                shown = writer.get_extra_info("peercert")
    assert shown["subjectAltName"] == (("DNS", HOST),)
    assert dict(entry[0] for entry in shown["issuer"])["commonName"].startswith("corral sandbox")
