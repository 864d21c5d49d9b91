"""Debug shells: each agent's, at a vsock port of the guest, for who knows a secret.

With vhost-device-vsock the host's end of all the guest's ports is one Unix socket in the run
folder, which is the user's alone. A client says which port it means in a first line of its own.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..channel import Channel
from ..plan import Plan
from ..spec.text import is_unicode

_ARGV = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")
_SECRET_BYTES = 32
_SECONDS = 60.0  # for the guest to listen
_SOCKET = "vsock"  # render.vsock_server's, in the folder of sockets


class DebugShell(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one. command: for a shell of the user's, with socat."""

    agent: int
    port: int
    socket: str
    secret: str
    command: str


async def open_shells(channel: Channel, plan: Plan, folder: Path) -> tuple[DebugShell, ...]:
    """Have the guest listen, if the plan says so. Raises GuestError, ChannelError."""
    if not plan.debug_shell:
        return ()
    from corral_guest.debug import PORT  # with all that the guest needs for it

    found = []
    for agent in plan.agents:
        port, secret = PORT + agent.number, secrets.token_hex(_SECRET_BYTES)
        socket = str(folder / "sockets" / _SOCKET)
        found.append(
            DebugShell(
                agent=agent.number,
                port=port,
                socket=socket,
                secret=secret,
                command=command(socket, port, secret),
            )
        )
        params = {
            "agent": agent.number,
            "secret": secret,
            "argv": list(_ARGV),
            "env": {**_plain(agent.environment), "TERM": "xterm"},
            "cwd": agent.workdir,
        }
        await channel.call("debug", params, timeout=_SECONDS)
    return tuple(found)


def _plain(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Those that JSON can carry as they are."""
    return {name: value for name, value in variables if is_unicode(name) and is_unicode(value)}


def command(socket: str, port: int, secret: str) -> str:
    """What a person types. printf is the shell's own: the secret is in no list of processes.

    vhost-device-vsock overlooks what comes before it has said OK, hence the wait.
    """
    return (
        f"stty raw -echo; {{ printf 'CONNECT {port}\\n'; sleep 1; printf '{secret}\\n'; cat; }} | "
        f"socat - {shlex.quote(f'UNIX-CONNECT:{socket}')}; stty sane"
    )
