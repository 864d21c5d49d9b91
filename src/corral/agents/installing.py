"""Installing an agent's program with npm or pip, in a jail of this machine.

The jail has the network, the image's folder to write to, and of the user's files only what says
where packages come from. npm runs no scripts of packages unless the recipe says so; pip takes only
wheels, which have none. Nothing that was installed is run on the host.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from ..errors import FetchError, HostError
from ..events import Phase, Report
from ..host import measure
from ..host.system import System
from ..images.locks import locked, need_space, new_folder
from ..jail import combinators as c
from ..jail.base import programs
from ..jail.model import Expanded
from ..jail.resolve import resolve
from ..jail.run import End, Running, host_jail
from ..proc import Bounds
from ..spec.text import printable
from . import images
from .images import Wanted
from .programs import Found, find_need, missing

SPACE = 2 << 30  # bytes that have to be free: Codex unpacked has 400 MiB, and npm its cache
SECONDS = 1200.0  # for one command
_OUTPUT = 64 << 10  # bytes of a command's output that are kept for an error
# Where packages come from. With scripts of packages only the variables, as files may hold tokens.
_FILES = {
    "npm": ("~/.npmrc", "/etc/npmrc", "/etc/npm"),
    "pypi": ("~/.config/pip", "~/.pip", "/etc/pip.conf", "~/.netrc"),
}
_VARIABLES = (
    *("NPM_CONFIG_REGISTRY", "npm_config_registry", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    *("PIP_FIND_LINKS", "PIP_CONFIG_FILE", "PIP_DEFAULT_TIMEOUT", "PIP_CERT", "SSL_CERT_FILE"),
    *("SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY"),
    *("NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
)
_LATEST = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,63}")


class Tools(Struct, frozen=True):
    """The programs of this machine that install. extra: further folders that they need."""

    argv: tuple[str, ...]
    extra: tuple[str, ...]


def ensure_image(
    wanted: Wanted, environ: Mapping[str, str], report: Report, *, whole: bool = False
) -> Found:
    """The program of the image, installed if it is not there. whole: look at each file of it.

    Raises FetchError, HostError, ImageError, MissingProgramError.
    """
    if not whole and images.installed(wanted):
        return images.found_in(wanted)

    def waiting() -> None:
        report(Phase(name="agent", message=f"waiting for another corral to install {wanted.agent}"))

    with locked(f"agent-{wanted.agent}", waiting):
        manifest = images.installed(wanted)
        if manifest is None or (whole and not images.is_whole(wanted.folder, manifest)):
            _install(wanted, environ, report)
    return images.found_in(wanted)


def latest(wanted: Wanted, environ: Mapping[str, str]) -> str:
    """The newest version that the registry has. Raises FetchError, HostError."""
    tools = _tools(wanted, environ)
    argv = (
        (*tools.argv, "view", "--", wanted.package, "version")
        if wanted.kind == "npm"
        else (*tools.argv, "-m", "pip", "index", "versions", "--", wanted.package.split("[")[0])
    )
    output = _in_jail(argv, tools, wanted, None, environ).strip()
    if wanted.kind == "pypi":
        found = re.search(r"\(([^()\s]+)\)", output.splitlines()[0] if output else "")
        output = found[1] if found else ""
    version = output.splitlines()[-1].strip() if output else ""
    if not _LATEST.fullmatch(version):
        raise FetchError(f"the registry did not say which version of {wanted.package} is newest.")
    return version


def _install(wanted: Wanted, environ: Mapping[str, str], report: Report) -> None:
    tools = _tools(wanted, environ)
    registry = "npm" if wanted.kind == "npm" else "PyPI"
    text = f"installing {wanted.agent} {wanted.version} from {registry}"
    report(Phase(name="agent", message=text))
    folder = wanted.folder
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    need_space(folder.parent, SPACE, f"installing {wanted.agent}")
    with new_folder(folder) as temporary:
        for argv in _commands(wanted, tools):
            _in_jail(argv, tools, wanted, temporary, environ)
        images.finish(temporary, wanted)


def _commands(wanted: Wanted, tools: Tools) -> list[tuple[str, ...]]:
    """What makes the image, which the jail has at the path that it will have."""
    folder = str(wanted.folder)
    if wanted.kind == "npm":
        options = ["--global", f"--prefix={folder}", "--no-audit", "--no-fund", "--loglevel=error"]
        options += [] if wanted.scripts else ["--ignore-scripts"]
        return [(*tools.argv, "install", *options, "--", wanted.spec)]
    pip = (f"{folder}/bin/python", "-m", "pip", "--disable-pip-version-check")
    return [
        (*tools.argv, "-m", "venv", folder),
        (*pip, "install", "--no-cache-dir", "--only-binary=:all:", "--", wanted.spec),
    ]


def _tools(wanted: Wanted, environ: Mapping[str, str]) -> Tools:
    """Raises MissingProgramError for what is missing or too old."""
    system = System(environ=environ)
    home, path_env = environ.get("HOME", ""), system.search_path()
    needs = {
        "npm": (*wanted.needs, "npm", "node"),
        "pypi": (*wanted.needs, "python3"),
    }[wanted.kind]
    names = dict.fromkeys(need.split(">")[0].strip() for need in needs)
    found = {name: find_need(name, path_env, home, system.changeable) for name in names}
    missing(needs, found, system)
    there = {name: each for name, each in found.items() if each is not None}
    extra = dict.fromkeys(folder for each in there.values() for folder in each.tools)
    return Tools((there["npm" if wanted.kind == "npm" else "python3"].path,), tuple(extra))


def _in_jail(
    argv: Sequence[str],
    tools: Tools,
    wanted: Wanted,
    folder: Path | None,
    environ: Mapping[str, str],
) -> str:
    """Run a command in a jail; returns its output. folder: what it may write, as the image's."""
    parts: list[c.Combinator] = [programs(), c.network, c.add_tools(*tools.extra)]
    if not wanted.scripts:
        parts += [
            c.try_ro_bind(Expanded(path) if path.startswith("~") else path)
            for path in _FILES[wanted.kind]
        ]
    parts += [c.try_fwd_env(name) for name in _VARIABLES]
    if folder is not None:
        parts.append(c.rw_bind(str(folder), str(wanted.folder)))
    facts = measure()
    if not facts.user_namespaces.ok:
        raise HostError(
            f"agents are installed in a jail, which needs user namespaces: "
            f"{facts.user_namespaces.reason}",
            hint=facts.user_namespaces.hint,
        )
    environ = {**environ, "PATH": System(environ=environ).search_path()}
    jail = resolve(c.jail(*parts), facts.user, "/", environ)

    async def run() -> tuple[int, str, str]:
        async with host_jail(jail, facts, Bounds()) as inside, asyncio.timeout(SECONDS):
            return await _finished(await inside.exec(argv))

    program = Path(argv[0]).name
    try:
        status, output, errors = asyncio.run(run())
    except TimeoutError as error:
        raise FetchError(f"{program} took longer than {SECONDS / 60:g} minutes.") from error
    if status:
        lines = (output + errors).splitlines()[-12:]
        raise FetchError(
            f"{wanted.spec} cannot be installed: {program} ended with status {status}.",
            detail="\n".join(printable(line) for line in lines) or None,
            hint="Is its registry within reach? npm and pip are configured as yours are.",
        )
    return output


async def _finished(running: Running) -> tuple[int, str, str]:
    """A command's status, and the ends of what it wrote."""
    await running.stdin.end()
    async with asyncio.TaskGroup() as group:
        output = group.create_task(_drained(running.stdout))
        errors = None if running.stderr is None else group.create_task(_drained(running.stderr))
        status = await running.wait()
    return status, output.result(), errors.result() if errors is not None else ""


async def _drained(end: End) -> str:
    kept: deque[bytes] = deque()
    size = 0
    while data := await end.read():
        kept.append(data)
        size += len(data)
        while size > _OUTPUT and len(kept) > 1:
            size -= len(kept.popleft())
    return b"".join(kept).decode("utf-8", "replace")
