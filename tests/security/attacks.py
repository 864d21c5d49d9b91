"""Attacks as programs for the guest: what each attempt came to, by name, as JSON.

A program ends with `report()`, which prints {attempt: "done" or the name of the errno}. An attack
that fails must fail for the right reason, so tests compare errnos, and run the same attempts where
they are allowed.
"""

from __future__ import annotations

import json
from pathlib import Path

from corral.sandbox import Sandbox
from corral.verify import inside
from tests.support.sandboxes import Result, guest_root, python, succeeded

PRELUDE = (
    inside.PRELUDE
    + """
def report():
    print(json.dumps(outcome))
"""
)

# What can be tried on a file tree that has `file`, `other`, `folder/`, `program`.
WRITES = (
    inside.WRITES
    + """
def temporary(folder, name):
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o644)
    try:
        os.link(f"/proc/self/fd/{fd}", f"{folder}/{name}", follow_symlinks=True)
    finally:
        os.close(fd)

def writes(base):
    attempt("temporary file", temporary, base, "linked")
    content(base)
    metadata(base)
    names(base)
"""
)
ALL_WRITES = 19  # attempts that `writes` makes


async def from_guest_root(sandbox: Sandbox, code: str, **options: object) -> dict[str, str]:
    """The outcome of attempts made as the guest's root, outside every jail."""
    return _outcome(await guest_root(sandbox, PRELUDE + code + "\nreport()", **options))


async def from_jail(sandbox: Sandbox, code: str, **options: object) -> dict[str, str]:
    """The outcome of attempts made in the agent's jail."""
    return _outcome(await python(sandbox, PRELUDE + code + "\nreport()", **options))


def _outcome(result: Result) -> dict[str, str]:
    outcome = json.loads(succeeded(result).splitlines()[-1])
    assert isinstance(outcome, dict) and outcome, "the attack did not even run"
    return outcome


def tree(folder: Path) -> None:
    """What WRITES works on."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("file", "other", "program"):
        (folder / name).write_text(f"{name}\n")
    (folder / "folder").mkdir()


def state(folder: Path) -> dict[str, object]:
    """Everything about a folder that an attack could change."""
    found: dict[str, object] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (
            status.st_mode,
            status.st_uid,
            status.st_ino,
            status.st_nlink,
            status.st_mtime_ns,
            status.st_ctime_ns,
            content,
        )
    return found


def refused(outcome: dict[str, str], *errnos: str) -> None:
    """Every attempt was made, and failed with one of these errnos."""
    wrong = {name: how for name, how in outcome.items() if how not in errnos}
    assert not wrong, f"not refused with {errnos}: {wrong}"
