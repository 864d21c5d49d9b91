"""HTTPS servers on loopback that do what a test says, and the authority that certifies them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class TestAuthority:
    """Certifies whatever a test wants, in files of a folder."""

    __test__ = False

    def __init__(self, folder: Path, name: str = "corral test authority") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(self._name, self._key.public_key(), [], ca=True)
        self.file = folder / "authority.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        names: list[str],
        *,
        ca: bool = False,
        expired: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now - DAY if expired else now + DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())

    def context(self, *names: str, expired: bool = False, h2: bool = False) -> ssl.SSLContext:
        """What a server for these names uses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        certificate = self._sign(subject, key.public_key(), list(names), expired=expired)
        file = self.folder / f"{names[0].replace('*', '_')}-{certificate.serial_number}.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2", "http/1.1"] if h2 else ["http/1.1"])
        return context


@dataclass
class Request:
    """What a server got."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        """A header's value; "" without one. More than one is a fault."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, values
        return values[0] if values else ""


Script = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """A server. requests: what came. connections: how many were made, closed: how many ended.

    port: where it listens. more: set when one ends.
    """

    port: int
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    closed: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)
    sni: list[str] = field(default_factory=list)


def plain(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> Script:
    """An answer with Content-Length."""

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
        writer.write(b"\r\n".join(head) + b"\r\n\r\n" + body)

    return answer


def raw(*pieces: bytes, pause: float = 0.0) -> Script:
    """An answer as it is on the wire, in pieces."""

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
    """All that came, in the body and in headers."""
    text = "".join(f"{key}: {value}\n" for key, value in request.headers).encode()
    body = f"{request.method} {request.path}\n".encode() + text + b"\n" + request.body
    back = f"X-Echo: {request.header('authorization')}\r\n".encode()
    writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (back, len(body), body))


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext, script: Script) -> AsyncIterator[Upstream]:
    """A server for HTTP/1.1 on loopback; each request is answered by the script."""
    upstream = Upstream(0)

    def named(_socket: object, name: str | None, _context: object) -> None:
        upstream.sni.append(name or "")

    context.sni_callback = named

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while request := await read_request(reader):
                upstream.requests.append(request)
                await script(request, writer)
                await writer.drain()
        writer.close()
        upstream.closed += 1
        upstream.more.set()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    upstream.port = server.sockets[0].getsockname()[1]
    async with server:
        yield upstream


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None at the end. Knows Content-Length and chunked."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    first, *lines = head.split("\r\n")[:-2]
    method, path, _version = first.split(" ", 2)
    headers = [(k, v.strip()) for k, _, v in (line.partition(":") for line in lines)]
    request = Request(method, path, headers)
    if "chunked" in request.header("transfer-encoding"):
        while size := int(await reader.readline(), 16):
            request.body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    elif length := request.header("content-length"):
        request.body = await reader.readexactly(int(length))
    return request


@contextlib.asynccontextmanager
async def serving_http2(
    context: ssl.SSLContext, answer: Callable[[Request], list[bytes]]
) -> AsyncIterator[Upstream]:
    """A server for HTTP/2; `answer` gives the pieces of the body, the headers are echoed."""
    upstream = Upstream(0)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream.connections += 1
        config = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
        speaker = h2.connection.H2Connection(config)
        speaker.initiate_connection()
        writer.write(speaker.data_to_send())
        streams: dict[int, Request] = {}
        while data := await reader.read(65536):
            for event in speaker.receive_data(data):
                match event:
                    case h2.events.RequestReceived():
                        pairs = [(str(k), str(v)) for k, v in event.headers or []]
                        named = dict(pairs)
                        streams[event.stream_id] = Request(named[":method"], named[":path"], pairs)
                    case h2.events.DataReceived():
                        streams[event.stream_id].body += event.data
                        speaker.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                    case h2.events.StreamEnded():
                        request = streams[event.stream_id]
                        upstream.requests.append(request)
                        back = [(":status", "200"), ("x-echo", request.header("authorization"))]
                        speaker.send_headers(event.stream_id, back)
                        for piece in answer(request):
                            speaker.send_data(event.stream_id, piece)
                        speaker.end_stream(event.stream_id)
            writer.write(speaker.data_to_send())
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context)
    upstream.port = server.sockets[0].getsockname()[1]
    async with server:
        yield upstream
