"""`corral net`, with a real sandbox: learn what a command needs, write it down, look it up."""

from __future__ import annotations

import http.server
import json
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Corral


class _Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_arguments: object) -> None:
        """Nobody needs it."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


FETCH = """
import urllib.request
for url in ("http://web.test/", "http://pypi.org/", "http://files.pythonhosted.org/"):
    print(urllib.request.urlopen(url).read().decode())
try:
    urllib.request.urlopen("http://10.0.0.1/")
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


def test_what_a_command_needs_is_learned_written_down_and_looked_up(
    corral: Corral, project: Path, port: int
) -> None:
    names = ("web.test", "pypi.org", "files.pythonhosted.org")
    hosts = [text for name in names for text in ("--host", f"{name}=127.0.0.1:{port}")]
    folder = project / "learned"  # a log is that of all sandboxes of a name
    folder.mkdir()
    done = corral("net", "learn", "--write", *hosts, "--", "python3", "-c", FETCH, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["ok"] * 3
    assert "403 corral: this sandbox may not connect to 10.0.0.1, port 80" in done.stdout
    assert "may reach every public host" in done.stderr, "it is said before it runs"
    assert "refused and not on the list: 10.0.0.1:80 (private address)" in done.stderr

    written = tomllib.loads((folder / "corral.toml").read_text())
    assert written == {"network": {"allow": ["@python", "web.test:80"]}}
    assert corral("trust", cwd=folder).returncode == 0
    assert corral("net", "check", "web.test:80", cwd=folder).returncode == 0
    checked = corral("net", "check", "evil.test", "--json", cwd=folder)
    assert checked.returncode == 1
    assert json.loads(checked.stdout)["reason"] == "evil.test:443: not on the list"

    lines = corral("net", "log", folder.name, "--json").stdout.splitlines()
    ended = [event for event in map(json.loads, lines) if event["seconds"] is not None]
    assert [event["name"] for event in ended] == list(names)
    assert all(event["received"] > 0 for event in ended)
    denied = corral("net", "log", folder.name, "--denied").stdout.splitlines()
    assert len(denied) == 2 and "10.0.0.1:80, private address" in denied[1]
