"""What a sandbox with secrets is given besides: placeholders, and trust in its own authority. Pure.

The authority is made when the sandbox starts, so this is added to a finished plan.
"""

from __future__ import annotations

import base64
import hashlib
import re

import msgspec

from .model import Agent, Plan

# Path, content, mode, and "base64" where the content is no text.
File = tuple[str, str, int] | tuple[str, str, int, str]

FOLDER = "/etc/corral"
CERTIFICATE = f"{FOLDER}/authority.pem"
JAVA_STORE = f"{FOLDER}/cacerts"
DEFAULT_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
HASHED = "/etc/ssl/certs"  # OpenSSL's folder of certificates by the hash of their subjects

# Variables that name a file with all certificates that a program trusts, in place of its own:
# OpenSSL (openssl-env(7)), Python's requests, curl, git, pip, cargo, AWS's, httplib2, Perl's LWP,
# gRPC, Nix, Google Cloud's.
ALL = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"),
    *("CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "HTTPLIB2_CA_CERTS", "PERL_LWP_SSL_CA_FILE"),
    *("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "NIX_SSL_CERT_FILE"),
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
)
# Those that name further certificates: Node (and what is made of it), Deno.
FURTHER = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
JAVA = "JAVA_TOOL_OPTIONS"

_PEM = re.compile("-----BEGIN CERTIFICATE-----\n(.*?)-----END CERTIFICATE-----", re.DOTALL)
# A Java KeyStore (sun.security.provider.JavaKeyStore): every Java reads it, without a password too.
_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_PASSWORD = "changeit".encode("utf-16-be")  # the usual one
_SALT = b"Mighty Aphrodite"


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What the interceptor made, and where programs of the guest look for authorities.

    certificate: of the authority, PEM. hash: of its subject, as OpenSSL names files. placeholders:
    by secret. bundles: (path, content) of files with authorities that the guest sees. java: paths
    of Java's stores that it sees. has_java: there is a Java without one of these.
    """

    certificate: str
    hash: str
    placeholders: dict[str, str]
    bundles: tuple[tuple[str, str], ...] = ()
    java: tuple[str, ...] = ()
    has_java: bool = False


def trusting(plan: Plan, trust: Trust) -> Plan:
    """The plan of a sandbox whose programs hold placeholders and trust the authority."""
    bundles = trust.bundles or ((DEFAULT_BUNDLE, ""),)
    files: list[File] = [
        (CERTIFICATE, trust.certificate, 0o644),
        (f"{HASHED}/{trust.hash}.0", trust.certificate, 0o644),
    ]
    for path, content in bundles:
        whole = content if not content or content.endswith("\n") else content + "\n"
        files.append((path, whole + trust.certificate, 0o644))
    stores = trust.java or ((JAVA_STORE,) if trust.has_java else ())
    if stores:
        store = java_store(certificates(bundles[0][1]) + certificates(trust.certificate))
        text = base64.b64encode(store).decode()
        files += [(path, text, 0o644, "base64") for path in stores]
    variables = {name: bundles[0][0] for name in ALL} | dict.fromkeys(FURTHER, CERTIFICATE)
    if trust.has_java and not trust.java:
        variables[JAVA] = f"-Djavax.net.ssl.trustStore={JAVA_STORE}"
    variables |= trust.placeholders
    agents = tuple(_with(agent, files, variables) for agent in plan.agents)
    return msgspec.structs.replace(plan, agents=agents)


def _with(agent: Agent, files: list[File], variables: dict[str, str]) -> Agent:
    """With more files and variables; what the user has set stays as it is."""
    own = agent.setup["files"]
    assert isinstance(own, list)
    return msgspec.structs.replace(
        agent,
        setup={**agent.setup, "files": [*own, *files]},
        environment=tuple((variables | dict(agent.environment)).items()),
    )


def placeholders(plan: Plan) -> dict[str, str]:
    """Those that the programs of a running sandbox hold, by secret."""
    held: dict[str, str] = {}
    for agent in plan.agents:
        environment = dict(agent.environment)
        names = (secret.name for secret in plan.secrets)
        held |= {name: environment[name] for name in names if name in environment}
    return held


def certificates(bundle: str) -> list[bytes]:
    """The certificates of a file in PEM, as DER."""
    return [base64.b64decode(match) for match in _PEM.findall(bundle)]


def java_store(trusted: list[bytes]) -> bytes:
    """A Java KeyStore that trusts these certificates."""
    store = b"".join(number.to_bytes(4, "big") for number in (_MAGIC, _VERSION, len(trusted)))
    for number, certificate in enumerate(trusted):
        alias = f"corral-{number}".encode()
        store += _TRUSTED.to_bytes(4, "big") + _text(alias)
        store += (0).to_bytes(8, "big")  # when it was made, in milliseconds since 1970
        store += _text(b"X.509") + len(certificate).to_bytes(4, "big") + certificate
    return store + hashlib.sha1(_PASSWORD + _SALT + store, usedforsecurity=False).digest()


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text
