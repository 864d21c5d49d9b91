"""Where links lead within a tree of which only the names are known. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_MOST_LINKS = 40  # that the kernel follows for one path (MAXSYMLINKS in linux/namei.h)


class Lead(msgspec.Struct, frozen=True):
    """Where a path leads. path: in the tree, None if out of it. passed: links on the way to it."""

    path: str | None
    passed: tuple[str, ...]


def lead(folder: str, text: str, links: Mapping[str, str], root: str = "") -> Lead:
    """Where `text` leads from `folder`, by way of the tree's links (by path) or directly.

    root: the tree's own absolute path, where one that names it does not lead out. Of a path that
    goes round in circles it is how far the kernel would go.
    """
    at = folder.split("/") if folder else []
    todo, passed = [text], list[str]()
    while todo:
        text = todo.pop()
        if text.startswith("/"):
            if not root or not f"{text}/".startswith(f"{root}/"):
                return Lead(None, tuple(passed))
            at, text = [], text[len(root) + 1 :]
        first, _, rest = text.partition("/")
        if rest := rest.lstrip("/"):
            todo.append(rest)
        if first in ("", "."):
            continue
        if first == "..":
            if not at:
                return Lead(None, tuple(passed))
            at.pop()
            continue
        at.append(first)
        link = links.get("/".join(at))
        if link is not None:
            if len(passed) == _MOST_LINKS:
                break  # in circles, or to nothing that the kernel would follow
            passed.append("/".join(at))
            at.pop()
            todo.append(link)
    return Lead("/".join(at), tuple(passed))
