"""The gateway has the key, and nobody else: not the guest, nor any other process of corral."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from corral.gateway.config import TRANSCRIPT
from corral.paths import log_dir
from corral.scripted import Models, Reply
from tests.support import leftovers
from tests.support.gateways import KEY, GatewaySandbox, configure, gateway_sandbox
from tests.support.process_memory import holds
from tests.support.sandboxes import guest_root, python, succeeded
from tests.support.secret_sites import in_memory

MARK = "what-the-model-said-0123456789"
ASK = """
import json, os, urllib.request
def ask(path="/v1/messages", headers={}, **more):
    body = {"model": "claude-opus-5", "max_tokens": 9, "messages": [], **more}
    request = urllib.request.Request(
        os.environ["ANTHROPIC_BASE_URL"] + path, json.dumps(body).encode(),
        {"content-type": "application/json", "x-api-key": os.environ["ANTHROPIC_API_KEY"],
         **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, str(answer.headers) + answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
"""


@pytest.fixture(scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewaySandbox]:
    async with gateway_sandbox(tmp_path_factory.mktemp("gateway")) as found:
        yield found


def gateways() -> list[psutil.Process]:
    """The gateway's processes, without the bubblewrap around them."""
    found = []
    for process in leftovers.family():
        with contextlib.suppress(psutil.Error):  # gone a moment ago
            words = process.cmdline()
            if words[-2:] == ["-m", "corral.gateway"] and "--unshare-pid" not in words:
                found.append(process)
    return found


async def test_no_byte_of_the_machine_is_the_key(setting: GatewaySandbox) -> None:
    """After it was used, and an upstream has sent it back: all of the machine's memory is searched.

    Every process, variable, file in memory and cache of a file is in it; there is no disk.
    """
    setting.models.replies += [Reply(echo=True), Reply(echo=True, gzip=True), Reply(text=MARK)]
    program = ASK + "print(ask()); print(ask(stream=True)); print(ask())"
    answers = succeeded(await python(setting.sandbox, program))
    assert [seen.headers["x-api-key"] for seen in setting.models.seen[-3:]] == [KEY] * 3
    assert "x-api-key" in answers and "*" * len(KEY) in answers and MARK in answers
    memory = setting.sandbox.machine.memory
    assert in_memory(memory, MARK.encode())  # the control: what came back is found
    assert not in_memory(memory, KEY.encode())
    assert not in_memory(memory, KEY[12:].encode())


async def test_variables_hold_a_placeholder(setting: GatewaySandbox) -> None:
    shown = succeeded(
        await guest_root(
            setting.sandbox,
            "import os\n"
            "for p in filter(str.isdigit, os.listdir('/proc')):\n"
            "    print(open(f'/proc/{p}/environ').read(), open(f'/proc/{p}/cmdline').read())",
        )
    )
    assert "PATH=" in shown and KEY not in shown
    env = succeeded(await python(setting.sandbox, "import os; print(dict(os.environ))"))
    assert "held-by-corral-on-the-host" in env and KEY not in env


async def test_what_the_guest_sends_as_a_credential_goes_nowhere(setting: GatewaySandbox) -> None:
    sent = {
        name: "of-the-guest"
        for name in (
            *("Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Cookie"),
            *("Proxy-Authorization", "X-Auth-Token", "X-Amz-Security-Token", "Ocp-Apim-Key"),
        )
    }
    program = f"{ASK}\nprint(ask('/v1/messages?key=of-the-guest&beta=true', {sent!r}))"
    assert succeeded(await python(setting.sandbox, program)).startswith("(200")
    seen = setting.models.seen[-1]
    assert seen.query == "beta=true" and seen.headers["x-api-key"] == KEY
    assert "of-the-guest" not in json.dumps(seen.headers)


RAW = """
import json, socket, sys
def raw(data):
    with socket.create_connection(("anthropic.corral.internal", 80), 20) as sock:
        sock.settimeout(2)
        sock.sendall(data)
        answer = b""
        try:
            while piece := sock.recv(65536):
                answer += piece
                if b"HTTP/1.1 200" in answer and b"}" in answer:
                    break
        except (TimeoutError, ConnectionError):
            pass
        return answer.decode(errors="replace")
BODY = b'{"model":"claude-opus-5"}'
def request(line, *headers, body=BODY, host="anthropic.corral.internal"):
    lines = [line, f"Host: {host}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\\r\\n".join(lines).encode() + body
"""
TRICKS = {
    "another path": 'request("POST /v1/files HTTP/1.1")',
    "dots": 'request("POST /v1/messages/../files HTTP/1.1")',
    "packed dots": 'request("POST /v1/messages/%2e%2e/files HTTP/1.1")',
    "a whole address": 'request("POST http://192.0.2.1/v1/messages HTTP/1.1", host="192.0.2.1")',
    "another host": 'request("POST /v1/messages HTTP/1.1", host="api.anthropic.com")',
    "two hosts": 'request("POST /v1/messages HTTP/1.1", "Host: openai.corral.internal")',
    "a tunnel": 'request("CONNECT 192.0.2.1:443 HTTP/1.1")',
    "an upgrade": 'request("GET /v1/responses HTTP/1.1", "Upgrade: websocket", '
    '"Connection: Upgrade", body=b"")',
    "two lengths": 'request("POST /v1/messages HTTP/1.1", "Content-Length: 3")',
    "a length and pieces": 'request("POST /v1/messages HTTP/1.1", "Transfer-Encoding: chunked")',
    "a header on two lines": 'request("POST /v1/messages HTTP/1.1", "X-A: b", " c: d")',
    "a space before the colon": 'request("POST /v1/messages HTTP/1.1", "X-Api-Key : x")',
    "no request": 'b"\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc"',
}


async def test_no_trick_of_http_leads_elsewhere(setting: GatewaySandbox) -> None:
    """The key is added to what was checked, and to nothing else; the control passes."""
    before = len(setting.models.seen)
    tricks = "{" + ", ".join(f"{name!r}: {data}" for name, data in TRICKS.items()) + "}"
    control = 'raw(request("POST /v1/messages HTTP/1.1", "Connection: close"))'
    program = (
        f"{RAW}\nprint(json.dumps({{name: raw(data)[:12] for name, data in {tricks}.items()}}))"
        f"\nprint({control})"
    )
    first, _, rest = succeeded(await python(setting.sandbox, program, timeout=110)).partition("\n")
    answers = json.loads(first)
    assert set(answers) == set(TRICKS)
    assert not [name for name, answer in answers.items() if answer.startswith("HTTP/1.1 2")]
    assert "HTTP/1.1 200" in rest
    assert len(setting.models.seen) == before + 1


async def test_a_redirect_does_not_take_the_key_along(setting: GatewaySandbox) -> None:
    async with Models() as other:
        setting.models.replies.append(Reply(redirect=f"{other.url}/v1/messages"))
        answer = succeeded(await python(setting.sandbox, ASK + "print(ask())"))
        assert answer.startswith("(307")
        assert not other.seen


async def test_another_user_of_the_host_cannot_connect(setting: GatewaySandbox) -> None:
    path = setting.sandbox.folder / "sockets" / "gateway-1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.getuid()
    assert stat.S_IMODE(setting.sandbox.folder.stat().st_mode) == 0o700
    reader, writer = await asyncio.open_unix_connection(path)  # the control: its own user can
    writer.close()
    del reader
    if os.getuid() == 0:
        connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        done = await asyncio.to_thread(
            lambda: subprocess.run(
                ["/usr/bin/python3", "-I", "-S", "-c", connect, str(path)],
                user=65534,
                group=65534,
                extra_groups=[],
                cwd="/",
                env={},
                capture_output=True,
                text=True,
                timeout=30,
            )
        )
        assert "PermissionError" in done.stderr


def test_its_files_are_the_users_alone(setting: GatewaySandbox) -> None:
    folder = log_dir(setting.sandbox.plan.name) / "gateway"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert KEY not in (folder / TRANSCRIPT).read_text()


def test_the_gateways_process_is_confined(setting: GatewaySandbox) -> None:
    """Namespaces of its own but the network's, no capability, nothing of the user's."""
    (process,) = gateways()
    proc = Path(f"/proc/{process.pid}")
    status = (proc / "status").read_text()
    assert "NoNewPrivs:\t1" in status and "CapEff:\t0000000000000000" in status
    assert KEY not in " ".join(process.cmdline())
    try:
        environ = process.environ()
        for name in ("user", "pid", "mnt", "ipc", "uts"):
            theirs = (proc / "ns" / name).readlink()
            assert theirs != Path(f"/proc/self/ns/{name}").readlink()
        core = process.rlimit(psutil.RLIMIT_CORE)
    except (PermissionError, psutil.AccessDenied):
        return  # an ordinary user may not even look, as the gateway is not dumpable
    assert core == (0, 0)
    assert set(environ) <= {
        *("PATH", "HOME", "LANG", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PWD"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "LC_CTYPE"),
    }


@pytest.fixture
def short() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as found:
        yield Path(found)


async def test_no_other_process_of_corral_has_the_key(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole `corral run`: its memory, variables and arguments, and those of all below it."""
    monkeypatch.setenv("CORRAL_CONFIG_DIR", str(short / "config"))
    workspace = short / "workspace"
    workspace.mkdir()
    async with Models() as models:
        configure(models, short)
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "corral", "run", "--gateway", "anthropic", "--"),
            *(
                "/usr/bin/python3",
                "-c",
                ASK + "print(ask(), flush=True); import sys; sys.stdin.read()",
            ),
            cwd=workspace,
            env={**os.environ, "CORRAL_CPUS": "1", "CORRAL_MEMORY": "768MiB"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert run.stdin is not None and run.stdout is not None
        try:
            async with asyncio.timeout(100):
                assert (await run.stdout.readline()).startswith(b"(200")
            assert models.seen[-1].headers["x-api-key"] == KEY
            family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
            names = [process.name() for process in family]
            assert len(family) >= 5 and any(name.startswith("qemu") for name in names), names
            found = await asyncio.to_thread(search, family)
        finally:
            run.kill()  # and nothing of all that stays
            await run.wait()
        _gone, left = await asyncio.to_thread(psutil.wait_procs, family, 20)
        assert not left
    if os.getuid() == 0:
        assert found == ["corral.gateway"]  # the control: where it is, it is found
    else:
        assert set(found) <= {"corral.gateway"}


def search(family: list[psutil.Process]) -> list[str]:
    """Which of these have the key anywhere; by the last word of their command lines."""
    found = []
    for process in family:
        words = process.cmdline()
        assert KEY not in " ".join(words)
        try:
            in_variables = KEY in str(process.environ())
            if in_variables or holds(process.pid, KEY.encode()):
                found.append(words[-1])
        except (PermissionError, psutil.AccessDenied):
            assert words[-1] == "corral.gateway", words
    return found


async def test_a_gateway_that_dies_is_told_once_and_answers_nothing(
    setting: GatewaySandbox,
) -> None:
    """Last in this file: the sandbox goes on without it."""
    (process,) = gateways()
    process.kill()
    async with asyncio.timeout(20):
        while not any("the gateway was ended" in text for text in setting.notices()):
            setting.events.more.clear()
            await setting.events.more.wait()
    program = ASK + (
        "for number in range(3):\n"
        "    try:\n        print(ask())\n"
        "    except OSError as error:\n        print('failed', type(error).__name__)\n"
    )
    result = await python(setting.sandbox, program)
    assert result.status == 0 and result.stdout.count("failed") + result.stdout.count("(50") == 3
    told = [text for text in setting.notices() if "the gateway" in text]
    assert len([text for text in told if "was ended by SIGKILL" in text]) == 1
    assert "well" in succeeded(await python(setting.sandbox, "print('well')"))
