"""Files: archives and listings of a guest that was taken over, and who copies in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

from corral_guest import tar
from corral_guest.tar import Entry

from ...errors import ChannelError, CorralError, UnsafeArchiveError
from ...sandbox.files import Executor, Files
from ..judging import breach_if, tried_if
from ..model import Breach
from ..scenes import Ground, Inside
from .exports import EXPORTS

probe = EXPORTS.probe


class _Answer:
    """A stream that ends after its bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, limit: int = 1 << 16) -> bytes:
        piece, self._data = self._data[:limit], self._data[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)

    async def end(self) -> None:
        await asyncio.sleep(0)

    def reset(self, reason: str = "") -> None:
        self._data = b""


class Liar:
    """What answers in place of a guest's built-in: the same bytes to everything."""

    def __init__(self, answer: bytes) -> None:
        self.stdin, self.stdout, self.stderr = _Answer(b""), _Answer(answer), _Answer(b"")

    async def exec(self, argv: Sequence[str], **_options: Any) -> Liar:
        return self

    async def wait(self) -> int:
        return 0

    async def signal(self, number: int, *, group: bool = False) -> None:
        await asyncio.sleep(0)


def lying(answer: bytes) -> Files:
    """Files of a guest that answers so."""
    return Files(cast(Executor, Liar(answer)))


def archive(*entries: Entry) -> bytes:
    """An archive of the guest's own writer, whatever is in it, with files full of x."""
    parts = []
    for entry in entries:
        data = b"x" * entry.size if entry.kind == tar.FILE else b""
        parts.append(tar.header(entry) + data + tar.padding(len(data)))
    return b"".join(parts) + tar.END


FOLDER = Entry(b"x", tar.FOLDER, 0o755)


async def hostile(scene: Ground, what: str, *attacks: bytes) -> str:
    """Each archive is refused, and makes nothing; an honest one arrives."""
    base = scene.folder(what)
    place = base / "place"
    place.mkdir()
    (base / "secret").write_text("kept")
    for attack in attacks:
        try:
            await lying(attack).download("/tmp/x", place / "x")
        except UnsafeArchiveError:
            pass
        except CorralError as error:
            tried_if(False, f"refused for another reason: {error}")
        else:
            raise Breach("the archive was unpacked")
        found = sorted(str(path.relative_to(base)) for path in base.rglob("*"))
        breach_if(found != ["place", "secret"], f"left on the host: {found}")
    good = archive(FOLDER, Entry(b"x/f", tar.FILE, 0o644, 3))
    await lying(good).download("/tmp/x", place / "x")
    tried_if((place / "x" / "f").read_bytes() == b"xxx", "an honest archive does not arrive either")
    return f"{len(attacks)} refused; an honest archive arrives"


@probe(
    "archive-traversal",
    "archives",
    "An archive names absolute paths and paths that climb out of its target.",
    scene="host",
    cites=("CVE-2007-4559",),
)
async def archive_traversal(scene: Ground) -> str:
    elsewhere = scene.folder("elsewhere") / "attack"
    said = await hostile(
        scene,
        "traversal",
        archive(Entry(bytes(elsewhere), tar.FILE, 0o644)),
        archive(FOLDER, Entry(b"x/../../attack", tar.FILE, 0o644)),
        archive(Entry(b"../attack", tar.FILE, 0o644)),
        archive(Entry(b"attack", tar.FILE, 0o644)),
    )
    breach_if(elsewhere.exists(), f"made on the host: {elsewhere}")
    return said


@probe(
    "archive-links",
    "archives",
    "An archive makes links that lead out, and writes through its own links.",
    scene="host",
    cites=("CVE-2019-1002101", "CVE-2019-11249"),
)
async def archive_links(scene: Ground) -> str:
    return await hostile(
        scene,
        "links",
        archive(FOLDER, Entry(b"x/l", tar.LINK, 0o777, target=b"../../secret")),
        archive(
            FOLDER,
            Entry(b"x/l", tar.LINK, 0o777, target=b"."),
            Entry(b"x/l/f", tar.FILE, 0o644),
        ),
        archive(
            FOLDER,
            Entry(b"x/d", tar.FOLDER, 0o755),
            Entry(b"x/d/u", tar.LINK, 0o777, target=b".."),
            Entry(b"x/o", tar.LINK, 0o777, target=b"d/u/../secret"),
        ),
        archive(FOLDER, Entry(b"x/h", tar.HARD_LINK, 0o644, target=b"/etc/passwd")),
    )


@probe(
    "archive-set-id-and-names",
    "archives",
    "An archive holds a set-id file, a name twice, a name too long, a tree too deep.",
    scene="host",
)
async def archive_odd(scene: Ground) -> str:
    return await hostile(
        scene,
        "odd",
        archive(Entry(b"x", tar.FILE, 0o6755, 4)),
        archive(FOLDER, Entry(b"x/f", tar.FILE, 0o644), Entry(b"x/f", tar.LINK, 0, target=b"x")),
        archive(FOLDER, Entry(b"x/" + b"n" * 300, tar.FILE, 0o644)),
        archive(Entry(b"/".join([b"x"] * 250), tar.FOLDER, 0o755)),
    )


@probe(
    "archive-bomb",
    "bounded",
    "An archive announces a petabyte, and one never ends.",
    scene="host",
)
async def archive_bomb(scene: Ground) -> str:
    endless = tar.header(FOLDER) * 300_000
    return await hostile(scene, "bomb", tar.header(Entry(b"x", tar.FILE, 0o644, 1 << 50)), endless)


@probe(
    "hostile-listing",
    "archives",
    "A listing of a folder holds paths, NUL bytes, negative sizes and deep JSON.",
    scene="host",
)
async def hostile_listing(scene: Ground) -> str:
    def listing(**changes: object) -> bytes:
        plain = {"name": "n", "kind": "file", "mode": 0, "size": 0, "time": 0, "target": ""}
        return json.dumps({**plain, **changes}).encode() + b"\n"

    answers = [
        *(listing(name=name) for name in ("../up", "..", "a\0b", "a/b")),
        *(listing(size=-1), listing(more=1), listing() * 2, b"\xff\n", b"[" * 60_000),
    ]
    for answer in answers:
        try:
            await lying(answer).list("/tmp")
        except ChannelError:
            continue
        raise Breach(f"taken for a listing: {answer[:60]!r}")
    tried_if(await lying(listing()).list("/tmp"), "an honest listing is refused, too")
    return f"{len(answers)} refused; an honest one is read"


@probe(
    "copy-works-as-the-agent",
    "archives",
    "What copies files in the guest has other rights than the agent's own commands.",
    scene="any",
)
async def copy_rights(scene: Inside) -> str:
    files = Files(scene.sandbox)
    ours = _status((await files.read("/proc/self/status")).decode())
    theirs = _status(
        (await scene.jail("outcome['text'] = open('/proc/self/status').read()")).get("text", "")
    )
    tried_if("CapEff" in theirs, "the jail's own status could not be read")
    names = ("Uid", "Gid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    other = [name for name in names if ours.get(name) != theirs.get(name)]
    breach_if(other, f"they differ in {', '.join(other)}")
    for path in ("/agents", "/toolbox", "/corral"):
        breach_if(await files.exists(path), f"{path} of the guest is there")
    return "the same ids, capabilities and filter"


def _status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
