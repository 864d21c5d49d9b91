"""A module of ours, run by this Python, in a tree with nothing else: what a helper process sees."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import HostError
from ..proc.bwrap import Bind, Step, Symlink

# Libraries, without the programs beside them.
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
# How names are looked up: resolv.conf(5), hosts(5), nsswitch.conf(5), gai.conf(5).
_NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf")
# Where distributions keep the certificates of authorities: Debian, Fedora, Arch, Alpine, SUSE.
_CERTIFICATES = (
    *("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/ssl/ca-bundle.pem"),
    *("/etc/pki/tls", "/etc/pki/ca-trust/extracted", "/etc/ca-certificates/extracted"),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki"),
)
_STORES = ("/nix/store", "/gnu/store")
_USERS_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # openssl's variables


@dataclass(frozen=True, slots=True)
class OwnPython:
    """How a module of ours is run in a tree of its own."""

    tree: tuple[Step, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]


def own_python(
    module: str, packages: Iterable[str], base: Path, environ: Mapping[str, str]
) -> OwnPython:
    """The module with this Python's libraries and its site packages, certificates and resolver.

    packages: what it imports besides corral. base: the interpreter below any virtual environment.
    environ: the user's, of which the place of certificates is taken. Raises HostError.
    """
    source = _source()
    libraries = [_folder_of(package) for package in packages]
    users = {name: environ[name] for name in _USERS_CERTIFICATES if environ.get(name)}
    prefix = Path(sys.base_prefix).resolve()
    shown = [*_LIBRARIES, *_NAMES, *_CERTIFICATES, *users.values()]
    shown += [str(base), f"{prefix}/lib", f"{prefix}/lib64", *libraries]
    shown += [store for store in _STORES if str(base).startswith(store)]
    shown += [f"{source}/{name}" for name in ("corral", "corral_guest")]
    tree: list[Step] = []
    for path in dict.fromkeys(Path(path).absolute() for path in shown):
        if path.exists() and not _covered(path, tree):
            tree.append(Bind(str(path), str(path)))
    for name in ("lib", "lib64"):
        # Where /usr is merged (all but old systems), as on the host.
        folder = Path("/", name)
        if folder.is_symlink():
            tree.append(Symlink(str(folder.readlink()), str(folder)))
        elif folder.is_dir():
            tree.append(Bind(str(folder), str(folder)))
    return OwnPython(
        tree=tuple(tree),
        # -S: no site, so that no .pth file of the environment runs anything; -P: no current folder.
        command=(str(base), "-S", "-s", "-P", "-m", module),
        environment={
            "PATH": "/nonexistent",
            "HOME": "/nonexistent",
            "LANG": "C.UTF-8",
            "PYTHONPATH": ":".join(dict.fromkeys((str(source), *libraries))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **users,
        },
    )


def _covered(path: Path, tree: list[Step]) -> bool:
    return any(isinstance(step, Bind) and path.is_relative_to(step.target) for step in tree)


def _source() -> Path:
    """The folder that corral itself is imported from."""
    return Path(__file__).resolve().parents[2]


def _folder_of(package: str) -> str:
    """The folder that a package is imported from. Raises HostError."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise HostError(
            f"the Python package {package} is missing.",
            hint="Install corral again, with its dependencies.",
        )
    file = Path(found.origin).resolve()
    return str(file.parent.parent if file.name.startswith("__init__.") else file.parent)
