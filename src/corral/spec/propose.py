"""The corral.toml that `corral config init` writes: what this project seems to need, commented.

Looking is all this does: it lists the folder and looks programs up on PATH, and reads nothing
of the project's files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct

from .text import printable, toml_string
from .tools import abbreviated, is_on_path, program_folders

# What a file in the project's folder tells about the programs that work on it.
MARKERS: dict[str, tuple[str, ...]] = {
    "package.json": ("node", "npm"),
    "pnpm-lock.yaml": ("pnpm",),
    "yarn.lock": ("yarn",),
    "bun.lock": ("bun",),
    "bun.lockb": ("bun",),
    "deno.json": ("deno",),
    "pyproject.toml": ("python3",),
    "requirements.txt": ("python3",),
    "setup.py": ("python3",),
    "uv.lock": ("uv",),
    "poetry.lock": ("poetry",),
    "Pipfile": ("pipenv",),
    "Cargo.toml": ("cargo",),
    "go.mod": ("go",),
    "Gemfile": ("ruby", "bundle"),
    "pom.xml": ("java", "mvn"),
    "build.gradle": ("java",),
    "build.gradle.kts": ("java",),
    "composer.json": ("php", "composer"),
    "mix.exs": ("elixir",),
    "stack.yaml": ("stack",),
    "dune-project": ("dune",),
    "Project.toml": ("julia",),
    "CMakeLists.txt": ("cmake",),
    "meson.build": ("meson",),
    "Makefile": ("make",),
    "justfile": ("just",),
}
# Files that usually hold secrets, and those of similar names that do not.
_SECRET_FILES = (".env", ".env.*", "*.pem", "*.key", ".netrc", ".pypirc", "credentials.json")
_HARMLESS = ("*.example", "*.sample", "*.template", "*.dist", "*.pub")


class Proposal(Struct, frozen=True):
    """What a project seems to need.

    tools: folders to share as tools, to why. masks: files to hide. missing: programs that are
    wanted and not found anywhere, to why.
    """

    tools: Mapping[str, str]
    masks: tuple[str, ...]
    missing: Mapping[str, str]


def propose(names: Iterable[str], path_env: str, home: str) -> Proposal:
    """A proposal for a folder that has the files `names`."""
    present = sorted(names)
    tools: dict[str, str] = {}
    missing: dict[str, str] = {}
    for marker in (name for name in present if name in MARKERS):
        for program in MARKERS[marker]:
            for folder in program_folders(program, path_env, home):
                tools.setdefault(abbreviated(folder, home), f"{program}, for {marker}")
            if not is_on_path(program, path_env):
                missing.setdefault(program, marker)
    masks = tuple(
        name
        for name in present
        if any(fnmatchcase(name, pattern) for pattern in _SECRET_FILES)
        and not any(fnmatchcase(name, pattern) for pattern in _HARMLESS)
    )
    return Proposal(tools, masks, missing)


def files_in(folder: Path) -> list[str]:
    """Names in `folder`; OSError when it cannot be listed."""
    return os.listdir(folder)  # noqa: PTH208 - names are all that is wanted


def render(proposal: Proposal) -> str:
    """The text of a corral.toml with this proposal; everything else in it is a comment."""
    lines = [
        "# What corral gives the sandbox for this project; all keys are optional.",
        "# See what results with: corral config show",
        "",
        "[machine]",
        "# cpus = 2",
        '# memory = "4GiB"',
        "",
        "[workspace]",
        "# read_only = true",
        "# review = true",
        "# Files that the sandbox does not see, as in a .gitignore file.",
    ]
    if proposal.masks:
        masks = ", ".join(toml_string("/" + _escaped(name)) for name in proposal.masks)
        lines.append(f"mask = [{masks}]")
    else:
        lines.append('# mask = [".env"]')
    lines += [
        "",
        "# Further folders; read-only unless writable.",
        "# [[share]]",
        '# source = "~/data"',
        '# target = "/data"',
        "# writable = false",
        "",
        "[run]",
        "# Programs that you have in your home; /usr, /opt and /nix/store are there anyway.",
    ]
    if proposal.tools:
        lines.append("tools = [")
        lines += [f"  {toml_string(path)},  # {why}" for path, why in proposal.tools.items()]
        lines.append("]")
    else:
        lines.append('# tools = ["~/.nvm"]')
    lines += [
        f"# {marker} asks for {program}, which is not on your PATH."
        for program, marker in proposal.missing.items()
    ]
    lines += [
        *('# env = { CI = "true" }', '# pass_env = ["LANG"]', '# timeout = "1h"', ""),
        *("[network]", "# Nothing can be reached unless it is named; lists for it begin with @."),
        '# allow = ["@python", "*.example.org:443"]',
        "# Model APIs and credentials of yours, by name; their keys never enter the sandbox.",
        *('# gateways = ["anthropic"]', '# secrets = ["GITHUB_TOKEN"]', ""),
    ]
    return "\n".join(lines)


def _escaped(name: str) -> str:
    """`name` as a gitignore pattern that matches just it."""
    return "".join("\\" + character if character in "*?[]\\ " else character for character in name)


def described(proposal: Proposal) -> list[str]:
    """What was found, a sentence each, for the user."""
    found = [f"{path}: {why}" for path, why in proposal.tools.items()]
    found += [f"{printable(name)}: hidden from the sandbox" for name in proposal.masks]
    found += [f"{program}: not on your PATH" for program in proposal.missing]
    return found
