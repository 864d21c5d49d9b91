"""Every error that corral raises, in one shallow tree.

    CorralError                    exit status 125, unless the class says otherwise
    ├── UsageError                 what the user typed cannot be meant (exit status 2)
    ├── ConfigError                a configuration file or value is wrong
    │   └── UntrustedConfigError   a project's corral.toml widens access and is not trusted
    ├── HostError                  this machine lacks something; `corral doctor` explains
    │   └── MissingProgramError    a program is not installed
    ├── PlanError                  the spec cannot be met by this host (decided before starting)
    ├── ImageError                 guest kernel or base image cannot be had or built
    ├── FetchError                 a download failed
    ├── ProcessError               a helper process did not start or ended unexpectedly
    ├── ChannelError               the guest broke the protocol or closed the channel
    ├── GuestError                 the guest answered a call with an error; the channel goes on
    ├── StreamResetError           one byte stream was given up; the channel goes on
    ├── SandboxError               the sandbox failed as a whole
    │   ├── BootError              the guest did not come up (panic, hang, missing module)
    │   ├── CheckpointError        it cannot be saved, or what was saved cannot be used
    │   ├── SandboxGoneError       it ended while something was still running in it
    │   ├── UnknownSandboxError    no sandbox of that name is kept
    │   └── SandboxStateError      a kept sandbox is not in the state that this needs
    ├── ExecError                  the command could not be run
    │   ├── CommandNotFoundError   exit status 127
    │   ├── NotExecutableError     exit status 126
    │   ├── ExecTimeoutError       exit status 124
    │   └── CommandFailedError     it ran, failed, and was not to (exit status 1)
    ├── FileError                  a file of the sandbox, or one to copy, could not be used
    │   ├── FileMissingError       there is none
    │   ├── FileDeniedError        it may not be read or written
    │   ├── FileExistsHereError    there is one already
    │   ├── IsFolderError          it is a folder
    │   └── NotFolderError         it is none
    ├── ReviewError                changes cannot be held back, shown or applied
    ├── TaskError                  a task is none, or there is no such task
    ├── PortError                  a port of this machine cannot be published
    └── UnsafeArchiveError         what a sandbox sent as its files would be unsafe here

A message says what happened and, where it helps, what was tried; `hint` says what to do next.
Only the CLI prints and exits.
"""

from __future__ import annotations


class CorralError(Exception):
    """Base of all errors that a user can meet.

    message: one or a few plain sentences. hint: the next step, or None. detail: longer evidence
    such as the last lines of a log, shown below the message, or None.
    """

    exit_status = 125

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class UsageError(CorralError):
    """What was typed cannot be meant."""

    exit_status = 2


class ConfigError(CorralError):
    """A configuration file, variable or option has a wrong key or value."""


class UntrustedConfigError(ConfigError):
    """A project's corral.toml asks for more than the defaults and was not accepted."""


class HostError(CorralError):
    """This machine lacks something."""


class MissingProgramError(HostError):
    """A program is not installed."""


class PlanError(CorralError):
    """What is wanted cannot be given on this host."""


class ImageError(CorralError):
    """The guest's kernel or base image cannot be had or built."""


class FetchError(CorralError):
    """A download failed."""


class ProcessError(CorralError):
    """A helper process did not start, or ended when it should not have."""


class ChannelError(CorralError):
    """The guest broke the protocol, or the channel closed."""


class GuestError(CorralError):
    """The guest answered a call with an error. The channel goes on.

    code: a JSON-RPC error code, or an errno that the guest passes on. data: more from the guest,
    unchecked.
    """

    def __init__(self, message: str, *, code: int, data: dict[str, object]) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class StreamResetError(CorralError):
    """The guest, or this side, gave a stream up before its end. The channel goes on."""


class SandboxError(CorralError):
    """The sandbox failed as a whole."""


class CheckpointError(SandboxError):
    """The sandbox could not be saved, or what was saved cannot be used. It runs on, if it ran."""


class BootError(SandboxError):
    """The guest did not come up."""


class SandboxGoneError(SandboxError):
    """The sandbox ended while something was still running in it."""


class UnknownSandboxError(SandboxError):
    """No sandbox of that name is kept."""


class SandboxStateError(SandboxError):
    """A kept sandbox is stopped, paused, running or another's, and this needs it otherwise."""


class ExecError(CorralError):
    """The command could not be run in the sandbox."""


class CommandNotFoundError(ExecError):
    """No such command in the sandbox."""

    exit_status = 127


class NotExecutableError(ExecError):
    """The command exists and cannot be executed."""

    exit_status = 126


class ExecTimeoutError(ExecError):
    """The command ran longer than its time limit.

    stdout, stderr: what it had written, where that was kept.
    """

    exit_status = 124

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        detail: str | None = None,
        stdout: bytes = b"",
        stderr: bytes = b"",
    ) -> None:
        super().__init__(message, hint=hint, detail=detail)
        self.stdout = stdout
        self.stderr = stderr


class CommandFailedError(ExecError):
    """A command that was to succeed ended with another status.

    status: its exit status. stdout, stderr: what it wrote.
    """

    exit_status = 1

    def __init__(
        self, message: str, *, status: int, stdout: bytes, stderr: bytes, detail: str | None = None
    ) -> None:
        super().__init__(message, detail=detail)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr


class FileError(CorralError):
    """A file could not be read, written, listed or copied.

    number: the errno, 0 when there is none. path: which file. The message says on which side.
    """

    def __init__(
        self, message: str, *, number: int = 0, path: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.number = number
        self.path = path


class FileMissingError(FileError):
    """There is no such file or folder."""


class FileDeniedError(FileError):
    """The file may not be read or written, or lies where nothing can be written."""


class FileExistsHereError(FileError):
    """There is such a file or folder already."""


class IsFolderError(FileError):
    """A folder, where a file is needed."""


class NotFolderError(FileError):
    """No folder, where one is needed."""


class ReviewError(CorralError):
    """Changes of a sandbox under review cannot be held back, shown or applied."""


class TaskError(CorralError):
    """What was given to an agent is no task, cannot be taken, or is not known."""


class PortError(CorralError):
    """A port of this machine cannot be published, or is not."""


class UnsafeArchiveError(CorralError):
    """Files from a sandbox that would do harm here: nothing of them was put in place."""
