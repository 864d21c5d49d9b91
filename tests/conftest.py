"""Every test session has folders of its own, and ends with nothing left on the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from corral import paths
from tests.support import golden as golden_files
from tests.support import leftovers

# How long an example takes depends on how busy the host is.
hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

if TYPE_CHECKING:
    from corral.scripted import Models

Corral = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to test the code of another tree, as one virtual environment for several would."""
    tested, own = Path(paths.__file__).resolve(), (config.rootpath / "src").resolve()
    if not tested.is_relative_to(own):
        raise pytest.UsageError(f"{tested} would be tested, not {own}; set PYTHONPATH={own}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Further options of the command line."""
    golden_files.add_option(parser)


_NOT_IN_TIME = r"^(TimeoutError|subprocess.TimeoutExpired|Failed: Timeout)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of real machines a second try, which the summary shows as a rerun.

    What a machine does in time depends on how busy the host is. An attack has a second try only
    where the first was not over in time, never where it succeeded; tests without a machine have
    none.
    """
    for item in items:
        if item.path.parent.name == "security":
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=[_NOT_IN_TIME]))
        if item.path.parent.name in ("vm", "conformance"):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why a first try failed, of tests that had a second."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> golden_files.Golden:
    """golden("name", lines): lines are those of golden/name.txt beside the test's file."""
    folder = request.path.parent / "golden"
    regenerate = bool(request.config.getoption("--regenerate-golden"))
    return lambda name, lines: golden_files.check(
        folder / f"{name}.txt", lines, regenerate=regenerate
    )


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Configuration and run folders of this session; the cache is shared, being a cache."""
    base = tmp_path_factory.mktemp("corral")
    runtime = Path(f"/tmp/ct-{os.getpid()}")  # short: a socket's path has 107 bytes
    runtime.mkdir(mode=0o700)
    patch = pytest.MonkeyPatch()
    patch.setenv("CORRAL_STATE_DIR", str(base / "state"))  # until a module has one of its own
    patch.setenv("CORRAL_CONFIG_DIR", str(base / "config"))
    patch.setenv("XDG_RUNTIME_DIR", str(runtime))
    leftovers.adopt_orphans()
    # Whoever runs the tests in the background of a shell has them ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    leftovers.wait_until_gone(5)  # what was just ended may still be on its way out
    left = {kind: found for kind, found in leftovers.everything().items() if found}
    patch.undo()
    subprocess.run(["rm", "-rf", str(runtime)], check=True)
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="module", autouse=True)
def own_state(own_folders: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """State of this module: no test sees the sandboxes, reviews and records of another's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORRAL_STATE_DIR", str(tmp_path_factory.mktemp("corral") / "state"))
        yield


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty workspace."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder for sockets, whose paths have 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="ct-") as found:
        yield Path(found)


@pytest.fixture
async def models() -> AsyncIterator[Models]:
    """A server of models that follow a script."""
    from corral.scripted import Models

    async with Models() as found:
        yield found


@pytest.fixture
def corral(project: Path) -> Corral:
    """Run the command line on the project: corral("run", "--", "true", input=..., env=...)."""

    def call(
        *arguments: str,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        timeout: float = 90,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        environment = {"CORRAL_CPUS": "1", "CORRAL_MEMORY": "768MiB", **os.environ, **(env or {})}
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        finished: subprocess.CompletedProcess[str] = subprocess.run(
            [sys.executable, "-m", "corral", *arguments],
            cwd=cwd or project,
            env=environment,
            timeout=timeout,
            capture_output=True,
            text=True,
            **options,
        )
        return finished

    return call
