"""The interceptor's process: what it is given by descriptors, and its first word."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import socket
import ssl

import msgspec

from ..found import Found
from . import requests
from .authority import Authority
from .held import Held, hold
from .messages import Misplaced, Ready, Setup, Told, Trouble, Unusable

MAX_SETUP = 1 << 20  # bytes
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def main(config_fd: int, keys_fd: int, tell_fd: int, listen_fd: int) -> int:
    """Serve until killed. Returns an exit status.

    config_fd: Setup, as JSON. keys_fd: one line of JSON for each secret, a Found. tell_fd: a pipe
    to the parent, which gets lines of JSON. The first is said before mitmproxy is loaded, which
    takes a second. listen_fd: a Unix socket that listens already.
    """
    # No other process of this user reads the memory, in which secrets are; no core is written.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # two for each connection
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with open(config_fd, "rb") as file:
            setup = msgspec.json.decode(file.read(MAX_SETUP), type=Setup)
        held = hold(setup, values(keys_fd, len(setup.secrets)))
        authorities = setup.authorities or _authorities()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authorities)
        authority = Authority(_names(held))
    except (OSError, ValueError) as error:
        say(tell_fd, Told(word=Unusable(message=_plain(error))))
        return 1
    ready = Ready(
        certificate=authority.pem,
        hash=authority.hash,
        placeholders={each.name: each.placeholder.decode() for each in held},
    )
    say(tell_fd, Told(word=ready))
    from .service import Service

    service = Service(held, authority, authorities, lambda word: say(tell_fd, told(word, held)))
    with socket.socket(fileno=listen_fd) as listener:
        asyncio.run(service.serve(listener))
    return 0


def values(fd: int, count: int) -> dict[str, str]:
    """So many secrets, by name. Raises ValueError when one cannot be had."""
    found: dict[str, str] = {}
    with open(fd, "rb", closefd=False) as file:
        while len(found) < count:
            line = file.readline(MAX_SETUP)
            if not line:
                raise ValueError("the secrets were not handed over.")
            one = msgspec.json.decode(line, type=Found)
            if one.key is None:
                raise ValueError(f"the secret {one.name} cannot be had: {one.problem}")
            found[one.name] = one.key
    return found


def say(fd: int, told: Told) -> None:
    """One line to the parent. It reads; one that does not would make this process wait."""
    line = msgspec.json.encode(told) + b"\n"
    while line:
        line = line[os.write(fd, line) :]


def told(word: Misplaced | Trouble, held: tuple[Held, ...]) -> Told:
    """A word as a sentence for the user."""
    match word:
        case Misplaced(secret=secret, agent=agent, host=host, where=where):
            one = next(each for each in held if each.name == secret)
            places = ", ".join(one.hosts)
            return Told(
                notice=f"agent {agent} sent the placeholder of {secret} to {host} in the {where}, "
                f"where it stays as it is (it becomes the secret in the header "
                f"{one.header.decode()} for {places})."
            )
        case Trouble(agent=agent, host=host, reason=reason):
            return Told(notice=f"{host}, for agent {agent}: {reason}.")


def _authorities() -> str:
    """The file of certificates that this host trusts; where it has none, certifi's."""
    found = ssl.get_default_verify_paths()
    for path in (found.cafile, *AUTHORITIES):
        if path is not None and os.access(path, os.R_OK):
            return path
    import certifi

    return certifi.where()


# Where distributions keep them: Debian, Fedora, Alpine, SUSE.
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)


def _names(held: tuple[Held, ...]) -> tuple[str, ...]:
    hosts = (requests.split_port(host)[0] for each in held for host in each.hosts)
    return tuple(dict.fromkeys(hosts))


def _plain(error: Exception) -> str:
    """Without what a decoder quotes."""
    match error:
        case msgspec.MsgspecError():
            return "what the interceptor was told cannot be understood."
        case OSError():
            return f"the host's certificate authorities cannot be loaded ({error.strerror})."
        case _:
            return str(error)
