"""Optional parts of corral: how its user installs one, into the environment that runs."""

from __future__ import annotations

import json
import shlex
import sys
from urllib.parse import unquote, urlsplit


def install(extra: str) -> str:
    """The command for a shell that installs what the extra `extra` of pyproject.toml names."""
    options, source = _source()
    words = (sys.executable, "-m", "pip", "install", *options, f"{source}[{extra}]")
    return shlex.join(words)


def _source() -> tuple[tuple[str, ...], str]:
    """From where this corral was installed: options of pip, and a folder or the package's name.

    direct_url.json is PEP 610's; pip and uv write it for what does not come from an index.
    """
    import importlib.metadata  # slow, and every start imports this module

    try:
        found = importlib.metadata.distribution("corral").read_text("direct_url.json")
        told = json.loads(found or "{}")
        url = urlsplit(told.get("url", ""))
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return (), "corral"
    if url.scheme != "file":
        return (), "corral"
    editable = told.get("dir_info", {}).get("editable") is True
    return ("--editable",) if editable else (), unquote(url.path)
