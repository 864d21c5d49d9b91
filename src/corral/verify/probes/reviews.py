"""What an agent leaves under review: trees made to mislead the host that reads and applies them."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from pathlib import Path

from ...host.copies import remove_tree
from ...review import applying, showing
from ...review.compare import Comparison
from ...review.making import make
from ...review.snapshot import WORK, snapshot
from ...review.tree import opened
from ..judging import breach_if, tried_if
from ..scenes import Staged
from .copies import by_both
from .exports import EXPORTS

probe = EXPORTS.probe

MISLEADING = """
def attack(base):
    os.umask(0)
    def write(name, bits=0o644):
        fd = os.open(f"{base}/{name}", os.O_CREAT | os.O_WRONLY, bits)
        os.write(fd, b"made")
        os.close(fd)
    for name, target in (("passwd", "/etc/passwd"), ("up", "../.."), ("here", ".")):
        attempt(f"link {name}", os.symlink, target, f"{base}/{name}")
    os.mkdir(f"{base}/deep")
    attempt("link above", os.symlink, "../..", f"{base}/deep/out")
    attempt("pipe", os.mkfifo, f"{base}/pipe", 0o666)
    attempt("file", write, "file", 0o777)
    attempt("set-id", os.chmod, f"{base}/file", 0o6777)
    attempt("name", write, "n\\x1b[2J\\nx")
    attempt("git", os.makedirs, f"{base}/sub/.git/hooks")
    attempt("config", write, "sub/.git/config")
"""


@probe(
    "review-of-a-hostile-tree",
    "paths",
    "Links out, pipes, set-id files, names with escapes and repositories are left under review.",
    scene="staged",
)
async def review_of_a_hostile_tree(scene: Staged) -> str:
    applied = 0
    for folder, outcome in await by_both(scene, "review", MISLEADING):
        tried_if(outcome.get("pipe") == "done", "nothing was made")
        applied += await asyncio.to_thread(_reviewed, folder)
    return f"{applied} changes read and applied; nothing outside was read or written"


def _reviewed(made: Path) -> int:
    """Have what the guest made as the snapshot of an empty folder; read and apply all of it."""
    with tempfile.TemporaryDirectory(dir=made.parent.parent) as name:
        root = Path(name)
        here = root / "here"
        here.mkdir()
        make(str(here), root / "1", None)
        (root / "1" / WORK).rmdir()
        made.rename(root / "1" / WORK)
        with snapshot(root / "1") as (base, pack), opened(root / "1" / WORK) as work:
            comparison = Comparison(base, pack, work)
            entries = showing.patches(comparison, comparison.changes(), binary=True)
            text = b"".join(line for _pair, lines in entries for line in lines)
        outcome = applying.apply(root / "1", here, [], lambda _one: True)
        found = [path.lstat().st_mode for path in here.rglob("*")]
        remove_tree(root / "1" / WORK)
    breach_if(b"root:" in text, "the diff has what a link leads to")
    breach_if(b"\x1b" in text, "a name reaches the diff as it is")
    breach_if(any(stat.S_ISFIFO(mode) or mode & 0o7000 for mode in found), "a pipe or set-id file")
    breach_if(any(p.change.repository for p in outcome.applied), "a repository was applied")
    return len(outcome.applied)
