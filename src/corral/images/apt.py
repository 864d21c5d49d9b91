"""Packages of this or another Debian suite, unpacked below the cache, with nothing installed.

apt does the work, with a state of its own in the cache, so that this host's is neither needed nor
touched, and an ordinary user can do it. What is downloaded is verified by apt against the keys
that this host already has: the keyring named in its own sources, or Debian's archive keyring
(which has the keys of the next release before that is released).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .. import paths
from ..errors import FetchError
from ..events import Phase, Report
from ..search import SYSTEM_FOLDERS
from . import sources
from .locks import need_space, write_file

T = TypeVar("T")

_LISTS_AGE = 6 * 3600.0  # seconds for which downloaded package lists are taken as current
_LISTS_SPACE = 160 << 20  # bytes: the lists of one release and apt's work on them
_SPACE_MARGIN = 96 << 20  # bytes: an unpacked kernel image, and room for others
_COMMAND_TIMEOUT = 900.0  # seconds for one apt command; its own network time limit is below
_DETAIL_LINES = 12
_PATH = ":".join(SYSTEM_FOLDERS)  # these are the system's programs, and call others of it

_CONFIGURATION = """\
Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{state}/status";
Dir::State::extended_states "{state}/extended_states";
Dir::Cache "{state}/cache";
Dir::Cache::archives "{state}/archives";
Dir::Etc::sourcelist "{state}/corral.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "{state}";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
APT::Get::AllowUnauthenticated "false";
APT::Get::List-Cleanup "true";
APT::Install-Recommends "false";
APT::Default-Release "";
APT::Sandbox::User "root";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::CNF;
#clear Acquire::IndexTargets::deb::Contents-deb;
"""
# Sandbox user: as root, apt would let `_apt` download, which cannot enter root's cache folder; an
# ordinary user cannot change user, and apt then does not try. Pre- and Post-Invoke: hooks of
# other programs on this host, which clean the host's own archives, for one.


@dataclass(frozen=True, slots=True)
class Package:
    """What the lists say of a package. size: of the download; installed: unpacked; bytes."""

    name: str
    version: str
    depends: tuple[str, ...]
    size: int
    installed: int


class Apt:
    """An apt state in the cache for a set of archives. Use it under the lock of its name."""

    def __init__(self, name: str, archives: list[sources.Archive], report: Report) -> None:
        if not all(shutil.which(each, path=_PATH) for each in ("apt-get", "dpkg-deb")):
            raise FetchError(
                "this host has no apt-get and dpkg-deb, with which corral downloads packages.",
                hint="Install what is needed from your distribution: `corral doctor` names it.",
            )
        text = "\n".join(archive.text for archive in archives)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._state = paths.cache_dir() / "apt" / f"{name}-{key}"
        self._archives = archives
        self._text = text
        self._report = report
        self._updated = False
        self.name = name

    def with_fresh_lists(self, work: Callable[[], T]) -> T:
        """What `work` returns, with current lists; once more with new ones if it fails."""
        self.update()
        try:
            return work()
        except FetchError:
            if self._updated:
                raise
            self.update(force=True)
            return work()

    @property
    def tried(self) -> str:
        """The archives, for messages."""
        return ", ".join(f"{' '.join(a.uris)} {' '.join(a.suites)}" for a in self._archives)

    def update(self, *, force: bool = False) -> None:
        """Have the package lists, downloaded within the last hours. Raises FetchError."""
        stamp = self._state / "updated"
        if not force and stamp.exists() and time.time() - stamp.stat().st_mtime < _LISTS_AGE:
            return
        for folder in ("lists/partial", "archives/partial", "cache"):
            (self._state / folder).mkdir(mode=0o755, parents=True, exist_ok=True)
        need_space(self._state, _LISTS_SPACE, "Downloading package lists")
        write_file(self._state / "corral.sources", [self._text.encode()])
        write_file(self._state / "status", [])
        configuration = _CONFIGURATION.format(state=self._state)
        write_file(self._state / "apt.conf", [configuration.encode()])
        self._report(Phase(name="packages", message=f"downloading the package lists ({self.name})"))
        # without Error-Mode an archive that cannot be reached is a warning (apt-get(8))
        self._run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
        write_file(stamp, [])
        self._updated = True

    def show(self, name: str) -> Package | None:
        """The newest version of the package, or None when no archive has it."""
        text = self._run("apt-cache", "show", "--no-all-versions", name, ok=(0, 100))
        return next(iter(parse_packages(text)), None)

    def with_dependencies(self, name: str) -> list[Package]:
        """The package and all that it depends on. Raises FetchError when no archive has it."""
        plan = parse_plan(self._run("apt-get", "install", "--simulate", "-q", "-y", name))
        return parse_packages(self._run("apt-cache", "show", *plan))

    def need_space(self, folder: Path, packages: list[Package], purpose: str) -> None:
        """Raise ImageError unless `folder` has room for these packages, packed and unpacked."""
        size = sum(package.size + package.installed for package in packages)
        need_space(folder, size + _SPACE_MARGIN, purpose)

    def download(self, packages: list[Package], folder: Path) -> list[Path]:
        """Download the packages' files to `folder`. Raises FetchError.

        An archive that has moved on since its lists were read fails: see `with_fresh_lists`.
        """
        names = [f"{package.name}={package.version}" for package in packages]
        self._run("apt-get", "download", "-q", *names, cwd=folder)
        files = sorted(folder.glob("*.deb"))
        if len(files) < len(packages):
            raise FetchError(f"apt-get downloaded {len(files)} of {len(packages)} packages.")
        return files

    def _run(
        self, program: str, *arguments: str, cwd: Path | None = None, ok: tuple[int, ...] = (0,)
    ) -> str:
        argv = [program, "-c", str(self._state / "apt.conf"), *arguments]
        result = run(argv, cwd=cwd)
        if result.returncode not in ok:
            raise self._failure(program, arguments[0], result)
        return result.stdout

    def _failure(
        self, program: str, verb: str, result: subprocess.CompletedProcess[str]
    ) -> FetchError:
        lines = (result.stdout + result.stderr).strip().splitlines()
        hint = "Check that this machine reaches its package mirror, then try again."
        if any("NO_PUBKEY" in line or "not signed" in line for line in lines):
            hint = (
                "This host has no key that signs this suite: upgrade its keyring package "
                "(debian-archive-keyring)."
            )
        elif any("No space left" in line or "enough free space" in line for line in lines):
            hint = "Free some space, or set CORRAL_CACHE_DIR to a folder on a larger disk."
        return FetchError(
            f"`{program} {verb}` failed with status {result.returncode} "
            f"(archives tried: {self.tried}).",
            hint=hint,
            detail="\n".join(lines[-_DETAIL_LINES:]) or None,
        )


def run(argv: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a package program to its end; it dies with the thread that called this, if that dies.

    Raises FetchError when it cannot be started or takes longer than _COMMAND_TIMEOUT.
    """
    names = ("HOME", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"PATH": _PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    setpriv = shutil.which("setpriv", path=_PATH)
    guard = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    try:
        return subprocess.run(
            [*guard, *argv],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_COMMAND_TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise FetchError(f"cannot start {argv[0]}: {error.strerror}.") from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"{argv[0]} did not end within {_COMMAND_TIMEOUT:.0f} s.",
            hint="Check that this machine reaches its package mirror, then try again.",
        ) from error


def unpack(files: list[Path], folder: Path) -> None:
    """Unpack the packages' files below `folder`, running none of their scripts."""
    for file in files:
        result = run(["dpkg-deb", "--extract", str(file), str(folder)])
        if result.returncode != 0:
            raise FetchError(
                f"cannot unpack {file.name} (dpkg-deb: status {result.returncode}).",
                detail=result.stderr.strip() or None,
            )


def host_archives() -> list[sources.Archive]:
    """All binary archives in this host's apt sources."""
    root = Path("/etc/apt")
    files = [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]
    archives: list[sources.Archive] = []
    for file in files:
        if file.suffix in (".list", ".sources") and file.is_file():
            try:
                archives += sources.parse(file.name, file.read_text("utf-8", "replace"))
            except OSError:
                continue  # a file only root may read: it then names an archive with a password
    return archives


def release_apt(report: Report) -> Apt:
    """apt for this host's own release. Raises FetchError when its sources do not name it."""
    codename = _codename()
    archives = sources.for_release(host_archives(), codename)
    if not archives:
        raise FetchError(
            f"the apt sources of this host name no archive of its release ({codename or '?'}).",
            hint="Add the distribution's archive to /etc/apt/sources.list.",
        )
    return Apt(codename or "release", archives, report)


def suite_apt(suite: str, report: Report) -> Apt:
    """apt for another Debian suite, on this host's mirror."""
    keyring = next((k for k in sources.DEBIAN_KEYRINGS if Path(k).is_file()), None)
    if keyring is None:
        raise FetchError(
            f"this host has no keyring of Debian, without which {suite} cannot be verified.",
            hint="Install the package debian-archive-keyring.",
        )
    mirror = sources.debian_mirrors(host_archives())[0]
    return Apt(suite, [sources.debian_suite(mirror, suite, keyring)], report)


def parse_packages(text: str) -> list[Package]:
    """The packages in the output of `apt-cache show`: the first version of each."""
    packages: dict[str, Package] = {}
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            name, separator, value = line.partition(": ")
            if separator and not line.startswith(" "):
                fields[name] = value.strip()
        if "Package" in fields:
            packages.setdefault(fields["Package"], _package(fields))
    return list(packages.values())


def _package(fields: Mapping[str, str]) -> Package:
    needed = fields.get("Pre-Depends", "") + "," + fields.get("Depends", "")
    alternatives = [text.split()[0] for text in re.split(r"[,|]", needed) if text.strip()]
    names = [name.partition(":")[0] for name in alternatives]
    return Package(
        name=fields["Package"],
        version=fields.get("Version", ""),
        depends=tuple(dict.fromkeys(names)),
        size=int(fields.get("Size", "0")),
        installed=int(fields.get("Installed-Size", "0")) * 1024,
    )


def parse_plan(text: str) -> list[str]:
    """`name=version` of what `apt-get install --simulate` would install ("Inst name (version")."""
    found = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", text, re.MULTILINE)
    return [f"{name}={version}" for name, version in found]


def machine() -> str:
    """This host's architecture as Debian calls it."""
    names: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
    return names.get(platform.machine(), platform.machine())


def _codename() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return release.get("UBUNTU_CODENAME") or release.get("VERSION_CODENAME") or ""
