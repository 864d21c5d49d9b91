"""The interceptor's process: what it is given by descriptors, and its first word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl

import msgspec

from . import requests
from .authority import Authority
from .held import Held, hold
from .messages import MAX_SETUP, Ready, Setup, Unusable, Word


def main(listen_fd: int, setup_fd: int, values_fd: int, words_fd: int) -> int:
    """Serve until killed, or until the parent is gone. Returns an exit status.

    listen_fd: a listening Unix socket. setup_fd, values_fd: Setup, and the secrets' values by name,
    as JSON, read to their end. words_fd: a pipe to the parent, which gets one line of JSON for each
    Word. The first is said before mitmproxy is loaded, which takes a second.
    """
    try:
        setup = msgspec.json.decode(_read(setup_fd), type=Setup)
        held = hold(setup, msgspec.json.decode(_read(values_fd), type=dict[str, str]))
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(setup.authorities)
        authority = Authority(_names(held))
    except (OSError, ValueError) as error:
        say(words_fd, Unusable(message=_plain(error)))
        return 1
    say(
        words_fd,
        Ready(
            certificate=authority.pem,
            hash=authority.hash,
            placeholders={each.name: each.placeholder.decode() for each in held},
        ),
    )
    from .service import Service

    service = Service(held, authority, setup.authorities, lambda word: say(words_fd, word))
    with socket.socket(fileno=listen_fd) as listener:
        asyncio.run(service.serve(listener))
    return 0


def say(fd: int, word: Word) -> None:
    """One line to the parent. One that does not read misses it."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(fd, msgspec.json.encode(word) + b"\n")


def _names(held: tuple[Held, ...]) -> tuple[str, ...]:
    hosts = (requests.split_port(host)[0] for each in held for host in each.hosts)
    return tuple(dict.fromkeys(hosts))


def _read(fd: int) -> bytes:
    with open(fd, "rb") as file:
        data = file.read(MAX_SETUP + 1)
    if len(data) > MAX_SETUP:
        raise ValueError("more than 1 MiB of settings and secrets.")
    return data


def _plain(error: Exception) -> str:
    """Without what a decoder quotes."""
    match error:
        case msgspec.MsgspecError():
            return "what the interceptor was told cannot be understood."
        case OSError():
            return f"the host's certificate authorities cannot be loaded ({error.strerror})."
        case _:
            return str(error)
