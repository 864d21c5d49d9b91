"""The gateway: what an upstream answers brings no key into the sandbox, and leads to no other."""

from __future__ import annotations

import gzip
import json

from ..judging import breach_if, tried_if
from ..scenes import Networked
from ..servers import Answer, Got, response
from .gateway import GATEWAY, asked, control, message, no_key

probe = GATEWAY.probe


@probe(
    "credential-echoed",
    "keys-stay",
    "The upstream repeats the request's headers: in its body, compressed, streamed, in headers.",
    scene="network",
)
async def echoed(scene: Networked) -> str:
    await control(scene)
    servers = scene.servers
    seen = []
    for name, answer in ECHOES.items():
        servers.model.answer = answer
        found = await asked(scene, f'message({name!r}, further="Accept-Encoding: gzip\\r\\n")')
        tried_if(servers.model.got, f"the request was not passed on ({name})")
        no_key(scene, found)
        text = found[name]
        _head, _, body = text.partition("\r\n\r\n")
        if "gzip" in name and "content-encoding: gzip" in _head.lower():
            no_key(scene, {name: _unpacked(body)})
        seen.append(name)
    return f"not in the answers: {', '.join(seen)}"


def _unpacked(body: str) -> str:
    data = body.encode("latin-1")
    start = data.find(b"\x1f\x8b")
    try:
        return gzip.decompress(data[start:]).decode("latin-1")
    except (OSError, EOFError):
        return ""  # in chunks, or not whole: what is in it was looked through as it came


def _all(got: Got) -> str:
    return "; ".join(f"{name}={value}" for name, value in got.headers)


def _chunked(got: Got) -> bytes:
    parts = [_all(got)[start : start + 7].encode() for start in range(0, len(_all(got)), 7)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body


def _streamed(got: Got) -> bytes:
    text = json.dumps({"type": "content_block_delta", "delta": {"text": _all(got)}})
    return response(f"event: x\ndata: {text}\n\n".encode(), "content-type: text/event-stream")


def _zipped(got: Got) -> bytes:
    return response(gzip.compress(_all(got).encode()), "content-encoding: gzip")


def _in_headers(got: Got) -> bytes:
    return response(b"{}", f"x-echo: {got.header('x-api-key')}", f"set-cookie: k={_all(got)}")


def _refused(got: Got) -> bytes:
    text = json.dumps({"error": {"message": f"invalid key: {got.header('x-api-key')}"}})
    head = f"www-authenticate: Bearer realm={got.header('x-api-key')}"
    return response(text.encode(), head, status=f"401 Bad {got.header('x-api-key')}")


def _broken(got: Got) -> bytes:
    return f"HTTP/1.1 {got.header('x-api-key')}\r\n\r\n".encode()


ECHOES: dict[str, Answer] = {
    "body": lambda got: message(got, text=_all(got)),
    "chunks of 7 bytes": _chunked,
    "event stream": _streamed,
    "gzip": _zipped,
    "headers": _in_headers,
    "an error": _refused,
    "a broken answer": _broken,
}


def _moved(status: str, where: str) -> Answer:
    return lambda _got: response(b"", where, status=status)


@probe(
    "redirects-of-the-upstream",
    "keys-stay",
    "The upstream redirects to another host, for the gateway to take the key there.",
    scene="network",
)
async def redirects(scene: Networked) -> str:
    await control(scene)
    servers = scene.servers
    for status in ("301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
        where = f"location: http://127.0.0.1:{servers.bad.port}/"
        servers.model.answer = _moved(status, where)
        await asked(scene, 'message("redirected")')
        tried_if(servers.model.got, "the request was not passed on")
        breach_if(servers.bad.got or servers.bad.connections, f"it was followed ({status})")
    return "none of four is followed"
