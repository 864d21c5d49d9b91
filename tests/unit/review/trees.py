"""Folders for tests of reviews: made from values, and read back as values."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

# What is at each path. bytes: a file; (bytes,): one that can be executed; text: a link.
What = bytes | tuple[bytes] | str
Tree = Mapping[str, What]


def build(root: Path, tree: Tree) -> Path:
    """Make a folder with these in it."""
    root.mkdir(parents=True, exist_ok=True)
    for path, what in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, str):
            file.symlink_to(what)
        else:
            file.write_bytes(what if isinstance(what, bytes) else what[0])
            file.chmod(0o755 if isinstance(what, tuple) else 0o644)
    return root


def read(root: Path, *, repository: bool = False) -> dict[str, What]:
    """What is in a folder, without its empty folders."""
    found: dict[str, What] = {}
    for file in root.rglob("*"):
        path = str(file.relative_to(root))
        if path.split("/")[0] == ".git" and not repository:
            continue
        if file.is_symlink():
            found[path] = str(file.readlink())
        elif file.is_file():
            content = file.read_bytes()
            found[path] = (content,) if file.stat().st_mode & 0o100 else content
    return found


def replace(root: Path, tree: Tree) -> None:
    """Have these in a folder and nothing else."""
    for entry in root.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    build(root, tree)
