"""`corral cp`: files between a kept sandbox and this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import click

from ..errors import CorralError, UsageError
from .options import agent_option

if TYPE_CHECKING:
    from ..sandbox.files import Copied, Files

EPILOG = """\b
Examples:
  corral cp app:/tmp/report.html .    a file of the sandbox's into this folder
  corral cp app:/var/log logs         a folder, as `logs` or into it
  corral cp data app:/tmp             a folder into the sandbox
  corral cp data/. app:/tmp/in        what is in a folder
  corral cp app:/tmp/out - > out.tar
  corral cp --agent 2 herd:result.txt .
  corral cp - app:/tmp                unpack an archive from standard input, compressed or not

\b
A file is there as a whole or not at all. A folder that is there is filled, and files of the
same names are replaced. Modes and times are kept, owners are not. What a sandbox sends is refused
if it holds links that lead out of what is copied, devices, or set-id files.
"""


@click.command("cp", epilog=EPILOG)
@click.argument("source", metavar="NAME:SRC|SRC|-")
@click.argument("target", metavar="DST|NAME:DST|-")
@click.option(
    "-L", "--follow-link", "follow", is_flag=True, help="Copy what SRC leads to, if it is a link."
)
@agent_option
def command(source: str, target: str, follow: bool, agent: int) -> None:
    """Copy between sandbox NAME, which runs, and this machine. `-` is a tar archive."""
    there, here = parse(source), parse(target)
    if (there is None) == (here is None):
        raise UsageError(
            "one of the two must be in a sandbox, the other one on this machine.",
            hint="Write the sandbox as NAME:PATH; a file here with a colon as ./FILE.",
        )
    from ..events import silent
    from .attach import Attachment

    name = (there or here or ("", ""))[0]

    async def work() -> int:
        from ..keeper.client import connect
        from ..sandbox.files import Files

        async with connect(name) as kept:
            files = Files(kept, agent=agent)
            if there is not None:
                await _out(files, there[1], target, follow)
            else:
                assert here is not None
                await _in(files, source, here[1], follow)
        return 0

    sys.exit(asyncio.run(Attachment(silent).during(work)))


def parse(text: str) -> tuple[str, str] | None:
    """The sandbox and the path in it, or None for a path of this machine, as in docker cp."""
    name, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".", "-")) or "/" in name:
        return None
    return name, path or "."


async def _out(files: Files, source: str, target: str, follow: bool) -> None:
    from ..sandbox.copying import copy_out

    if target != "-":
        _warn(await copy_out(files, source, target, follow=follow))
        return
    from . import terminal

    if os.isatty(terminal.STDOUT):
        raise UsageError("a terminal cannot take an archive.", hint="Redirect it: > FILE.")
    sink = terminal.Sink(terminal.STDOUT)
    async with contextlib.aclosing(files.pack(source, follow=follow)) as pieces:
        async for piece in pieces:
            try:
                await sink.write(piece)
            except OSError as error:
                raise CorralError(f"the archive cannot be written: {error.strerror}.") from error


async def _in(files: Files, source: str, target: str, follow: bool) -> None:
    from ..sandbox.copying import copy_in

    if source == "-":
        await files.unpack_from(target, _Input())
    else:
        _warn(await copy_in(files, source, target, follow=follow))


class _Input:
    """Standard input for a thread that nobody waits for: without a lock that an exit would need."""

    def read(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        data = b""
        while len(data) < size and (piece := os.read(0, size - len(data))):
            data += piece
        return data


def _warn(copied: Copied) -> None:
    from ..channel.failures import printable

    for path in copied.left_out:
        click.echo(f"corral: left out: {printable(path)} is no file, folder or link", err=True)
