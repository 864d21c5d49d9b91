"""The keeper's process: `corral.keeper NAME [CHECKPOINT]`, started by `launch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import CorralError, SandboxGoneError
from ..proc.detached import CONTROL_FD, close_others
from .launch import Starter
from .life import keep
from .model import Problem
from .store import Record


def main(name: str, checkpoint: str | None = None) -> int:
    """Keep the sandbox until it ends; returns the exit status.

    checkpoint: the folder of one to go on from.
    """
    close_others()
    os.chdir("/")  # the folder it was started in may be removed, or its file system unmounted
    os.umask(0o077)
    starter = Starter(CONTROL_FD)
    try:
        record = Record.find(name)
        with record.keeping():
            keep(
                record,
                starter.report,
                ready=starter.ready,
                abandoned=CONTROL_FD,
                checkpoint=Path(checkpoint) if checkpoint else None,
            )
    except CorralError as error:
        starter.failed(Problem.of(error))
        return 1
    except BaseException as error:
        gone = SandboxGoneError(f"the keeper failed: {type(error).__name__}: {error}")
        starter.failed(Problem.of(gone))
        raise
    starter.failed(Problem.of(SandboxGoneError(f"the sandbox {name} was stopped meanwhile.")))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
