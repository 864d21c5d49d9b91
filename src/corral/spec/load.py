"""Everything together: find the files, read them once, merge, judge trust, resolve."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, structs

from .. import paths
from ..errors import ConfigError
from ..policy import Gateway, Secret
from . import trust
from .files import find_project_file, read_config
from .gateways import BUILT_IN, Doors
from .herd import one_agent
from .layers import (
    Layer,
    Merged,
    default_layer,
    environment_layer,
    merge,
    misspelt_variables,
    option_layer,
    project_layer,
    recipe_layer,
    user_layer,
    whole_machine,
)
from .model import Spec
from .places import Place, beneath, homes_of
from .text import printable
from .validate import resolve
from .values import Base, NamedShare


class Project(Struct, frozen=True):
    """The project's file as it was read. path: real path. accepted: by the user, as it is now.

    vouched: named by the user with --config and out of the sandbox's reach, so that it needs no
    acceptance. changed: it was accepted once with another content.
    """

    path: str
    sha256: str
    accepted: bool
    vouched: bool
    changed: bool


class Extra(Struct, frozen=True, kw_only=True):
    """What a recipe adds, below all that the user says; never from a project.

    origin: for messages. values: by key, as `overrides`. gateways: in place of those of the same
    name. secrets: where the user has none of the same name.
    """

    origin: str
    values: Mapping[str, object] = {}
    gateways: Mapping[str, Gateway] = {}
    secrets: Mapping[str, Secret] = {}


class Loaded(Struct, frozen=True):
    """All layers merged, before values are resolved.

    widenings: what the project's file asks for beyond what holds without it, accepted or not.
    doors: the gateways and secrets of the user's own file.
    """

    place: Place
    merged: Merged
    project: Project | None
    widenings: tuple[trust.Widening, ...]
    warnings: tuple[str, ...]
    doors: Doors

    @property
    def refused(self) -> tuple[trust.Widening, ...]:
        """What makes the project's file unusable until it is accepted."""
        project = self.project
        free = project is None or project.accepted or project.vouched
        return () if free else self.widenings


def load_spec(
    cwd: Path,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    config_file: Path | None = None,
    force: bool = False,
    capacity: tuple[int, int] | None = None,
    extra: Extra | None = None,
    alone: bool = False,
) -> Spec:
    """The Spec for a sandbox on the folder `cwd`.

    overrides: the command line's values (keys: see layers.py). environ: the user's environment.
    config_file: in place of the corral.toml found upward from cwd. force: see resolve(). capacity:
    CPUs and bytes of memory that a sandbox may have at all, which bound the defaults. extra: what
    a recipe adds. alone: it has one agent, whatever [herd] and [[agent]] say.

    Raises ConfigError, UntrustedConfigError, HostError.
    """
    loaded = collect(
        cwd, overrides, environ, config_file=config_file, capacity=capacity, extra=extra
    )
    refuse_untrusted(loaded)
    merged = one_agent(loaded.merged) if alone else loaded.merged
    spec = resolve(merged, loaded.place, environ, loaded.doors, force=force)
    return structs.replace(spec, warnings=loaded.warnings + spec.warnings)


def refuse_untrusted(loaded: Loaded) -> None:
    """UntrustedConfigError when the project's file asks for what was not accepted."""
    if loaded.refused and loaded.project is not None:
        raise trust.untrusted(loaded.project.path, loaded.refused, changed=loaded.project.changed)


def collect(
    cwd: Path,
    overrides: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    config_file: Path | None = None,
    capacity: tuple[int, int] | None = None,
    extra: Extra | None = None,
) -> Loaded:
    """Read and merge all layers. A file that widens and is not accepted is reported, not raised.

    capacity, extra: see load_spec.

    Raises ConfigError for files, variables and options that are wrong, HostError when the record
    of accepted files cannot be read.
    """
    workspace = os.path.realpath(cwd)
    home = home_of(environ)
    here = Base(workspace, home, workspace)
    doors = Doors()
    lower = [default_layer(*(capacity or whole_machine()))]
    if extra is not None:
        lower.append(recipe_layer(extra.values, extra.origin, here))
    if (own := _users_file(home, workspace)) is not None:
        layer, doors = own
        lower.append(layer)
    if extra is not None:
        doors = Doors({**doors.gateways, **extra.gateways}, {**extra.secrets, **doors.secrets})
    upper = [environment_layer(environ, here), option_layer(overrides, here)]
    found = _project_file(workspace, _named_file(config_file, environ, workspace))
    merged = without = merge([*lower, *upper])
    project: Project | None = None
    asked: tuple[trust.Widening, ...] = ()
    if found is not None:
        path, content, named = found
        layer = project_layer(path, content, _base_of(path, home, workspace))
        merged = merge([*lower, layer, *upper])
        asked = trust.widenings(without, merged)
        vouched = named and not _in_reach(path, workspace, merged)
        project = _judged(path, content, vouched=vouched, needed=bool(asked))
    folder = os.path.dirname(project.path) if project is not None else None  # noqa: PTH120
    return Loaded(
        place=Place(workspace, home, homes_of(home), folder),
        merged=merged,
        project=project,
        widenings=asked,
        warnings=misspelt_variables(environ),
        doors=doors,
    )


def known_doors() -> tuple[list[str], list[str]]:
    """Names of gateways and of secrets that the user may ask for, in order. Raises ConfigError."""
    own = _users_file(home_of(os.environ), "/")
    doors = own[1] if own is not None else Doors()
    return sorted({*BUILT_IN, *doors.gateways}), sorted(doors.secrets)


def home_of(environ: Mapping[str, str]) -> str:
    """The user's home: HOME when it is an absolute path, else the password database's."""
    home = environ.get("HOME", "")
    if home.startswith("/"):
        return os.path.normpath(home)
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError as error:
        raise ConfigError(
            "your home folder is not known: HOME is not set, and you have no password entry.",
            hint="Set HOME.",
        ) from error


def _named_file(
    config_file: Path | None, environ: Mapping[str, str], workspace: str
) -> Path | None:
    if config_file is None and environ.get("CORRAL_CONFIG"):
        config_file = Path(environ["CORRAL_CONFIG"])
    return None if config_file is None else Path(workspace) / config_file


def _project_file(workspace: str, named: Path | None) -> tuple[Path, bytes, bool] | None:
    """(real path, content, whether the user named it) of the project's file, None without one."""
    if named is None:
        found = find_project_file(Path(workspace))
        return None if found is None else (*found, False)
    # The user's own link is followed, a link at the end of the real path no more.
    path = Path(os.path.realpath(named))
    content = read_config(path, follow=False)
    if content is None:
        raise ConfigError(f"the configuration file {printable(str(named))} does not exist.")
    return path, content, True


def _in_reach(path: Path, workspace: str, merged: Merged) -> bool:
    """Whether a sandbox on this workspace could change the file."""
    writable = [
        os.path.realpath(entry.value.source)
        for entry in merged["share"]
        if isinstance(entry.value, NamedShare) and entry.value.writable
    ]
    return any(beneath(str(path), folder) for folder in (workspace, *writable))


def _judged(path: Path, content: bytes, *, vouched: bool, needed: bool) -> Project:
    sha256 = trust.digest(content)
    accepted = needed and trust.is_accepted(str(path), sha256)
    changed = needed and not accepted and trust.is_known(str(path))
    return Project(str(path), sha256, accepted, vouched, changed)


def _users_file(home: str, workspace: str) -> tuple[Layer, Doors] | None:
    path = paths.config_file()
    content = read_config(path, follow=True)
    if content is None:
        return None
    layer, doors = user_layer(path, content, Base(str(path.parent), home, workspace))
    if doors.gateways or doors.secrets:
        _refuse_foreign(path)
    return layer, doors


def _refuse_foreign(path: Path) -> None:
    """Who writes this file decides which commands run as the user, and where keys go."""
    status = path.stat()
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o002:
        raise ConfigError(
            f"{printable(str(path))} says where keys are found, and could have been changed by "
            f"others (owner {status.st_uid}, mode {status.st_mode & 0o777:o}).",
            hint=f"Make it yours alone: chmod 600 {printable(str(path))}",
        )


def _base_of(path: Path, home: str, workspace: str) -> Base:
    folder = str(path.parent)
    below = workspace[len(folder) :].strip("/") if beneath(workspace, folder) else ""
    return Base(folder, home, workspace, below)
