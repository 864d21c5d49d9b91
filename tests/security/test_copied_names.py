"""What a copy is called here is never the guest's word: names from a guest that was taken over.

No machine is needed: the attacker is what answers the host, with a name, an archive, a complaint.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from corral.errors import ChannelError, FileError
from corral.sandbox.copying import copy_out
from corral.sandbox.files import Executor, Files
from corral_guest import tar
from corral_guest.tar import Entry
from tests.support.local import Liar
from tests.support.trusting import extract_all
from tests.unit.guest.test_tar import archive

PLANTED = archive([
    Entry(b"x", tar.FOLDER, 0o755),
    Entry(b"x/.bashrc", tar.FILE, 0o644, 4),
    Entry(b"x/authorized_keys", tar.FILE, 0o600, 4),
])  # fmt: skip


class Attacker:
    """Says of everything that it is a folder of this name, and sends files that do harm at home."""

    def __init__(self, name: str) -> None:
        record = {"kind": "folder", "mode": 0o755, "size": 0, "time": 0, "target": ""}
        self._stat = json.dumps({"name": name, **record}).encode() + b"\n"

    async def exec(self, argv: Sequence[str], **_options: Any) -> Liar:
        answer = PLANTED if argv[0] == "pack" else self._stat
        return await Liar(answer).exec(argv)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the user copies to."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    for kept in (home / ".bashrc", home / ".ssh" / "authorized_keys"):
        kept.write_text("mine")
    return home


def below(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*")}


@pytest.mark.parametrize("source", ["src/..", "src/../", "..", "/tmp/..", "a/../..", "//..", ""])
@pytest.mark.parametrize("name", ["", ".ssh", ".bashrc", "innocent"])
async def test_a_source_without_a_name_gets_none_from_the_guest(
    home: Path, source: str, name: str
) -> None:
    before = below(home)
    files = Files(cast(Executor, Attacker(name)))
    with pytest.raises(FileError, match="what the copy is to be called") as refused:
        await copy_out(files, source, str(home))
    assert refused.value.hint
    assert below(home) == before
    assert (home / ".bashrc").read_text() == "mine"
    assert (home / ".ssh" / "authorized_keys").read_text() == "mine"


@pytest.mark.parametrize("source", ["src/sub/..", "/tmp/src/sub/../", "x/../src"])
@pytest.mark.parametrize("name", ["", ".ssh"])
async def test_a_source_that_goes_up_is_called_what_the_user_wrote(
    home: Path, source: str, name: str
) -> None:
    """And the control: the same way, what was asked for arrives, in a folder of its own."""
    before = below(home)
    await copy_out(Files(cast(Executor, Attacker(name))), source, str(home))
    assert below(home) - before == {"src", "src/.bashrc", "src/authorized_keys"}
    assert (home / ".bashrc").read_text() == "mine"
    assert (home / ".ssh" / "authorized_keys").read_text() == "mine"


@pytest.mark.parametrize(
    ("source", "root"),
    [
        *((path, "root") for path in ("x/..", "..", "x/../", "/")),
        *((path, ".") for path in ("x/.", ".")),
        ("x/", "x"),
    ],
)
async def test_an_archive_that_is_handed_on_stays_where_it_is_unpacked(
    tmp_path: Path, source: str, root: str
) -> None:
    """As `corral cp app:x/.. - | tar x` does it, with a tar that believes all."""
    files = Files(cast(Executor, Attacker("")))
    packed = b"".join([piece async for piece in files.pack(source)])
    with tarfile.open(fileobj=io.BytesIO(packed)) as handed:
        names = handed.getnames()
        place = tmp_path / "place" / "deep"
        place.mkdir(parents=True)
        extract_all(handed, place)
    assert sorted(names) == [root, f"{root}/.bashrc", f"{root}/authorized_keys"]
    made = {f"place/deep/{name}".replace("/./", "/").removesuffix("/.") for name in names}
    assert below(tmp_path) == {"place", "place/deep"} | made


@pytest.mark.parametrize("name", ["..", "../up", "/etc", "a/../b", "a//b", "n" * 300])
async def test_an_archive_gets_no_name_that_leaves_where_it_is_unpacked(name: str) -> None:
    with pytest.raises(FileError, match="cannot be called") as refused:
        async for _ in Files(cast(Executor, Attacker(""))).pack("x", name=name):
            pass
    assert refused.value.hint


@pytest.mark.parametrize("path", ["x/../../.bashrc", "/etc/passwd", "y/f", "x//f", "x/a\0b"])
async def test_what_is_said_to_be_left_out_lies_in_what_was_asked_for(
    tmp_path: Path, path: str
) -> None:
    """Callers of the SDK may look at such paths below the target. Nothing is put in place."""
    said = json.dumps({"left_out": path}).encode() + b"\n"
    with pytest.raises(ChannelError):
        await Files(cast(Executor, Liar(PLANTED, said))).download("x", tmp_path / "x")
    assert below(tmp_path) == set()
    honest = json.dumps({"left_out": "x/socket"}).encode() + b"\n"
    copied = await Files(cast(Executor, Liar(PLANTED, honest))).download("x", tmp_path / "x")
    assert copied.left_out == ("socket",)
