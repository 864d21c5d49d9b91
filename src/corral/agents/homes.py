"""Where an agent's state is kept: one home for each project and agent, in the state folder.

    ~/.local/state/corral/homes/PROJECT/NAME[.N]/home/.claude      what the guest sees as ~/.claude

PROJECT is a hash of the project's path. Only the folders that the recipe names are shared with the
sandbox; what is above them no guest can write. What is in them a guest wrote: nothing there is
obeyed or followed by the host.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

from msgspec import Struct

from .. import paths
from ..errors import ConfigError, HostError
from . import beneath
from .model import Recipe
from .validate import place_of

HOME = "home"
PROJECT = "project"  # a file with the project's path, for people
IMPORTED = "imported"  # a file that is there once settings were imported
MAX_COUNTED = 200_000  # entries of a home that are looked at for its size


class Home(Struct, frozen=True):
    """A home. folder: on the host. places: (the host's folder, its place as "~/.claude")."""

    folder: Path
    places: tuple[tuple[str, str], ...]

    @property
    def root(self) -> str:
        """What stands for ~."""
        return str(self.folder / HOME)


def home_folder(agent: str, workspace: str, number: int = 1) -> Path:
    """Where the home of an agent is, whether there is one or not. workspace: a real path.

    No recipe's name has a dot: `claude-2` is another agent than the second claude.
    """
    project = hashlib.sha256(os.fsencode(workspace)).hexdigest()[:16]
    name = agent if number == 1 else f"{agent}.{number}"
    return paths.state_dir() / "homes" / project / name


def ensure_home(recipe: Recipe, workspace: str, number: int = 1) -> Home:
    """The home of an agent in a project, made if there is none. Raises HostError."""
    folder = home_folder(recipe.name, workspace, number)
    try:
        (folder / HOME).mkdir(mode=0o700, parents=True, exist_ok=True)
        _note(folder.parent / PROJECT, workspace)
        places = [(_made(folder / HOME, place), place) for place in recipe.table.state]
    except beneath.LinkedError as error:
        raise HostError(
            f"the home of {recipe.name} has a link or a file where a folder belongs: {error.path}.",
            hint=f"Look at {folder}, or begin anew: corral agent home {recipe.name} --reset",
        ) from error
    except OSError as error:
        raise HostError(f"the home {folder} cannot be made: {error.strerror}.") from error
    return Home(folder, tuple(places))


def seed(recipe: Recipe, home: Home, workspace: str) -> list[str]:
    """Write the recipe's settings files that are absent; the paths that links keep from it.

    {workspace} in them stands for the project's folder, as it is written in a string of JSON.
    """
    skipped = []
    project = json.dumps(workspace)[1:-1]
    for path, content in recipe.table.files.items():
        *folders, name = path.removeprefix("~/").split("/")
        assert place_of(path, recipe.table.state) is not None  # validated
        try:
            with beneath.opened(home.root, folders, make=True) as folder:
                beneath.write_new(
                    folder, name, content.lstrip("\n").replace("{workspace}", project).encode()
                )
        except FileExistsError:
            continue
        except (beneath.LinkedError, OSError):
            skipped.append(path)
    return skipped


def reset_home(folder: Path) -> bool:
    """Remove a home with all that is in it; whether there was one. Raises HostError.

    Links in it are removed, not followed (shutil.rmtree works by descriptors).
    """
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        raise HostError(f"{folder} is not a folder.")
    # Renamed first: what runs with it keeps what it has open, and a next start finds nothing.
    gone = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise HostError(f"{folder} cannot be removed: {error.strerror}.") from error
    return True


def size_of(folder: Path) -> tuple[int, int]:
    """(files, bytes on the disk) of a home; of a very large one of the first MAX_COUNTED."""
    files = size = seen = 0
    for _path, folders, names, descriptor in os.fwalk(folder):
        for name in names:
            try:
                status = os.lstat(name, dir_fd=descriptor)
            except FileNotFoundError:
                continue
            files, size = files + 1, size + status.st_blocks * 512
        seen += len(folders) + len(names)
        if seen > MAX_COUNTED:
            break
    return files, size


def refuse_number(number: int) -> None:
    """ConfigError for a number that no agent has."""
    if not 1 <= number <= 999:
        raise ConfigError("agents have the numbers 1 to 999.")


def _made(root: Path, place: str) -> str:
    parts = place.removeprefix("~/").split("/")
    with beneath.opened(str(root), parts, make=True):
        pass
    return str(root.joinpath(*parts))


def _note(path: Path, text: str) -> None:
    if not path.exists():
        path.write_text(text + "\n", "utf-8", "surrogateescape")
