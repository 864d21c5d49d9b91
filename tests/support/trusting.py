"""A reader of archives that believes all that is in them, as those that attacks are meant for."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any


def extract_all(archive: tarfile.TarFile, place: Path) -> None:
    """Unpack it. Python 3.11.4 began to ask for a filter, and warns without one."""
    options: dict[str, Any] = {}
    if hasattr(tarfile, "fully_trusted_filter"):
        options["filter"] = "fully_trusted"
    archive.extractall(place, **options)
