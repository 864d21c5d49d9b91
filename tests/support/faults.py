"""Ways to make a run of corral fail, and to see what it does then."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import marshal
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from corral.images import BaseImage, cpio
from corral.sandbox import Parts
from tests.support import leftovers

PATIENCE = 60.0  # seconds for whatever must come; a machine that tests is busy
_SMALL = {"CORRAL_CPUS": "1", "CORRAL_MEMORY": "512MiB"}


class Run:
    """One `corral run --json` in a session of its own; its events and its complaints."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        *,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        as_json: bool = True,
    ) -> None:
        self._stderr = folder.parent / f"stderr-{time.monotonic_ns()}"
        arguments = ["run", *(["--json"] if as_json else []), *options, "--", *command]
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "corral", *arguments],
                cwd=folder,
                env={**_SMALL, **os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self.events: list[dict[str, object]] = []

    def until(self, event: str, **fields: object) -> dict[str, object]:
        """Read events until one of this kind with these fields."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found: dict[str, object] = json.loads(line)
            self.events.append(found)
            if found["event"] == event and all(found.get(k) == v for k, v in fields.items()):
                return found
        raise AssertionError(f"no {event} came: {self.events}\n{self.stderr}")

    def end(self) -> int:
        """Wait for its end; returns the exit status (negative: the signal)."""
        assert self.process.stdout is not None
        with contextlib.suppress(AssertionError):
            self.until("never")
        status = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return status

    def end_plainly(self) -> int:
        """As `end`, of a run that prints no events."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        assert output == b"", output
        return self.process.returncode

    def failed(self) -> dict[str, object]:
        """Wait for its end, which must be one clear error of corral's; returns that event."""
        status = self.end()
        assert status == 125, (status, self.events, self.stderr)
        assert "Traceback" not in self.stderr and "never retrieved" not in self.stderr, self.stderr
        (found,) = [event for event in self.events if event["event"] == "failed"]
        assert found["hint"], found
        return found

    @property
    def stderr(self) -> str:
        """What it has written there."""
        return self._stderr.read_text(errors="replace")

    def helper(self, program: str, *, wrapper: bool = False) -> psutil.Process:
        """The helper process that is `program`, once there is one.

        wrapper: the outermost bubblewrap around it instead.
        """
        limit = time.monotonic() + PATIENCE
        while time.monotonic() < limit and self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    argv = process.cmdline()
                    if not any(program in word for word in argv):
                        continue
                    if ("bwrap" in Path(argv[0]).name) == wrapper:
                        return process
            time.sleep(0.005)  # nothing tells of a process of others that starts
        raise AssertionError(f"no {program} came: {self.events}\n{self.stderr}")

    def signal_all(self, number: signal.Signals) -> None:
        """To its whole process group, as a terminal or an impatient parent does."""
        os.killpg(self.process.pid, number)


def build_template(folder: Path) -> None:
    """Have the machine that a `Run` restores saved, or one that is to be killed would do it first.

    Another test may just have had it removed, as a restore that fails does.
    """
    argv = [sys.executable, "-m", "corral", "template", "build"]
    subprocess.run(argv, cwd=folder, env={**_SMALL, **os.environ}, check=True, timeout=180)


@contextlib.contextmanager
def running(
    folder: Path, *command: str, options: Sequence[str] = (), wait: bool = True, **further: object
) -> Iterator[Run]:
    """A run of `command`; with `wait`, it is there. At the end nothing of it may be left."""
    run = Run(folder, command, options=options, **further)  # type: ignore[arg-type]
    try:
        if wait:
            run.until("started")
        yield run
    finally:
        if run.process.poll() is None:
            run.signal_all(signal.SIGKILL)
        run.process.wait()
        assert run.process.stdout is not None
        run.process.stdout.close()
    assert_nothing_left()


def assert_nothing_left() -> None:
    """No process, no run folder, no RAM file and no mount, within bounded time."""
    assert leftovers.wait_until_gone(15) == []
    left = {kind: found for kind, found in leftovers.everything().items() if found}
    assert not left, f"left behind: {left}"


def with_init(parts: Parts, code: str, folder: Path) -> Parts:
    """Parts whose guest runs `code` as PID 1 in place of the supervisor.

    A second archive follows the base image in a file in `folder`; the kernel unpacks one over the
    other. Made by the interpreter that is in the image, which is the one that runs this.
    """
    compiled = compile(code, "init.py", "exec", optimize=2)
    header = importlib.util.MAGIC_NUMBER + b"\0" * 12  # PEP 552, with nothing to check against
    init = cpio.file(header + marshal.dumps(compiled))
    image = folder / "base.cpio"
    with image.open("wb") as file:
        file.write(parts.base.path.read_bytes())
        file.writelines(cpio.archive({"/corral/init.pyc": init}))
    return dataclasses.replace(parts, base=BaseImage(image, "test"))
