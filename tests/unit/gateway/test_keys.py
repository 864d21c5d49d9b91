"""Where keys are found: each kind, and what is said when there is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.errors import ConfigError
from corral.gateway import claude
from corral.gateway.keys import read
from corral.policy import Key
from corral.proc.own import ask

SECRET = "sk-some-key-0123456789"


def test_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(Key(kind="env", value=("K",)), {"K": f" {SECRET}\n"}).key == SECRET
    with pytest.raises(ConfigError, match="the variable K is not set"):
        read(Key(kind="env", value=("K",)), {})
    with pytest.raises(ConfigError, match="is empty"):
        read(Key(kind="env", value=("K",)), {"K": ""})


def test_a_command_prints_it_on_its_first_line() -> None:
    program = "import os; print(os.environ['X']); print('more')"
    key = Key(kind="command", value=(sys.executable, "-c", program))
    assert read(key, {**os.environ, "X": SECRET}).key == SECRET


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; sys.exit('no such entry')", "failed with status 1: no such entry"),
        ("print()", "is empty"),
        ("print('a\\x00b')", "is no key"),
        ("print('x' * 99999)", "is no key"),
    ],
)
def test_a_command_that_gives_none(program: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read(Key(kind="command", value=(sys.executable, "-c", program)), os.environ)
    with pytest.raises(ConfigError, match="cannot be run: No such file"):
        read(Key(kind="command", value=("/nonexistent/program",)), os.environ)


def question(key: Key) -> bytes:
    return msgspec.json.encode([{"name": "one", "key": msgspec.to_builtins(key)}])


def command(script: str) -> Key:
    return Key(kind="command", value=("/bin/sh", "-c", script))


def test_a_command_that_prints_without_end_fills_no_memory() -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match="is no key: it is long"):
        read(command("exec yes"), os.environ)
    with pytest.raises(ConfigError, match=r"failed with status 3: last$"):
        read(command("head -c 9000000 /dev/zero >&2; echo >&2; echo last >&2; exit 3"), os.environ)
    assert time.monotonic() - began < 20


def test_what_a_command_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    """An agent that it has started holds its output open."""
    began, number = time.monotonic(), tmp_path / "number"
    script = f"sleep 40 & echo $! > {number}; echo {SECRET}"
    try:
        assert read(command(script), os.environ).key == SECRET
        assert time.monotonic() - began < 20
    finally:
        os.kill(int(number.read_text()), 9)


def test_of_a_command_that_hangs_nothing_is_left(tmp_path: Path) -> None:
    """Its shell is ended, and what the shell waits for."""
    number = tmp_path / "number"
    program = "from corral.gateway import keys; keys.COMMAND_SECONDS = 1.0; keys.main()"
    key = command(f"sleep 77 & echo $! > {number}; wait")
    asked = json.dumps([{"name": "one", "key": msgspec.to_builtins(key)}])
    with subprocess.Popen(
        (sys.executable, "-c", program),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        said, _none = child.communicate(asked.encode(), timeout=30)
    answer = json.loads(said)
    assert answer["key"] is None and "did not end within 1 seconds" in answer["problem"]
    with contextlib.suppress(ProcessLookupError):
        ended = os.pidfd_open(int(number.read_text()))
        assert select.select([ended], [], [], 10)[0]
        os.close(ended)


ASK = (
    "import asyncio, sys\n"
    "from corral.proc.own import ask\n"
    "asyncio.run(ask('corral.gateway.keys', sys.argv[1].encode(), environment={},"
    " stdout=1, timeout=60))"
)


async def test_of_a_search_that_is_given_up_nothing_is_left(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    asked = question(command(f"sleep 99 & echo $! > {fifo}; wait"))
    search = asyncio.create_task(
        ask("corral.gateway.keys", asked, environment={}, stdout=subprocess.DEVNULL, timeout=60)
    )
    left = os.pidfd_open(int(await asyncio.to_thread(fifo.read_text)))
    began = time.monotonic()
    search.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await search
    assert select.select([left], [], [], 5)[0] and time.monotonic() - began < 5
    os.close(left)


def test_when_corral_is_killed_nothing_is_left_of_a_command(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    asked = question(command(f"sleep 88 & echo $! > {fifo}; wait"))
    with subprocess.Popen((sys.executable, "-c", ASK, asked)) as corral:
        left = os.pidfd_open(int(fifo.read_text()))
        corral.kill()
    ended = bool(select.select([left], [], [], 10)[0])
    if not ended:
        signal.pidfd_send_signal(left, signal.SIGKILL)
    os.close(left)
    assert ended


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\nsecond line\n")
    assert read(Key(kind="file", value=(str(file),)), {}).key == SECRET
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read(Key(kind="file", value=(str(tmp_path),)), {})


def test_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring

    entries = {("corral", "me"): SECRET}
    monkeypatch.setattr(keyring, "get_password", lambda *who: entries.get(who))
    assert read(Key(kind="keyring", value=("corral", "me")), {}).key == SECRET
    with pytest.raises(ConfigError, match="has no key other of me"):
        read(Key(kind="keyring", value=("other", "me")), {})
    monkeypatch.setattr(keyring, "get_password", lambda *_who: 1 / 0)
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        read(Key(kind="keyring", value=("other", "me")), {})


class Tokens:
    """A token endpoint: each refresh token works once."""

    def __init__(self) -> None:
        self.valid = "refresh-0"
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.meanwhile: Callable[[], object] = lambda: None  # before it answers
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                outer.asked.append(json.loads(self.rfile.read(size)))
                good = outer.asked[-1]["refresh_token"] == outer.valid
                status = outer.status if good or outer.status != 200 else 400
                said: dict[str, Any] = {"error": "invalid_grant"}
                if status == 200:
                    number = len(outer.asked)
                    outer.valid = f"refresh-{number}"
                    said = {
                        "access_token": f"sk-ant-oat01-new-{number}",
                        "refresh_token": outer.valid,
                        "expires_in": 28800,
                        "scope": "user:inference user:profile",
                    }
                outer.meanwhile()
                self.send_response(status)
                if status == 307:
                    self.send_header("location", "http://192.0.2.1/")
                self.end_headers()
                self.wfile.write(json.dumps(said).encode())

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/oauth/token"


@pytest.fixture
def tokens() -> Iterator[Tokens]:
    found = Tokens()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def login(tmp_path: Path) -> Path:
    folder = tmp_path / ".claude"
    folder.mkdir()
    return folder / ".credentials.json"


def written(login: Path, *, left: float) -> dict[str, Any]:
    """A login as Claude Code writes it, that holds for `left` seconds."""
    content = {
        "claudeAiOauth": {
            "accessToken": "sk-ant-oat01-old",
            "refreshToken": "refresh-0",
            "expiresAt": int((time.time() + left) * 1000),
            "scopes": ["user:inference"],
            "subscriptionType": "max",
        },
        "mcpOAuth": {"other": 1},
    }
    login.write_text(json.dumps(content))
    return content


def of(login: Path, tokens: Tokens, rejected: str = "") -> str:
    found = read(Key(kind="claude", value=(str(login), tokens.url)), {}, rejected=rejected)
    assert found.bearer and found.expires and found.expires > time.time()
    assert found.key is not None
    return found.key


def test_a_login_that_holds_is_used_as_it_is(login: Path, tokens: Tokens) -> None:
    written(login, left=3600)
    assert of(login, tokens) == "sk-ant-oat01-old"
    assert not tokens.asked


def test_a_login_that_ends_is_renewed_and_written_back_whole(login: Path, tokens: Tokens) -> None:
    before = written(login, left=60)
    assert of(login, tokens) == "sk-ant-oat01-new-1"
    assert tokens.asked == [
        {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-0",
            "client_id": claude.CLIENT_ID,
        }
    ]
    after = json.loads(login.read_text())
    assert after["mcpOAuth"] == before["mcpOAuth"]
    kept = after["claudeAiOauth"]
    assert kept["refreshToken"] == "refresh-1" and kept["subscriptionType"] == "max"
    assert login.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in login.parent.iterdir()] == [login.name]
    assert not login.parent.with_name(".claude.lock").exists()


def test_many_at_once_renew_it_once(login: Path, tokens: Tokens) -> None:
    written(login, left=0)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(of(login, tokens))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["sk-ant-oat01-new-1"] * 6
    assert len(tokens.asked) == 1


def test_what_claude_code_renewed_meanwhile_is_taken(login: Path, tokens: Tokens) -> None:
    written(login, left=0)
    lock = login.parent.with_name(".claude.lock")
    lock.mkdir()  # as Claude Code holds it

    def claude_code() -> None:
        content = written(login, left=3600)
        content["claudeAiOauth"]["accessToken"] = "sk-ant-oat01-of-claude-code"
        login.write_text(json.dumps(content))
        lock.rmdir()

    timer = threading.Timer(0.2, claude_code)
    timer.start()
    assert of(login, tokens) == "sk-ant-oat01-of-claude-code"
    timer.join()
    assert not tokens.asked


def test_a_lock_that_nobody_holds_any_more_is_taken_over(login: Path, tokens: Tokens) -> None:
    written(login, left=0)
    lock = login.parent.with_name(".claude.lock")
    lock.mkdir()
    os.utime(lock, (0, 0))
    assert of(login, tokens) == "sk-ant-oat01-new-1"


def short_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude, "_LOCK_STALE", 0.6)
    monkeypatch.setattr(claude, "_LOCK_TOUCH", 0.1)


def test_a_lock_holds_as_long_as_the_renewal_takes(
    login: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_locks(monkeypatch)
    written(login, left=0)
    tokens.meanwhile = lambda: time.sleep(2)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(of(login, tokens))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["sk-ant-oat01-new-1"] * 2
    assert len(tokens.asked) == 1, "a refresh token works once"


def test_a_lock_that_another_holds_by_now_is_left_to_them(
    login: Path, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process was stopped for so long that they took the lock for nobody's."""
    short_locks(monkeypatch)
    written(login, left=0)
    lock = login.parent.with_name(".claude.lock")

    def another() -> None:
        lock.rmdir()
        lock.mkdir()
        os.utime(lock, (1, 1))
        time.sleep(0.5)

    tokens.meanwhile = another
    assert of(login, tokens) == "sk-ant-oat01-new-1"
    assert lock.stat().st_mtime == 1


def renewed(login: Path) -> bool:
    """Whether it is written down, and nobody is kept from it."""
    kept = json.loads(login.read_text())["claudeAiOauth"]
    return (
        kept["refreshToken"] == "refresh-1" and not login.parent.with_name(".claude.lock").exists()
    )


def spending(tokens: Tokens) -> threading.Event:
    """Set when the old refresh token is spent; the new one comes a little later."""
    spent = threading.Event()

    def meanwhile() -> None:
        spent.set()
        time.sleep(0.5)

    tokens.meanwhile = meanwhile
    return spent


async def test_a_login_that_is_renewed_is_written_down_when_the_search_is_given_up(
    login: Path, tokens: Tokens
) -> None:
    written(login, left=0)
    spent = spending(tokens)
    key = Key(kind="claude", value=(str(login), tokens.url))
    asked = question(key)
    search = asyncio.create_task(
        ask("corral.gateway.keys", asked, environment={}, stdout=subprocess.DEVNULL, timeout=60)
    )
    assert await asyncio.to_thread(spent.wait, 30)
    search.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await search
    assert renewed(login)


def test_a_login_that_is_renewed_is_written_down_when_corral_is_killed(
    login: Path, tokens: Tokens
) -> None:
    written(login, left=0)
    spent = spending(tokens)
    key = Key(kind="claude", value=(str(login), tokens.url))
    with subprocess.Popen(
        (sys.executable, "-c", ASK, question(key)), stdout=subprocess.PIPE
    ) as corral:
        assert spent.wait(30)
        corral.kill()
        corral.communicate(timeout=30)  # until the search has ended, too
    assert renewed(login)


def test_a_token_that_was_refused_is_not_given_again(login: Path, tokens: Tokens) -> None:
    written(login, left=3600)
    refused = sha256(b"sk-ant-oat01-old").hexdigest()
    assert of(login, tokens, refused) == "sk-ant-oat01-new-1"
    assert of(login, tokens, refused) == "sk-ant-oat01-new-1"
    assert len(tokens.asked) == 1


@pytest.mark.parametrize("status", [307, 400, 429, 500])
def test_a_login_that_cannot_be_renewed_is_left_alone(
    login: Path, tokens: Tokens, status: int
) -> None:
    before = written(login, left=0)
    tokens.status = status
    with pytest.raises(ConfigError, match=rf"cannot be renewed \(status {status}\)"):
        of(login, tokens)
    assert json.loads(login.read_text()) == before
    assert not login.parent.with_name(".claude.lock").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "is not what Claude Code writes"),
        ("{}", "has no login of a Claude subscription"),
        ('{"claudeAiOauth": {"accessToken": "a", "expiresAt": 0}}', "has expired and cannot be"),
    ],
)
def test_a_file_without_a_login(login: Path, tokens: Tokens, content: str | None, why: str) -> None:
    if content is not None:
        login.write_text(content)
    with pytest.raises(ConfigError, match=why):
        of(login, tokens)
