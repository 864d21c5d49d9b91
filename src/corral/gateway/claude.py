"""The login of Claude Code on this host, as a key: its credentials file, read and kept fresh.

The file (~/.claude/.credentials.json on Linux) holds {"claudeAiOauth": {"accessToken",
"refreshToken", "expiresAt" (milliseconds since 1970), ...}, ...}. A refresh token works once: the
answer has the next one, which has to be in the file before anybody else looks, or the user is
logged out. So corral takes the lock that Claude Code takes (a folder beside its own, after
npm's proper-lockfile), looks again, and replaces the file as a whole. A signal that asks this
process to end waits until that is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .found import Found

# As in Claude Code: the endpoint, and the id of its public OAuth client.
TOKEN_URL = "https://platform.claude.com/v1/oauth/token"  # noqa: S105 - an address
CLIENT_ID = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
MARGIN = 300.0  # seconds before its end at which a token is not used any more
_TIMEOUT = 30.0  # seconds without a byte of the endpoint's
_LOCK_WAIT = 40.0  # seconds; longer than a renewal takes
# Seconds after which a lock that was not touched is nobody's, proper-lockfile's default; and after
# which one is touched.
_LOCK_STALE, _LOCK_TOUCH = 10.0, 2.5
_LOCK_LOOK = 0.1  # seconds; a folder that goes tells nobody
_MAX_ANSWER = 1 << 20
_LOG_IN = "log in with Claude Code on this host (`claude`, then /login)."


def token(path: Path, endpoint: str = TOKEN_URL, *, rejected: str = "") -> Found:
    """An access token that holds for a while. Raises ConfigError.

    rejected: SHA-256, in hex, of a token that was refused: it is not given again.
    """
    login = _login(_content(path), path)
    if not _usable(login, rejected):
        with _locked(path.parent):
            content = _content(path)  # Claude Code may have been faster
            login = _login(content, path)
            if not _usable(login, rejected):
                login = _refreshed(login, endpoint)
                content["claudeAiOauth"] = login
                _write(path, content)
    return Found(
        name="", key=str(login["accessToken"]), expires=login["expiresAt"] / 1000, bearer=True
    )


def _usable(login: dict[str, Any], rejected: str) -> bool:
    fresh: bool = login["expiresAt"] / 1000 - MARGIN > time.time()
    return fresh and sha256(login["accessToken"].encode()).hexdigest() != rejected


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        text = f"Claude's login {path} cannot be read: {error.strerror}; {_LOG_IN}"
        raise ConfigError(text) from None
    except ValueError:
        raise ConfigError(f"Claude's login {path} is not JSON.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"Claude's login {path} is not what Claude Code writes.")
    return content


def _login(content: dict[str, Any], path: Path) -> dict[str, Any]:
    login = content.get("claudeAiOauth")
    if (
        not isinstance(login, dict)
        or not isinstance(login.get("accessToken"), str)
        or type(login.get("expiresAt")) not in (int, float)
    ):
        raise ConfigError(f"{path} has no login of a Claude subscription; {_LOG_IN}")
    return login


def _refreshed(login: dict[str, Any], endpoint: str) -> dict[str, Any]:
    refresh = login.get("refreshToken")
    if not isinstance(refresh, str) or not refresh:
        raise ConfigError(f"Claude's login has expired and cannot be renewed; {_LOG_IN}")
    question = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": CLIENT_ID}
    request = urllib.request.Request(  # noqa: S310 - an address of corral's or of the user's config
        endpoint,
        data=json.dumps(question).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "corral"},
    )
    try:
        with _opener().open(request, timeout=_TIMEOUT) as answer:
            data = json.loads(answer.read(_MAX_ANSWER))
        access, seconds = data["access_token"], float(data["expires_in"])
        if not isinstance(access, str) or not access:
            raise TypeError
    except urllib.error.HTTPError as error:
        text = f"Claude's login cannot be renewed (status {error.code}); {_LOG_IN}"
        raise ConfigError(text) from None
    except OSError as error:
        text = f"Claude's login cannot be renewed: {getattr(error, 'reason', None) or error}."
        raise ConfigError(text) from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError("Claude's login cannot be renewed: the answer is not a token.") from None
    renewed = {**login, "accessToken": access, "expiresAt": int((time.time() + seconds) * 1000)}
    if isinstance(data.get("refresh_token"), str):
        renewed["refreshToken"] = data["refresh_token"]
    if isinstance(data.get("scope"), str):
        renewed["scopes"] = data["scope"].split()
    return renewed


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A refresh token goes to the one address that it is for."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replace the file, through a link if it is one, private as it is."""
    real = path.resolve()
    unfinished = real.with_name(f".{real.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(real)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        # The old refresh token is spent now. Nothing can be done but say so.
        text = f"the renewed Claude login cannot be kept in {path}: {error.strerror}; {_LOG_IN}"
        raise ConfigError(text) from None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Claude Code's lock on its folder: FOLDER.lock, made by mkdir(2), touched while it is held."""
    lock = folder.resolve()
    lock = lock.with_name(f"{lock.name}.lock")
    _take(lock)
    with _unbroken(), _kept(lock):
        yield


def _take(lock: Path) -> None:
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            lock.mkdir()
            return
        except FileExistsError:
            with contextlib.suppress(OSError):
                if time.time() - lock.stat().st_mtime > _LOCK_STALE:
                    lock.rmdir()
                    continue
            if time.monotonic() > deadline:
                raise ConfigError(f"Claude's login is locked by another program: {lock}.") from None
            time.sleep(_LOCK_LOOK)
        except OSError as error:
            text = f"Claude's login cannot be renewed: {lock}: {error.strerror}."
            raise ConfigError(text) from None


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    """Signals that end this process wait, for its one thread and those that this thread starts."""
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _kept(lock: Path) -> Iterator[None]:
    """Touch the lock until it is not needed any more, and remove it then; both if it is ours still.

    Where this process was stopped for long, another may have taken the lock for nobody's.
    """
    over = threading.Event()
    ours = _stamp(lock)

    def touch() -> None:
        nonlocal ours
        while not over.wait(_LOCK_TOUCH):
            if ours is None or _stamp(lock) != ours:
                return
            with contextlib.suppress(OSError):
                os.utime(lock)
            ours = _stamp(lock)

    toucher = threading.Thread(target=touch, daemon=True)
    toucher.start()
    try:
        yield
    finally:
        over.set()
        toucher.join()
        if ours is not None and _stamp(lock) == ours:
            with contextlib.suppress(OSError):
                lock.rmdir()


def _stamp(lock: Path) -> tuple[int, int] | None:
    """What tells one lock from another of the same name; None when there is none."""
    try:
        found = lock.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
