"""What the network, gateways and secrets need of this machine, for `corral doctor`."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable

from .. import extras
from .checks import Check
from .system import System

# Where distributions keep the certificates of authorities in one file: Debian and Arch, Fedora,
# SUSE, Alpine (as in Go's crypto/x509/root_linux.go).
_BUNDLES = (
    *("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"),
    *("/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"),
)
Version = Callable[[str], str | None]


def installed_version(package: str) -> str | None:
    """The version of a Python package that corral can import, None when there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_network() -> Check:
    """There is no device: the guest's connections come over the channel."""
    return Check("network", "ok", "needs nothing of this machine; passt and the like are not used")


def check_certificates(bundle: str | None) -> Check:
    """What gateways check their upstreams by. bundle: the file that was found."""
    if bundle is not None:
        return Check("certificates", "ok", bundle)
    return Check(
        "certificates",
        "warn",
        "no certificates of authorities were found; --gateway and --secret cannot tell whom they "
        "talk to",
        "Install ca-certificates, or name a file: SSL_CERT_FILE.",
    )


def check_secrets(version: Version = installed_version) -> Check:
    """What puts a secret into requests to other hosts; gateways do without."""
    found = version("mitmproxy")
    if found is not None:
        return Check("secrets", "ok", f"mitmproxy {found}")
    return Check(
        "secrets",
        "warn",
        "mitmproxy is not installed; --secret needs it",
        f"For --secret: {extras.install('intercept')}",
    )


def check_keyring(version: Version = installed_version) -> Check:
    """Only keys that are in a keyring need it, so nothing is wrong without it."""
    found = version("keyring")
    if found is not None:
        return Check("keyring", "ok", f"keyring {found}")
    finding = f"not installed; for a key in one: {extras.install('keyring')}"
    return Check("keyring", "ok", finding)


def bundle(system: System) -> str | None:
    """The file with certificates of authorities, None when there is none that can be read."""
    named = system.environ.get("SSL_CERT_FILE")
    candidates = (named,) if named else _BUNDLES
    return next((file for file in candidates if os.access(system.path(file), os.R_OK)), None)
