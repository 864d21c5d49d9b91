"""Programs in a sandbox reach the hosts that are allowed, by their names, and are told nothing.

The hosts are servers on this machine's loopback (tests/support/sites.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from corral.events import Connection, Event
from corral.sandbox import Sandbox
from tests.conftest import Corral
from tests.support.sandboxes import python, run, sandbox_on, shell, succeeded
from tests.support.sites import COMMIT, LARGE, Sites, sites

needs_npm = pytest.mark.skipif(
    not Path("/usr/bin/npm").exists(), reason="this host has no npm in /usr"
)
needs_node = pytest.mark.skipif(
    not Path("/usr/bin/node").exists(), reason="this host has no node in /usr"
)


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with sites(tmp_path_factory.mktemp("internet"), ssh=True) as serving:
        yield serving


@pytest.fixture(scope="module")
def told() -> list[Event]:
    """What was reported of the module's sandbox."""
    return []


@pytest.fixture(scope="module")
async def sandbox(
    internet: Sites, told: list[Event], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sandbox]:
    project = tmp_path_factory.mktemp("network")
    shutil.copy(internet.authority, project / "ca.pem")
    shutil.copy(internet.folder / "key", project / "key")
    (project / "key").chmod(0o600)
    overrides: dict[str, object] = {
        "network.allow": internet.rules,
        "network.hosts": internet.hosts,
    }
    async with sandbox_on(project, overrides, report=told.append) as running:
        yield running


def connections(told: list[Event], name: str) -> list[Connection]:
    return [event for event in told if isinstance(event, Connection) and event.name == name]


# Clients


async def test_curl_over_http_and_https(sandbox: Sandbox) -> None:
    assert succeeded(await run(sandbox, "curl", "-sS", "http://web.test/")) == "hello\n"
    secure = await run(sandbox, "curl", "-sS", "--cacert", "ca.pem", "https://web.test/")
    assert succeeded(secure) == "hello\n"


async def test_a_large_answer_arrives_whole(sandbox: Sandbox) -> None:
    script = "curl -sS http://web.test/large | sha256sum; head -c 2000000 /dev/zero > /tmp/up"
    expected = (
        'python3 -c "import hashlib;print(hashlib.sha256(bytes(range(256))*8192).hexdigest())"'
    )
    lines = succeeded(await shell(sandbox, f"{script}; {expected}")).split()
    assert LARGE == 256 * 8192
    assert lines[0] == lines[-1]
    sent = await shell(sandbox, "curl -sS --data-binary @/tmp/up http://web.test/ | wc -c")
    assert succeeded(sent).strip() == "2000000"


async def test_git_over_https(sandbox: Sandbox) -> None:
    script = (
        "git -c http.sslCAInfo=$PWD/ca.pem clone -q https://git.test/demo.git /tmp/https-clone"
        " && git -C /tmp/https-clone log --format=%s"
    )
    assert succeeded(await shell(sandbox, script)).strip() == COMMIT


async def test_git_over_ssh(sandbox: Sandbox, internet: Sites) -> None:
    """Its server talks first, and it has no name in what it says."""
    script = (
        "export GIT_SSH_COMMAND='ssh -i key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no "
        "-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'; "
        f"git clone -q git@git.test:{internet.folder}/demo.git /tmp/ssh-clone"
        " && cd /tmp/ssh-clone && git log --format=%s"
    )
    assert succeeded(await shell(sandbox, script)).strip() == COMMIT


async def test_pip_installs_a_package(sandbox: Sandbox) -> None:
    script = (
        "/usr/bin/python3 -m pip install -q --cert ca.pem --index-url https://pypi.test/simple"
        " --disable-pip-version-check --no-deps --target /tmp/packages demo-package"
        " && PYTHONPATH=/tmp/packages python3 -c 'import demo_package'"
    )
    assert succeeded(await shell(sandbox, script, timeout=100)).strip() == "installed"


@needs_npm
async def test_npm_installs_a_module(sandbox: Sandbox) -> None:
    script = (
        "mkdir -p /tmp/npm && cd /tmp/npm && npm install --no-audit --no-fund --loglevel=error"
        f" --cafile {sandbox.plan.agents[0].workdir}/ca.pem --registry https://npm.test/"
        " demo-module >&2 && node -p 'require(\"demo-module\")'"
    )
    assert succeeded(await shell(sandbox, script, timeout=100)).strip() == "installed"


@needs_node
async def test_node_fetches(sandbox: Sandbox) -> None:
    code = "fetch('https://web.test/').then(r => r.text()).then(t => process.stdout.write(t))"
    found = await run(
        sandbox, "node", "-e", code, environment={"NODE_EXTRA_CA_CERTS": "ca.pem"}, timeout=100
    )
    assert succeeded(found) == "hello\n"


async def test_python_fetches(sandbox: Sandbox) -> None:
    code = (
        "import ssl, urllib.request\n"
        "context = ssl.create_default_context(cafile='ca.pem')\n"
        "print(urllib.request.urlopen('https://web.test/', context=context).read().decode())"
    )
    assert succeeded(await python(sandbox, code)).strip() == "hello"


async def test_programs_find_the_hosts_authorities(sandbox: Sandbox) -> None:
    """Without them no name of the real internet could be believed."""
    files = (
        "ls -d /etc/ssl/certs /etc/pki/tls/certs 2>/dev/null; ls /etc/ssl/ /etc/pki/ 2>/dev/null"
    )
    assert "certs" in (await shell(sandbox, files)).stdout
    code = "import ssl; c = ssl.create_default_context(); print(len(c.get_ca_certs()) > 20)"
    assert succeeded(await run(sandbox, "/usr/bin/python3", "-c", code)) == "True\n"


async def test_nothing_tells_programs_of_a_proxy(sandbox: Sandbox) -> None:
    assert "proxy" not in succeeded(await run(sandbox, "env")).lower()


async def test_names_have_addresses_and_other_records_are_empty(sandbox: Sandbox) -> None:
    code = (
        "import socket\n"
        "print({a[4][0][:6] for a in socket.getaddrinfo('pypi.test', 443)})\n"
        "print(socket.gethostbyname('localhost'), socket.gethostbyname('app.localhost'))\n"
        "try: print(socket.getaddrinfo('pypi.test', 443, socket.AF_INET6))\n"
        "except socket.gaierror as error: print(error.errno == socket.EAI_NODATA)"
    )
    assert succeeded(await python(sandbox, code)).split("\n") == [
        "{'198.18'}",
        "127.0.0.1 127.0.0.1",
        "True",
        "",
    ]


# Connections


HALF_CLOSE = """
import socket
with socket.create_connection(("web.test", 80)) as s:
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: web.test\\r\\nConnection: close\\r\\n\\r\\n")
    s.shutdown(socket.SHUT_WR)
    data = b""
    while piece := s.recv(100):
        data += piece
print(data.endswith(b"hello\\n"))
"""


async def test_a_program_may_end_its_half_first(sandbox: Sandbox) -> None:
    assert succeeded(await python(sandbox, HALF_CLOSE)) == "True\n"


MANY = """
import concurrent.futures, urllib.request
def fetch(number):
    return urllib.request.urlopen("http://web.test/?%d" % number, timeout=60).read() == b"hello\\n"
with concurrent.futures.ThreadPoolExecutor(24) as pool:
    print(sum(pool.map(fetch, range(96))))
"""


async def test_many_connections_at_once(sandbox: Sandbox) -> None:
    assert succeeded(await python(sandbox, MANY, timeout=100)) == "96\n"


async def test_a_connection_that_is_over_leaves_no_stream(sandbox: Sandbox) -> None:
    fetch = "for i in 1 2 3 4 5; do curl -sS http://web.test/; done"
    assert succeeded(await shell(sandbox, fetch)) == "hello\n" * 5
    for _round in range(20):
        if not sandbox.open_streams:
            break
        await sandbox.sync()  # a round through the guest's loop
    assert not sandbox.open_streams


async def test_each_is_reported_with_its_bytes(sandbox: Sandbox, told: list[Event]) -> None:
    await shell(sandbox, "curl -sS http://web.test/large -o /dev/null")
    usage = await sandbox.usage()
    ended = [event for event in connections(told, "web.test") if event.seconds is not None]
    assert ended[-1].verdict == "allowed"
    assert ended[-1].received > LARGE
    assert usage.received > LARGE
    assert usage.sent > 0


async def test_who_is_not_allowed_is_refused_and_told(sandbox: Sandbox, told: list[Event]) -> None:
    refused = await run(sandbox, "curl", "-sS", "--max-time", "20", "https://other.test/")
    assert refused.status != 0
    (event,) = connections(told, "other.test")
    assert (event.verdict, event.port, event.agent) == ("denied", 443, 1)


# The command line


def test_run_says_at_its_end_what_was_refused(corral: Corral, internet: Sites) -> None:
    hosts = [argument for host in internet.hosts for argument in ("--host", host)]
    done = corral(
        *("run", "--allow", "web.test", *hosts, "--", "sh", "-c"),
        "curl -sS http://web.test/; curl -sS https://pypi.test/; curl -sS https://pypi.test/; true",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n"
    assert "2 connections were refused: pypi.test:443 (not on the list, 2 times)" in done.stderr
    assert "To permit them: --allow pypi.test" in done.stderr


def test_events_have_each_connection(corral: Corral, internet: Sites) -> None:
    hosts = [argument for host in internet.hosts for argument in ("--host", host)]
    done = corral(
        *("run", "--json", "--allow", "web.test", *hosts, "--"),
        *("curl", "-sS", "http://web.test/"),
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = [event for event in events if event["event"] == "connection"]
    assert {event["name"] for event in found} == {"web.test"}
    assert found[-1]["received"] > 0
