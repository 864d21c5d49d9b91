"""Hosts of secrets on loopback, and a sandbox that reaches them with placeholders."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from corral.events import Event
from corral.sandbox import Sandbox
from corral.templates.memory import data_of

from .https import Request, TestAuthority, Upstream, echo, serving, serving_http2
from .sandboxes import sandbox_on

API, SECOND, GIT, PLAIN = "api.secrets.test", "second.test", "git.secrets.test", "plain.test"
TOKEN = "ghp_r3aLr3aLr3aLr3aLr3aLr3aLr3aLr3aL"
GIT_TOKEN = "glpat-r3aLg1Tr3aLg1Tr3aLg1T"
KEY = "k3yF0rTh3S3c0ndH0stk3yF0rTh3S3c0ndH0st"
SECRETS = {"TOKEN": TOKEN, "GIT_TOKEN": GIT_TOKEN, "KEY": KEY}


@dataclass
class SecretSites:
    """The servers. told: what was reported of the sandbox."""

    authority: TestAuthority
    api: Upstream
    second: Upstream
    git: Upstream
    plain: Upstream
    told: list[Event]

    @property
    def hosts(self) -> list[str]:
        """For network.hosts."""
        ports = {API: self.api, SECOND: self.second, GIT: self.git, PLAIN: self.plain}
        return [f"{name}:443=127.0.0.1:{server.port}" for name, server in ports.items()]


@contextlib.asynccontextmanager
async def secret_sites(folder: Path) -> AsyncIterator[SecretSites]:
    """An API that repeats what it gets, one for HTTP/2, a repository, a host without a secret."""
    authority = TestAuthority(folder / "ca")
    repository = make_repository(folder)
    wanted = "Basic " + base64.b64encode(f"me:{GIT_TOKEN}".encode()).decode()

    async def git(request: Request, writer: asyncio.StreamWriter) -> None:
        """A repository over the simple protocol, for who has the token."""
        path = repository / request.path.partition("?")[0].removeprefix("/repo.git/")
        body, status = b"", b"404 Not Found"
        if request.header("authorization") not in (wanted, f"Bearer {GIT_TOKEN}"):
            status = b'401 Unauthorized\r\nWWW-Authenticate: Basic realm="git"'
        elif path.is_file():
            body, status = path.read_bytes(), b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def second(request: Request) -> list[bytes]:
        return [f"{request.header('x-api-key')}\n".encode()]

    async with (
        serving(authority.context(API), echo) as api,
        serving_http2(authority.context(SECOND, h2=True), second) as other,
        serving(authority.context(GIT), git) as repositories,
        serving(authority.context(PLAIN), echo) as plain,
    ):
        yield SecretSites(authority, api, other, repositories, plain, [])


def make_repository(folder: Path) -> Path:
    """A bare repository that can be cloned from plain files."""
    work, bare = folder / "work", folder / "repo.git"
    environment = {
        **os.environ,
        **dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), "/dev/null"),
        **{
            f"GIT_{who}_{what}": "a@b"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }

    def git(*words: str) -> None:
        subprocess.run(["git", *words], check=True, env=environment, capture_output=True)

    git("init", "-q", "-b", "main", str(work))
    (work / "hello").write_text("hello from the repository\n")
    git("-C", str(work), "add", "hello")
    git("-C", str(work), "commit", "-qm", "one")
    git("clone", "-q", "--bare", str(work), str(bare))
    git("-C", str(bare), "update-server-info")
    return bare


@contextlib.contextmanager
def environment_of(sites: SecretSites, folder: Path) -> Iterator[dict[str, object]]:
    """Where corral finds the secrets; settings of a sandbox that holds placeholders for them."""
    config = folder / "config-of-secrets"
    config.mkdir(parents=True, exist_ok=True)
    (config / "config.toml").write_text(
        f'[secrets.KEY]\nhosts = ["{SECOND}"]\nheader = "x-api-key"\nkey = {{ env = "KEY" }}\n'
    )
    before = dict(os.environ)
    os.environ |= {
        **SECRETS,
        "SSL_CERT_FILE": str(sites.authority.file),
        "CORRAL_CONFIG_DIR": str(config),
    }
    try:
        yield {
            "network.secrets": [f"TOKEN@{API}", f"GIT_TOKEN@{GIT}", f"KEY@{SECOND}"],
            "network.allow": [f"{PLAIN}:443"],
            "network.hosts": sites.hosts,
        }
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.asynccontextmanager
async def sandbox_with_secrets(sites: SecretSites, project: Path) -> AsyncIterator[Sandbox]:
    """A sandbox that holds placeholders for all of them."""
    with environment_of(sites, project.parent) as overrides:
        async with sandbox_on(project, overrides, report=sites.told.append) as sandbox:
            yield sandbox


def in_memory(memory: int, text: bytes) -> bool:
    """Whether a machine's memory holds these bytes anywhere: files, caches, every process.

    memory: its descriptor.
    """
    for start, end in data_of(memory, os.fstat(memory).st_size):
        for offset in range(start, end, 1 << 22):
            if text in os.pread(memory, (1 << 22) + len(text), offset):
                return True
    return False
