"""The state of kept sandboxes on disk: one folder for each name, private to the user.

    sandboxes/NAME/            below the state folder, mode 0700
        checkpoints/TAG/, workspace/   see `checkpoints`; what is left of them: `leftovers`
        change.lock    flock(2), held by a command that starts or removes the sandbox
        keeper.lock    flock(2), held by the keeper for as long as it lives
        request.json   what was asked for; with it, and only then, the sandbox exists
        status.json    what became of it
        events.jsonl, console.log, keeper.log    see `journal`; older parts end in .1

The kernel drops a lock when its holder ends, however that comes. So a keeper lives if and only if
its lock is held: no process id is ever trusted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import HostError, SandboxStateError, UnknownSandboxError, UsageError
from ..host.copies import remove_tree
from ..paths import run_root, state_dir
from ..spec.files import write_atomically
from ..spec.text import printable
from ..spec.values import NAME_PATTERN
from .model import ALIVE, Problem, Request, Status, decode, encode

_REQUEST, _STATUS = "request.json", "status.json"
_CHANGE, _KEEPER = "change.lock", "keeper.lock"
_GONE = ".gone-"
_NEVER = Status(state="stopped", since=0.0)
SHOWN_LINES = 12


def root() -> Path:
    """The folder of all kept sandboxes. Raises HostError."""
    folder = state_dir() / "sandboxes"
    with _disk(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def names() -> list[str]:
    """Every sandbox that is kept, running or not."""
    found = [
        entry.name
        for entry in root().iterdir()
        if NAME_PATTERN.fullmatch(entry.name) and (entry / _REQUEST).exists()
    ]
    return sorted(found)


def remove_logs(name: str) -> bool:
    """Remove what is written down of the sandboxes called `name`; False when there is nothing.

    What their agents did, and asked of the network and of models, and what they spent. Raises
    HostError.
    """
    folder = state_dir() / "logs" / name
    with _disk(folder):
        try:
            remove_tree(folder)
        except FileNotFoundError:
            return False
        return True


class Record:
    """What is on disk of the sandbox `name`, whether it exists or not. Raises UsageError."""

    def __init__(self, name: str) -> None:
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(
                f"“{printable(name, 60)}” is not a name for a sandbox.",
                hint="Lower-case letters, digits and - are possible, up to 63, not - first.",
            )
        self.name = name
        self.folder = root() / name

    @classmethod
    def find(cls, name: str) -> Record:
        """One that exists. Raises UnknownSandboxError."""
        record = cls(name)
        if not record.exists():
            raise UnknownSandboxError(
                f"there is no sandbox {name}.", hint="See those there are: corral ps -a"
            )
        return record

    def exists(self) -> bool:
        """Whether there is such a sandbox."""
        return (self.folder / _REQUEST).exists()

    # What is kept

    def request(self) -> Request:
        """What was asked for. Raises UnknownSandboxError, HostError."""
        try:
            return decode((self.folder / _REQUEST).read_bytes(), Request)
        except FileNotFoundError:
            raise UnknownSandboxError(
                f"there is no sandbox {self.name}.", hint="See those there are: corral ps -a"
            ) from None
        except (OSError, ValueError) as error:
            raise HostError(
                f"{self.folder / _REQUEST} cannot be read: {error}.",
                hint=f"Start it anew from its folder: corral up {self.name}",
            ) from error

    def write_request(self, request: Request) -> None:
        """Keep what is asked for. Raises HostError."""
        with _disk(self.folder):
            write_atomically(self.folder / _REQUEST, encode(request), mode=0o600)

    def written_status(self) -> Status:
        """What was last written of it, which a dead keeper did not do. Raises HostError."""
        path = self.folder / _STATUS
        try:
            return decode(path.read_bytes(), Status)
        except FileNotFoundError:
            return _NEVER
        except (OSError, ValueError) as error:
            raise HostError(
                f"{path} cannot be read: {error}.",
                hint=f"Remove the sandbox: corral rm -f {self.name}",
            ) from error

    def write_status(self, status: Status) -> None:
        """Keep what became of it. Raises HostError."""
        with _disk(self.folder):
            write_atomically(self.folder / _STATUS, encode(status), mode=0o600)

    def status(self) -> Status:
        """What has become of it; of a keeper that died, what that means. Raises HostError."""
        kept = self.is_kept()  # first: what it writes last, it writes with the lock
        status = self.written_status()
        if kept and status.state not in ALIVE:  # it has just begun, or is just gone
            return Status(state="starting", since=time.time()) if self.is_kept() else status
        if kept or status.state not in ALIVE:
            return status
        return Status(
            state="failed",
            since=status.since,
            started=status.started,
            run_folder=status.run_folder,
            problem=self._how_it_died(status),
        )

    def _how_it_died(self, status: Status) -> Problem:
        if status.boot != boot_id():
            message = f"this machine went down while the sandbox {self.name} was {status.state}."
        else:
            message = (
                f"the keeper of {self.name} (process {status.keeper}) was killed while the sandbox "
                f"was {status.state}; its machine ended with it."
            )
        return Problem(
            kind="SandboxGoneError",
            message=message,
            hint=f"Start it again: corral start {self.name}",
            detail=self._last_words(),
        )

    def _last_words(self) -> str | None:
        with contextlib.suppress(OSError):
            text = (self.folder / "keeper.log").read_text(errors="replace")
            return "\n".join(printable(line) for line in text.splitlines()[-SHOWN_LINES:]) or None
        return None

    def settle(self) -> None:
        """Write down how a keeper died, and remove its run folder; under `changing`."""
        status = self.status()
        if status.state in ALIVE:
            return
        if status.run_folder:
            folder = Path(status.run_folder)
            if folder.parent == run_root():
                shutil.rmtree(folder, ignore_errors=True)
        if status != self.written_status():
            self.write_status(status)

    # Locks

    @contextlib.contextmanager
    def changing(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock of those who start or remove it, made if there is none.

        waiting: called once when another command has it. Raises HostError.
        """
        with _disk(self.folder):
            descriptor = self._lock_to_change(waiting)
        try:
            yield
        finally:
            try:
                if self._is_lock(descriptor) and not self.exists():  # nothing came of it
                    self._clear_away()
            finally:
                os.close(descriptor)

    def _lock_to_change(self, waiting: Callable[[], None] | None) -> int:
        path = self.folder / _CHANGE
        while True:
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # removed in between
                continue
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if waiting is not None:
                        waiting()
                        waiting = None
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._is_lock(descriptor):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # whoever had it has removed the sandbox

    def _is_lock(self, descriptor: int) -> bool:
        """Whether this is still the lock that others find."""
        try:
            return os.path.samestat(os.fstat(descriptor), (self.folder / _CHANGE).stat())
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Hold the keeper's lock; to be begun under `changing`. Raises SandboxStateError."""
        if self.is_kept():
            raise SandboxStateError(
                f"the sandbox {self.name} has a keeper already.",
                hint=f"Stop it first: corral stop {self.name}",
            )
        with _disk(self.folder):
            path = self.folder / _KEEPER
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Somebody who looks whether it is free may have it for a few microseconds.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def is_kept(self) -> bool:
        """Whether its keeper lives."""
        return not self._when_free(fcntl.LOCK_SH | fcntl.LOCK_NB)

    def wait_until_left(self) -> None:
        """Wait until there is no keeper any more, as long as that takes."""
        self._when_free(fcntl.LOCK_SH)

    def _when_free(self, operation: int, lock: str = _KEEPER) -> bool:
        try:
            descriptor = os.open(self.folder / lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def unless_changing(self) -> Iterator[bool]:
        """`changing` when that is free; False, at once, when another command has it."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self.changing(_give_up))
            except _BusyError:
                yield False
            else:
                yield True

    def is_changing(self) -> bool:
        """Whether a command is about to start or remove it."""
        return not self._when_free(fcntl.LOCK_SH | fcntl.LOCK_NB, _CHANGE)

    # The end

    def remove(self) -> None:
        """Remove everything of it; under `changing`, and without a keeper. Raises HostError."""
        self.settle()
        with _disk(self.folder):
            (self.folder / _REQUEST).unlink(missing_ok=True)  # from here on it does not exist
            remove_logs(self.name)
        self._clear_away()

    def _clear_away(self) -> None:
        """Remove the folder, lock and all; whoever waits for the lock makes a new one."""
        with _disk(self.folder):
            _put_away(self.folder)

    def drop(self, name: str) -> None:
        """Remove a folder in it that nothing uses any more, if it is there; under `changing`."""
        with _disk(self.folder):
            _put_away(self.folder / name)

    def end_keeper(self, number: signal.Signals = signal.SIGTERM) -> bool:
        """Send the keeper a signal, for when it does not listen; False when there is none."""
        pid = self.written_status().keeper
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid) if pid else -1
            if pidfd < 0:
                return False
            try:
                # Asked once we have the process fast: as long as the lock is held, it is the one.
                if self.is_kept() and self.written_status().keeper == pid:
                    signal.pidfd_send_signal(pidfd, number)
                    return True
            finally:
                os.close(pidfd)
        return False


def remove_gone() -> None:
    """Remove what commands left that were killed while they removed a sandbox. Raises OSError."""
    for folder in left_gone():
        try:
            remove_tree(folder)
        except FileNotFoundError:  # several may be at it
            continue
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # somebody was about to write there: the next time
                raise


def left_gone() -> list[Path]:
    """What is being removed, or was when a command was killed."""
    return sorted(root().glob(f"{_GONE}*"))


def _put_away(folder: Path) -> None:
    """Remove a folder, under another name: somebody else may make it anew at any time."""
    with contextlib.suppress(FileNotFoundError):
        folder.rename(root() / f"{_GONE}{secrets.token_hex(4)}")
        remove_gone()


def boot_id() -> str:
    """What tells this boot of the host from any other (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class _BusyError(Exception):
    """Another command has the lock."""


def _give_up() -> None:
    raise _BusyError


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """An OSError in the block is one of the state folder's."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"the state in {folder} cannot be used: {error.strerror}.",
            hint="Free some space there, or set CORRAL_STATE_DIR to a folder that you can write.",
        ) from error
