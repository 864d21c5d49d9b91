"""Where a copy goes, by the rules of `docker cp`.

A folder that is there takes the source in under its own name; what is not there becomes the copy; a
source that ends in `/.` stands for what is in the folder. The folder of the target must be there.

What a copy is called on this machine is in the words of the user, never in an answer of the
sandbox, which would choose what is replaced here.
"""

from __future__ import annotations

import asyncio
import posixpath
from pathlib import Path

from ..channel.failures import printable
from ..errors import FileError, FileMissingError, NotFolderError
from .files import Copied, Files


def is_content(source: str) -> bool:
    """Whether a source stands for what is in a folder, not for the folder."""
    return source.rstrip("/").endswith("/.") or source in (".", "./", "/")


async def copy_out(files: Files, source: str, target: str, *, follow: bool = False) -> Copied:
    """From the sandbox to this machine. Raises FileError, UnsafeArchiveError."""
    place = Path(target)
    if await asyncio.to_thread(place.is_dir):
        if not is_content(source):
            place /= _name(source)
    elif target.endswith("/"):
        raise NotFolderError(
            f"{printable(target)} on this machine is not a folder.", path=target, hint="Make it."
        )
    return await files.download(source, place, follow=follow)


async def copy_in(files: Files, source: str, target: str, *, follow: bool = False) -> Copied:
    """From this machine to the sandbox. Raises FileError."""
    here = Path(source)
    try:
        folder = (await files.stat(target)).kind == "folder"
    except FileMissingError:
        folder = False
        if target.endswith("/"):
            raise NotFolderError(
                f"{printable(target)} in the sandbox is not a folder.", path=target, hint="Make it."
            ) from None
    if folder and not is_content(source):
        name = here.name
        if name in ("", ".."):
            name = (await asyncio.to_thread(here.resolve)).name
        target = f"{target.rstrip('/')}/{name}"
    elif folder:
        return await files.upload(here, target, fill=True, follow=True)
    return await files.upload(here, target, follow=follow)


def _name(source: str) -> str:
    """The last part of a path of the sandbox; `..` takes the part before it away, links or not."""
    name = posixpath.basename(posixpath.normpath(source))
    if name in ("", ".", ".."):
        raise FileError(
            f"{printable(source)} in the sandbox does not say what the copy is to be called.",
            path=source,
            hint="Write the folder's own name, not `..`; or copy what is in it: SRC/.",
        )
    return name
