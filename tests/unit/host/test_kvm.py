"""KVM is measured, not believed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from corral.host.kvm import KvmFinding, examine, judge, open_device

HALTED = 5  # KVM_EXIT_HLT


def test_a_loop_at_the_processors_speed_works() -> None:
    assert judge(HALTED, 20e-6, "/dev/kvm").state == "works"


def test_a_slow_loop_is_emulation() -> None:
    finding = judge(HALTED, 1.7e-3, "/dev/kvm")
    assert finding.state == "emulates"
    assert "1.7 ms" in finding.reason and "TCG" in finding.reason


def test_a_guest_that_does_not_halt_is_an_error() -> None:
    assert judge(17, 1e-6, "/dev/kvm").state == "error"  # KVM_EXIT_INTERNAL_ERROR


def test_no_device_is_absent(tmp_path: Path) -> None:
    assert examine(str(tmp_path / "kvm"), "x86_64").state == "absent"


def test_another_device_is_an_error() -> None:
    assert examine("/dev/null", "x86_64").state == "error"


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (errno.EACCES, "denied"),
        (errno.EPERM, "denied"),
        (errno.ENODEV, "absent"),
        (errno.EBUSY, "error"),
    ],
)
def test_why_the_device_does_not_open(
    monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.open", refuse)
    finding = open_device("/dev/kvm")
    assert isinstance(finding, KvmFinding) and finding.state == state


def test_this_machine_gets_an_answer_with_no_descriptor_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    finding = examine("/dev/kvm", os.uname().machine)
    assert finding.reason
    assert len(list(Path("/proc/self/fd").iterdir())) == before
