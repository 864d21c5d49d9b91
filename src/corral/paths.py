"""Where corral keeps things, following the XDG base directory specification.

cache   kernels, base images, fetched tools, host facts: safe to delete at any time
state   trusted hashes: small, private, kept
config  the user's own config.toml
run     one folder per running sandbox, removed with it
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import platformdirs

from .errors import HostError


def cache_dir() -> Path:
    """The cache folder (CORRAL_CACHE_DIR, else the platform's), made if missing."""
    return _made(_override("CORRAL_CACHE_DIR") or platformdirs.user_cache_path("corral"))


def state_dir() -> Path:
    """The folder for records that are kept, mode 0700, made if missing."""
    return _made(_override("CORRAL_STATE_DIR") or platformdirs.user_state_path("corral"))


def log_dir(name: str) -> Path:
    """What is kept of the sandboxes called `name`, kept ones or not: network.jsonl, transcript."""
    return _made(_made(state_dir() / "logs") / name)


def config_file() -> Path:
    """The user's configuration file, whether it exists or not."""
    folder = _override("CORRAL_CONFIG_DIR") or platformdirs.user_config_path("corral")
    return folder / "config.toml"


def run_root() -> Path:
    """The parent of all run folders, private to the user.

    Below XDG_RUNTIME_DIR where that is set and usable, else the temporary folder. Kept short: a
    Unix socket's path has at most 107 bytes (unix(7)).
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        root = Path(runtime) / "corral"
    else:
        root = Path(tempfile.gettempdir()) / f"corral-{os.getuid()}"
    root = _made(root)
    status = root.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or root.is_symlink():
        raise HostError(
            f"{root} is not a private folder of yours (owner {status.st_uid}, "
            f"mode {status.st_mode & 0o777:o}).",
            hint=f"Remove {root}, or set XDG_RUNTIME_DIR to a folder of your own.",
        )
    return root


def program_files() -> tuple[str, ...]:
    """What runs when corral runs, as real paths: a sandbox that could write it would be corral.

    The packages, the virtual environment, and in a clone the launcher and the file whose change
    makes the launcher install again. Of a clone all of src: Python looks there for modules, and
    runs a sitecustomize.py that it finds.
    """
    source = Path(__file__).resolve().parent.parent
    found = [source] if source.name == "src" else [source / "corral", source / "corral_guest"]
    if sys.prefix != sys.base_prefix:
        found.append(Path(sys.prefix).resolve())
    clone = source.parent
    if source.name == "src" and (clone / "corral").is_file():
        found += [clone / "corral", clone / "pyproject.toml"]
    return tuple(str(path) for path in found)


def _override(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).absolute() if value else None


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"cannot make {folder}: {error.strerror}.",
            hint="Make it writable, or set CORRAL_CACHE_DIR, CORRAL_STATE_DIR and XDG_RUNTIME_DIR "
            "to folders that are.",
        ) from error
    return folder
