"""Finding an agent's program among those of this machine that a sandbox sees."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

from ..errors import MissingProgramError
from ..host.layout import TOOLBOX, TOP_LEVEL
from ..host.system import System
from ..search import leads_into
from ..spec.tools import find_program, program_chain, program_folders
from .validate import NEED

_VERSION = re.compile(r"(\d+(?:\.\d+){0,3})")
_USUAL = "/usr/local/bin:/usr/bin:/bin"
_HOW = {
    "node": "Install nodejs with your package manager, or a newer one with nvm in your home.",
    "npm": "Install npm with your package manager, or with nvm in your home.",
    "python3": "Install python3 and python3-venv with your package manager.",
}


class Found(Struct, frozen=True):
    """A program. path: where it is, on the host and in the sandbox. tools: folders that the sandbox
    needs for it besides /usr and the like. image: whether corral has installed it."""

    path: str
    tools: tuple[str, ...] = ()
    image: bool = False


def find_on_host(program: str, path_env: str, home: str, outside: frozenset[str]) -> Found | None:
    """The first on the search path that a sandbox can run; None when there is none.

    outside: folders (real paths) in which neither it is nor anything on the way to it. The
    workspace: whoever wrote the project put it there; and what another sandbox can have changed.
    """
    for folder in path_env.split(os.pathsep):
        path = find_program(program, folder) if folder.startswith("/") else None
        if path is None or any(leads_into(part, outside) for part in program_chain(path)):
            continue
        tools = program_folders(program, folder, home)
        if all(_seen(part, tools) for part in program_chain(path)):
            return Found(path, tools)
    return None


def find_need(name: str, path_env: str, home: str, outside: frozenset[str]) -> Found | None:
    """A program that another needs: the system's own first, as it is there for everybody."""
    return find_on_host(name, f"{_USUAL}:{path_env}", home, outside)


def missing(needs: Sequence[str], found: Mapping[str, Found | None], system: System) -> None:
    """MissingProgramError when one of `needs` is not there or too old. found: by name."""
    for need in needs:
        parts = NEED.fullmatch(need)
        assert parts is not None  # validated
        name, least = parts[1], parts[2]
        there = found.get(name)
        if there is None:
            raise MissingProgramError(
                f"it needs {need}, and no {name} is where a sandbox sees it.", hint=_how(name)
            )
        if least is None:
            continue
        has = version_of(there.path, system)
        if has is None or _numbers(has) < _numbers(least):
            raise MissingProgramError(
                f"it needs {need}, and {there.path} is {has or 'of an unknown version'}.",
                hint=_how(name),
            )


def version_of(path: str, system: System) -> str | None:
    """The version that a program of the host says it has. Not for programs of an image."""
    answer = system.answer([path, "--version"])
    match = _VERSION.search(answer.stdout + answer.stderr) if answer.status == 0 else None
    return match[1] if match else None


def _how(name: str) -> str:
    return _HOW.get(name, f"Install {name} with your package manager.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _seen(path: str, tools: Sequence[str]) -> bool:
    """Whether a sandbox has this path."""
    places = (*TOOLBOX, *TOP_LEVEL, "/run/current-system", *tools)
    real = tuple(os.path.realpath(tool) for tool in tools)
    return any(_within(path, place) for place in (*places, *real))


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
