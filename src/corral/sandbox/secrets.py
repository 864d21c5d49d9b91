"""The interceptor of one sandbox: started before it, as its programs have to know its authority."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from .. import extras
from ..channel.failures import printable
from ..errors import HostError, PlanError, ProcessError
from ..events import Phase, Report
from ..gateway.intercept.messages import Ready, Setup, Unusable, Wanted, Word
from ..host import Facts
from ..plan import Plan
from ..plan.trust import Trust, trusting
from ..proc import Helpers, Process
from .doors import Door, opened, writable_folders

_SOCKET = "intercept"
_MODULE = "corral.gateway.intercept"
_PACKAGES = ("mitmproxy", "OpenSSL", "cryptography", "h2", "msgspec")
READY_SECONDS = 200.0  # a password manager may ask its user for every secret

# Where programs look for authorities: Debian, Fedora, Alpine, SUSE, NixOS.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/certs/ca-bundle.crt",
)
_JAVA_STORES = ("/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts")
_LARGEST = 400_000  # bytes; what the guest is told at once has an end (1 MiB)


@dataclass(frozen=True, slots=True)
class Intercepting:
    """plan: the sandbox's, with placeholders and trust. socket: for the engine."""

    plan: Plan
    socket: Path


def check_extra(plan: Plan) -> None:
    """Raises PlanError when what intercepts requests is not installed; the plan has secrets."""
    if find_spec("mitmproxy") is None:
        names = ", ".join(secret.name for secret in plan.secrets)
        raise PlanError(
            f"secrets ({names}) are put into requests by mitmproxy, which is not installed.",
            hint=f"Install it: {extras.install('intercept')}",
        )


@contextlib.asynccontextmanager
async def intercepting(
    plan: Plan,
    helpers: Helpers,
    run_folder: Path,
    facts: Facts,
    environ: Mapping[str, str],
    report: Report,
    held: Mapping[str, str],
) -> AsyncIterator[Intercepting]:
    """The interceptor while the sandbox runs; the plan has secrets.

    environ: the user's environment, in which secrets are looked for. held: placeholders that a
    copy of a sandbox holds already. Raises HostError, ProcessError.
    """
    report(Phase(name="secrets", message="looking for the secrets"))
    wanted = tuple(
        Wanted(
            name=each.name, hosts=each.hosts, header=each.header, placeholder=held.get(each.name)
        )
        for each in plan.secrets
    )
    door = Door(
        what="the interceptor",
        module=_MODULE,
        packages=_PACKAGES,
        config=msgspec.json.encode(Setup(secrets=wanted)),
        sockets=(_SOCKET,),
        keys={each.name: each.key for each in plan.secrets},
        guests=writable_folders(plan),
    )
    said: asyncio.Future[Word] = asyncio.get_running_loop().create_future()

    def hear(word: bytes) -> None:
        one = msgspec.json.decode(word, type=Word)
        if not said.done():
            said.set_result(one)

    async with opened(door, helpers, run_folder, facts, environ, report, hear) as process:
        ready = await _first_word(said, process)
        stores = await asyncio.to_thread(_stores)
        trust = msgspec.structs.replace(
            stores,
            certificate=ready.certificate,
            hash=ready.hash,
            placeholders=ready.placeholders,
        )
        yield Intercepting(trusting(plan, trust), run_folder / "sockets" / _SOCKET)


async def _first_word(said: asyncio.Future[Word], process: Process) -> Ready:
    """What the interceptor says first. Raises HostError when a secret cannot be had."""
    await asyncio.wait(
        (said, process.exited), timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    if not said.done() and process.exited.done():
        with contextlib.suppress(TimeoutError):  # its last line may still be under way
            async with asyncio.timeout(1.0):
                await asyncio.shield(said)
    if not said.done():
        if process.exited.done():
            raise ProcessError(f"{process.explain()}.", detail=process.last_words() or None)
        raise HostError(
            f"the secrets were not found within {READY_SECONDS:g} seconds.",
            hint="A command that prints one may wait for you; see docs/secrets.md.",
        )
    match said.result():
        case Ready() as ready:
            return ready
        case Unusable(message=message):
            raise HostError(
                printable(message[:1].upper() + message[1:]),  # with words of the user's command
                hint="[secrets.NAME] in your config.toml says where it is found: docs/secrets.md.",
            )


def _stores() -> Trust:
    """What of this host's stores of authorities a guest sees, where and with what in it."""
    bundles: dict[str, str] = {}
    for path in _BUNDLES:
        place = _place(path)
        if place is None or place in bundles:
            continue
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = Path(path).read_text("ascii", errors="replace")
            if sum(map(len, bundles.values())) + len(text) <= _LARGEST:
                bundles[place] = text
    java = tuple(path for path in _JAVA_STORES if _place(path) == path)
    return Trust(
        certificate="",
        hash="",
        placeholders={},
        bundles=tuple(bundles.items()),
        java=java[:1],
        has_java=shutil.which("java") is not None,
    )


def _place(path: str) -> str | None:
    """Where a file is in the guest, with no link above it; None when it is not there."""
    if not os.access(path, os.R_OK):
        return None
    real = os.path.realpath(path)
    if real.startswith("/etc/"):
        return real
    folder = os.path.realpath(Path(path).parent)
    return f"{folder}/{Path(path).name}" if folder.startswith("/etc") else None
