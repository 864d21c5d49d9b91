"""What an error of a sandbox says, from the first cause and the guest's last words."""

from __future__ import annotations

import pytest

from corral.errors import BootError, ChannelError, ProcessError, SandboxGoneError
from corral.sandbox.evidence import DEBUG_HINT, explained

QEMU_GONE = "the virtual machine is gone: QEMU ended with status 0."


@pytest.mark.parametrize(
    ("console", "message"),
    [
        ("Kernel panic - not syncing: sysrq triggered crash", "the guest's kernel panicked."),
        (
            "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009",
            "the guest's first process was killed or failed.",
        ),
        (
            "Kernel panic - not syncing: System is deadlocked on memory",
            "the guest ran out of memory.",
        ),
        (
            "corral-guest: OSError: [Errno 5] disk",
            "the guest's supervisor failed: OSError: [Errno 5] disk.",
        ),
        ("[    5.2] reboot: Power down", "the guest switched itself off."),
        ("[    5.2] sysrq: Resetting", "the guest restarted itself, which ends it."),
        ("a login prompt", QEMU_GONE),
    ],
)
def test_the_console_tells_why_a_machine_ended(console: str, message: str) -> None:
    told = explained(SandboxGoneError(QEMU_GONE), console, up=True)
    assert type(told) is SandboxGoneError
    assert told.message == message
    assert told.detail == console
    assert told.hint


def test_of_a_panic_what_led_to_it_is_shown_and_not_the_registers() -> None:
    before = [f"[ 1.{n}] line {n}" for n in range(40)]
    panic = "[ 2.0] Kernel panic - not syncing: sysrq triggered crash"
    console = "\n".join([*before, panic, "[ 2.1] RAX: 0", "[ 2.2] Call Trace:"])
    told = explained(SandboxGoneError(QEMU_GONE), console, up=True)
    assert told.detail is not None
    assert told.detail.splitlines()[-2:] == [before[-1], panic]
    assert len(told.detail.splitlines()) < 20


def test_an_error_of_the_start_is_a_boot_error() -> None:
    told = explained(ProcessError("QEMU ended with status 1.", detail="qemu: no"), "", up=False)
    assert type(told) is BootError
    assert told.message == "the guest did not come up: QEMU ended with status 1."
    assert told.detail == "qemu: no"


def test_a_timeout_keeps_its_own_message_and_hint() -> None:
    late = BootError("the guest was not up after 3 seconds.", hint="Wait.")
    told = explained(late, "Kernel panic", up=False)
    assert (told.message, told.hint) == (late.message, late.hint)


def test_what_broke_the_protocol_is_not_explained_away_by_the_console() -> None:
    told = explained(ChannelError("the guest broke the protocol."), "Kernel panic", up=True)
    assert type(told) is ChannelError
    assert told.message == "the guest broke the protocol."
    assert told.hint == DEBUG_HINT


def test_who_debugs_is_not_told_to() -> None:
    told = explained(ChannelError("it broke."), "", up=True, next_step=None)
    assert told.hint is None
