"""What a program may rely on: names, documentation, one signature for both kinds, a fast import."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import corral
from corral import errors, sdk
from tests.support.imports import imported_with

PAIRS = [
    (sdk.AsyncSandbox, sdk.Sandbox),
    (sdk.AsyncProcess, sdk.Process),
    (sdk.AsyncLines, sdk.Lines),
    (sdk.Files, sdk.BlockingFiles),
    (sdk.Ports, sdk.BlockingPorts),
    (sdk.Review, sdk.BlockingReview),
]
PUBLIC = {
    sdk.AsyncSandbox: {
        *(
            "accel",
            "agent_states",
            "close",
            "connect",
            "exec",
            "files",
            "fork",
            "name",
            "spawn",
            "start",
            "stream",
        ),
        *("agents", "files_of", "ports", "review", "review_of", "task", "tasks", "workspace"),
    },
    sdk.AsyncProcess: {"close", "end", "resize", "signal", "status", "wait"},
    sdk.AsyncLines: {"batch", "close"},
    sdk.Review: {"apply", "changes", "diff", "undo"},
    sdk.Ports: {"add", "list", "remove"},
    sdk.Files: {
        *("download", "exists", "list", "mkdir", "pack", "read", "remove", "stat", "stream"),
        *("unpack", "unpack_from", "upload", "write"),
    },
}


def members(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")} - {"alive", "unstarted_fork"}


def test_the_package_offers_what_it_says() -> None:
    assert set(corral.__all__) == {"AsyncSandbox", "Result", "Sandbox", "Spec", "__version__"}
    for name in corral.__all__:
        assert getattr(corral, name) is not None
        assert name in dir(corral)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = corral.nonsense
    for name in sdk.__all__:
        assert inspect.getdoc(getattr(sdk, name))


def test_the_package_is_typed() -> None:
    assert (Path(corral.__file__).parent / "py.typed").is_file()


def test_importing_the_package_loads_next_to_nothing() -> None:
    """Below 100 ms, by what it takes: a bare interpreter has about as many modules."""
    loaded = imported_with("corral")
    assert not {name for name in loaded if name.startswith("corral.")}
    assert not loaded & {"asyncio", "msgspec", "logging", "socket", "click", "typing_extensions"}


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_each_class_has_the_methods_that_are_promised(kind: type) -> None:
    assert members(kind) == PUBLIC[kind]


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_both_kinds_have_the_same_methods_documented_alike(
    asynchronous: type, blocking: type
) -> None:
    for name in members(asynchronous):
        one, other = getattr(asynchronous, name), getattr(blocking, name)
        assert inspect.getdoc(other), name
        if not isinstance(one, property):
            assert inspect.signature(one).parameters == inspect.signature(other).parameters, name


def test_what_went_wrong_can_be_told_apart() -> None:
    """The four that the documentation names are not each other's."""
    kinds = (
        errors.CommandFailedError,
        errors.ExecTimeoutError,
        errors.SandboxGoneError,
        errors.HostError,
        errors.PlanError,
    )
    for kind in kinds:
        assert not any(issubclass(kind, other) for other in kinds if other is not kind)
