"""One sandbox of every kind that the registry of backends has, through the SDK."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral import Sandbox, Spec
from corral.backends import BACKENDS, Variant
from corral.host import measure

KINDS = {f"{backend.name}-{each.name}": each for backend in BACKENDS for each in backend.variants}
SECRET = "CORRAL_CONFORMANCE_SECRET"


@dataclass(frozen=True)
class Place:
    """A running sandbox and what it was given of this machine."""

    box: Sandbox
    workspace: Path
    read_only: Path
    beside: Path


LEFT_OUT = [
    name
    for name, each in KINDS.items()
    if each.settings["machine.accel"] == "kvm" and measure().kvm.state != "works"
]


@pytest.fixture(scope="module", params=[name for name in KINDS if name not in LEFT_OUT])
def kind(request: pytest.FixtureRequest) -> Variant:
    """Each kind in turn; test_life.py tells which are left out."""
    return KINDS[request.param]


@pytest.fixture(scope="module")
def spec(kind: Variant) -> Spec:
    """A small machine of that kind."""
    return Spec(memory="768MiB", cpus=1, settings=kind.settings)


@pytest.fixture(scope="module")
def place(
    spec: Spec, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Place]:
    """One sandbox for all tests of a module."""
    base = tmp_path_factory.mktemp("place")
    workspace, read_only, beside = (base / name for name in ("work", "read-only", "beside"))
    for folder in (workspace, read_only, beside):
        folder.mkdir()
        (folder / "here").write_text("of the host\n")
    (workspace / ".env").write_text("PASSWORD=x\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET, "of the host")
        box = Sandbox(
            spec,
            workspace=workspace,
            shares=[str(read_only)],
            mask=[".env"],
            env={"GIVEN": "of the spec"},
        )
        with box:
            yield Place(box, workspace, read_only, beside)


@pytest.fixture
def box(place: Place) -> Sandbox:
    """The sandbox alone."""
    return place.box


@pytest.fixture
def sh(place: Place) -> Callable[[str], str]:
    """What a shell script prints, which must succeed."""
    return lambda script: place.box.exec(["sh", "-c", script], check=True, timeout=60).stdout
