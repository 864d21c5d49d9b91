"""Servers on loopback that stand for hosts of the internet: pages, a git host, package indexes."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from corral import paths
from corral.events import silent
from corral.host import Need, measure
from corral.images.apt import Apt, host_archives, unpack
from corral.images.locks import locked
from tests.support.https import TestAuthority

NAMES = ("web.test", "git.test", "pypi.test", "npm.test")
LARGE = 2 << 20  # bytes of web.test/large
COMMIT = "first"


@dataclass
class Sites:
    """What serves. rules, hosts: for a sandbox that may reach all of it. asked: paths, in order."""

    authority: Path
    http: int = 0
    https: int = 0
    ssh: int = 0
    folder: Path = Path()
    asked: list[str] = field(default_factory=list)

    @property
    def rules(self) -> list[str]:
        return [*NAMES, "git.test:22"]

    @property
    def hosts(self) -> list[str]:
        found = [f"{name}:80=127.0.0.1:{self.http}" for name in NAMES]
        found += [f"{name}:443=127.0.0.1:{self.https}" for name in NAMES]
        return [*found, *([f"git.test:22=127.0.0.1:{self.ssh}"] if self.ssh else [])]


@contextlib.contextmanager
def sites(folder: Path, *, ssh: bool = False) -> Iterator[Sites]:
    """All of them, over HTTP and HTTPS; with `ssh` the git host is reached by that, too."""
    authority = TestAuthority(folder / "authority")
    made = Sites(authority.file, folder=folder)
    pages = _pages(folder)
    with contextlib.ExitStack() as stack:
        for tls in (False, True):
            server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(pages, made.asked))
            server.daemon_threads = True
            if tls:
                context = authority.context(*NAMES)
                server.socket = context.wrap_socket(
                    server.socket, server_side=True, do_handshake_on_connect=False
                )
                made.https = server.server_address[1]
            else:
                made.http = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
        if ssh:
            made.ssh = stack.enter_context(sshd(folder))
        yield made


def _handler(pages: dict[str, bytes], asked: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(f"{self.headers.get('host', '')}{path}")
            body = pages.get(path)
            self.send_response(200 if body is not None else 404)
            kind = "application/json" if path == "/demo-module" else "text/html"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _pages(folder: Path) -> dict[str, bytes]:
    """What every server has, by path."""
    pages = {"/": b"hello\n", "/large": bytes(range(256)) * (LARGE // 256)}
    name, wheel = _wheel()
    link = f'<a href="/files/{name}#sha256={hashlib.sha256(wheel).hexdigest()}">{name}</a>'
    pages |= {"/simple/demo-package/": link.encode(), f"/files/{name}": wheel}
    module = _module()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(module).digest()).decode()
    tarball = "https://npm.test/demo-module/-/demo-module-1.0.0.tgz"
    version = {
        "name": "demo-module",
        "version": "1.0.0",
        "dist": {"tarball": tarball, "integrity": integrity},
    }
    about = {
        "name": "demo-module",
        "dist-tags": {"latest": "1.0.0"},
        "versions": {"1.0.0": version},
    }
    pages |= {
        "/demo-module": json.dumps(about).encode(),
        "/demo-module/-/demo-module-1.0.0.tgz": module,
    }
    repository = git_repository(folder)
    for file in repository.rglob("*"):
        if file.is_file():
            pages[f"/{file.relative_to(folder)}"] = file.read_bytes()
    return pages


def git_repository(folder: Path) -> Path:
    """A bare repository with one commit, which can be served as files, too."""
    work, bare = folder / "work", folder / "demo.git"
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "init.defaultBranch=main")
    commands = (
        ("git", *settings, "init", "-q", str(work)),
        ("git", *settings, "-C", str(work), "commit", "-q", "--allow-empty", "-m", COMMIT),
        ("git", *settings, "clone", "-q", "--bare", str(work), str(bare)),
        ("git", "-C", str(bare), "update-server-info"),
    )
    for command in commands:
        subprocess.run(command, check=True, timeout=30)
    return bare


def _wheel() -> tuple[str, bytes]:
    data = io.BytesIO()
    info = "demo_package-1.0.dist-info"
    files = {
        "demo_package.py": "print('installed')\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: demo-package\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "demo_package-1.0-py3-none-any.whl", data.getvalue()


def _module() -> bytes:
    data = io.BytesIO()
    files = {
        "package/package.json": '{"name": "demo-module", "version": "1.0.0", "main": "index.js"}',
        "package/index.js": "module.exports = 'installed'\n",
    }
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return data.getvalue()


# ssh


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[int]:
    """OpenSSH's server as an ordinary process on loopback; gives its port.

    It serves one user, git, with the key folder/key. Whoever runs this, it is user 1000 of a user
    namespace: as root it would want a user and folders of the system's own.
    """
    program, libraries = _sshd()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    for name in ("key", "host_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    (folder / "passwd").write_text(f"git:x:1000:1000:git:{folder}:/bin/sh\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {folder}/key.pub\nPasswordAuthentication no\nPidFile none\n"
        "LogLevel ERROR\n"
    )
    bwrap = measure(need=Need(kvm=False, user_namespaces=False)).bwrap
    assert bwrap is not None, "bubblewrap is needed: corral doctor --fix"
    argv = [
        *(*bwrap.argv, "--unshare-user", "--uid", "1000", "--gid", "1000", "--die-with-parent"),
        *("--dev-bind", "/", "/", "--ro-bind", str(folder / "passwd"), "/etc/passwd", "--"),
        *(str(program), "-D", "-e", "-f", str(folder / "sshd_config")),
    ]
    log = folder / "sshd.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            argv, env={"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": libraries}, stderr=errors
        )
    try:
        _wait_for(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """It tells nobody that it listens, but for the port itself."""
    for _ in range(500):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.02):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    raise AssertionError(f"sshd does not listen: {log.read_text()}")


def _sshd() -> tuple[Path, str]:
    """The host's, or its distribution's package, in the cache; and where its libraries are."""
    installed = Path("/usr/sbin/sshd")
    if installed.exists():
        return installed, ""
    folder = paths.cache_dir() / "tests" / "openssh-server"
    program = folder / "usr/sbin/sshd"
    with locked("tests-openssh-server"):
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # A state of its own: the kernel may be fetched by another at the same time.
            apt = Apt("tests", host_archives(), silent)

            def download() -> list[Path]:
                found = [apt.show(name) for name in ("openssh-server", "libwrap0")]
                return apt.download([package for package in found if package], folder)

            unpack(apt.with_fresh_lists(download), folder)
    libraries = [str(each) for each in sorted({file.parent for file in folder.rglob("lib*.so*")})]
    return program, os.pathsep.join(libraries)
