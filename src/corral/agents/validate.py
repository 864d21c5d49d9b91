"""What is wrong with a recipe, beyond the types of its values. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from ..errors import ConfigError
from ..policy import Dialect
from ..spec.credentials import is_credential
from ..spec.text import has_control, printable
from ..spec.values import VARIABLE_NAME, Base
from .model import Install, RecipeTable

NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
"""An agent's name: a file's, a folder's, a word of the command line."""
NEED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._+-]{0,63})(?:\s*>=\s*([0-9]+(?:\.[0-9]+){0,3}))?")
PLACEHOLDERS = frozenset({"prompt", "provider", "base_url", "model_host"})
MAX_WORDS, MAX_TEXT, MAX_ENTRIES = 64, 64 << 10, 64
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_NPM = re.compile(r"((?:@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*)@([0-9][0-9A-Za-z.+-]*)")
_PYPI = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*(?:\[[A-Za-z0-9,._-]+\])?)==([0-9][0-9A-Za-z.+!]*)")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_HEADER = re.compile(r"[a-z0-9-]{1,64}")

Problem = tuple[str, str]
"""A key, and what is wrong with it."""


def problems(table: RecipeTable) -> Iterable[Problem]:
    """Everything that is wrong."""
    yield from _words(table)
    yield from _names(table)
    yield from _variables(table)
    yield from _network(table)
    yield from _places(table)
    yield from _files(table)
    yield from _imports(table)
    yield from _install(table.install)
    if table.check.arguments and not table.check.tool:
        yield "check.arguments", "they are a tool's: say which."
    if any(len(text) > MAX_TEXT for text in (table.check.tool, table.check.text)):
        yield "check", "its texts are too long."


def _words(table: RecipeTable) -> Iterable[Problem]:
    lists = {"interactive": table.interactive, "headless": table.headless}
    for dialect, provider in table.gateway.items():
        lists[f"gateway.{dialect}.args"] = provider.args
    for key, words in lists.items():
        if len(words) > MAX_WORDS or any(len(word) > 4096 or "\0" in word for word in words):
            yield key, f"at most {MAX_WORDS} words of 4096 characters are possible, none with NUL."
        for word in words:
            for name in set(_PLACEHOLDER.findall(word)) - PLACEHOLDERS:
                known = ", ".join(f"{{{each}}}" for each in sorted(PLACEHOLDERS))
                yield key, f"{{{name}}} is not known; {known} are."
            if is_credential(word):
                yield key, "a credential has no place in a recipe."
    yield from _commands(table)


def _commands(table: RecipeTable) -> Iterable[Problem]:
    if not table.interactive or table.interactive[0] != table.program:
        yield "interactive", "its first word has to be the program."
    if table.headless and table.headless[0] != table.program:
        yield "headless", "its first word has to be the program."
    if table.headless and not any("{prompt}" in word for word in table.headless):
        yield "headless", "one of its words needs {prompt}."
    if any("{prompt}" in word for word in table.interactive):
        yield "interactive", "{prompt} is for headless only."


def _names(table: RecipeTable) -> Iterable[Problem]:
    from ..spec.network_settings import GATEWAY_NAME

    if not _PROGRAM.fullmatch(table.program):
        yield "program", "it is the name of a program, without a folder."
    for name in table.gateways:
        if not GATEWAY_NAME.fullmatch(name):
            yield "gateways", f"“{printable(name, 60)}” is not a name for a gateway."


def _variables(table: RecipeTable) -> Iterable[Problem]:
    environments: dict[str, Mapping[str, str]] = {"env": table.env}
    for dialect, provider in table.gateway.items():
        environments[f"gateway.{dialect}.env"] = provider.env
    for key, variables in environments.items():
        for name, value in variables.items():
            if not VARIABLE_NAME.fullmatch(name):
                yield key, f"“{printable(name, 60)}” cannot be the name of a variable."
            elif len(value) > MAX_TEXT or "\0" in value:
                yield f"{key}.{name}", "it is too long, or has a NUL."
            elif is_credential(value):
                yield f"{key}.{name}", "a credential has no place in a recipe; use a gateway."


def _network(table: RecipeTable) -> Iterable[Problem]:
    from ..spec.network_settings import check_secret_name, parse_rules, parse_secret_hosts

    for host in table.hosts:
        try:
            parse_rules(host, Base("/", "/", "/"))
        except ConfigError as error:
            yield "hosts", error.message
    for name, held in table.secrets.items():
        try:
            check_secret_name(name)
            parse_secret_hosts(list(held.hosts))
        except ConfigError as error:
            yield "secrets", error.message
        if not held.hosts or not _HEADER.fullmatch(held.header):
            yield f"secrets.{name}", "it needs hosts, and a header's name in lower case."


def _places(table: RecipeTable) -> Iterable[Problem]:
    for place in table.state:
        if problem := _place(place):
            yield "state", problem
    for index, one in enumerate(table.state):
        for other in table.state[:index]:
            if beneath(one, other) or beneath(other, one):
                yield "state", f"{printable(one)} and {printable(other)} overlap."
    if max(len(table.state), len(table.files), len(table.hosts)) > MAX_ENTRIES:
        yield "state", f"at most {MAX_ENTRIES} entries are possible in a list."


def _files(table: RecipeTable) -> Iterable[Problem]:
    for path, content in table.files.items():
        if problem := _place(path):
            yield "files", problem
        elif place_of(path, table.state) is None:
            yield "files", f"{printable(path)} is in none of the folders of `state`."
        elif len(content) > MAX_TEXT or is_credential(content):
            yield "files", f"{printable(path)} is too long, or holds a credential."


def _imports(table: RecipeTable) -> Iterable[Problem]:
    for pattern in (*table.import_.copy, *table.import_.leave):
        if problem := _place(pattern.replace("*", "x").replace("{project}", "x")):
            yield "import", problem
    for pattern in table.import_.copy:
        if place_of(pattern, table.state) is None:
            yield "import", f"{printable(pattern)} is in none of the folders of `state`."


def place_of(path: str, state: Iterable[str]) -> str | None:
    """The folder of `state` that a path is in; None for none, or for that folder itself."""
    return next((place for place in state if path != place and beneath(path, place)), None)


def beneath(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or in it, as text."""
    return path == folder or path.startswith(folder + "/")


def _place(path: str) -> str | None:
    """What is wrong with a path that has to be below the agent's home."""
    inside = path.removeprefix("~/")
    plain = inside != path and inside == posixpath.normpath(inside)
    if not plain or inside == "." or inside.startswith(("..", "/")) or len(path) > 512:
        return f"“{printable(path, 80)}” has to be a plain path below the home: ~/NAME."
    if has_control(path) or set(path) & set(",:\\"):
        return f"“{printable(path, 80)}” has a character that no path of a share can have."
    return None


def _install(install: Install) -> Iterable[Problem]:
    if install.npm and install.pypi:
        yield "install", "it is either npm or pypi."
    if install.npm and not _NPM.fullmatch(install.npm):
        yield "install.npm", "write NAME@VERSION, with one exact version."
    if install.pypi and not _PYPI.fullmatch(install.pypi):
        yield "install.pypi", "write NAME==VERSION, with one exact version."
    if install.program:
        plain = posixpath.normpath(install.program)
        if plain != install.program or plain.startswith(("/", "..")):
            yield "install.program", "it is a plain path below the image."
        if set(_PLACEHOLDER.findall(install.program)) - {"arch", "cpu", "baseline"}:
            yield "install.program", "only {arch}, {cpu} and {baseline} are filled in."
    for need in install.needs:
        if not NEED.fullmatch(need):
            yield "install.needs", f"“{printable(need, 60)}” is not NAME or NAME >= VERSION."


def package_of(install: Install) -> tuple[str, str, str] | None:
    """(npm or pypi, package, version); None where nothing is installed."""
    for kind, text, form in (("npm", install.npm, _NPM), ("pypi", install.pypi, _PYPI)):
        if found := form.fullmatch(text):
            return kind, found[1], found[2]
    return None


def version_problem(kind: str, version: str) -> str | None:
    """What is wrong with a version that the user gives."""
    form, sign = (_NPM, "@") if kind == "npm" else (_PYPI, "==")
    return None if form.fullmatch(f"x{sign}{version}") else "it is no exact version, as 1.2.3."


def dialects(table: RecipeTable) -> tuple[Dialect, ...]:
    """Of which dialects a gateway can be for this agent."""
    from ..spec.gateways import BUILT_IN

    named = [BUILT_IN[name].dialect for name in table.gateways if name in BUILT_IN]
    return tuple(dict.fromkeys((*named, *table.gateway)))
