"""What the gateway writes down: the transcript, and what was spent.

Both are written from the event loop and synced by a thread, so that no answer waits for the disk.
Nothing here raises OSError: a full disk must not end an agent's work; it is told once.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ..journal import older
from .account import Account
from .config import SPENT, TRANSCRIPT
from .redact import Secrets

SYNC_EVERY = 0.1  # seconds
LIMIT = 64 << 20  # bytes of the transcript before it becomes the older one, of which there is one
MAX_BODY = 4 << 20  # bytes of a body that are kept


class Kept:
    """The files of one sandbox, in `folder`."""

    def __init__(
        self, folder: Path, tell: Callable[[str], None], *, limit: int = LIMIT, keep: bool = True
    ) -> None:
        """keep: what was spent is kept for the sandbox's next start."""
        self._transcript = folder / TRANSCRIPT
        self._spent = folder / SPENT if keep else None
        self._tell = tell
        self._told = False
        self._limit = limit
        self._fd = -1
        self._dirty = asyncio.Event()
        self._account: Account | None = None
        self._open()

    def account(self) -> Account:
        """What was spent before.

        A file that cannot be read is told, and stays as it is: who has a budget spends no more.
        """
        if self._spent is None or not self._spent.exists():
            return Account()
        try:
            return msgspec.json.decode(self._spent.read_bytes(), type=Account)
        except (OSError, msgspec.MsgspecError) as error:
            self._tell(
                f"what was spent before cannot be read, so no budget can be kept: {error}. To "
                f"begin anew, remove the file {self._spent.name} in the sandbox's folder of logs."
            )
            self._spent = None
            return Account(lost="what was spent of the budget before cannot be read on the host.")

    def write(self, record: dict[str, Any], secrets: Secrets) -> None:
        """A line of the transcript, without credentials."""
        try:
            line = secrets.clean(msgspec.json.encode(record)) + b"\n"
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            record = {**record, "body": "(it cannot be written as JSON)"}
            line = secrets.clean(json.dumps(record).encode()) + b"\n"  # which takes any text
        try:
            self._turn(len(line))
            view = memoryview(line)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self._failed(error)
        self._dirty.set()

    def spent(self, account: Account) -> None:
        """What is spent now, to be kept."""
        if self._spent is not None:
            self._account = account
            self._dirty.set()

    async def sync(self) -> None:
        """For ever: bring to the disk what was written, some of it at a time."""
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SYNC_EVERY)  # what comes close together goes together
            self._dirty.clear()
            await asyncio.to_thread(self._flush, *self._snapshot())

    def close(self) -> None:
        """Bring everything to the disk."""
        self._flush(*self._snapshot())
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _snapshot(self) -> tuple[int, bytes | None]:
        """What a thread brings to the disk: a descriptor of its own, and the account."""
        account, self._account = self._account, None
        spent = None if account is None else msgspec.json.encode(account)
        try:
            return (os.dup(self._fd) if self._fd >= 0 else -1), spent
        except OSError as error:  # no descriptor is left: the next time, perhaps
            self._failed(error)
            return -1, spent

    def _flush(self, transcript: int, spent: bytes | None) -> None:
        try:
            if transcript >= 0:
                try:
                    os.fdatasync(transcript)
                finally:
                    os.close(transcript)
            if spent is not None and self._spent is not None:
                unfinished = self._spent.with_name(f".{SPENT}.{os.getpid()}")
                with unfinished.open("wb") as file:
                    file.write(spent)
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.replace(self._spent)
        except OSError as error:
            self._failed(error)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._transcript, flags, 0o600)
        except OSError as error:
            self._failed(error)

    def _turn(self, more: int) -> None:
        """Begin a new file when this one is full, or when another run of this sandbox has."""
        if self._fd >= 0 and not self._is_at_its_place():
            self._reopen()
        if self._fd < 0:
            self._open()
        size = os.fstat(self._fd).st_size
        if size + more <= self._limit or not size:
            return
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        if self._is_at_its_place():
            self._transcript.replace(older(self._transcript))
        self._reopen()

    def _is_at_its_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), self._transcript.stat())
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._open()

    def _failed(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._tell(f"the transcript and what was spent cannot be kept: {error.strerror}.")


def shortened(body: Any, size: int) -> Any:
    """A body for the transcript. size: its bytes, where that is known."""
    if size <= MAX_BODY:
        return body
    return _short(body, 2000)


def _short(value: Any, length: int) -> Any:
    """The same with its long texts cut: images, for example."""
    if isinstance(value, str):
        more = len(value) - length
        return value if more <= 0 else f"{value[:length]}... ({more} more characters)"
    if isinstance(value, dict):
        return {key: _short(each, length) for key, each in value.items()}
    if isinstance(value, list):
        return [_short(each, length) for each in value]
    return value
