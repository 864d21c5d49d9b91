"""What an error of a sandbox is told with: the guest's last words, and what they mean."""

from __future__ import annotations

from ..errors import BootError, CorralError, SandboxGoneError

CONSOLE_LINES = 120  # a panic's first line is that far up
_SHOWN_LINES = 16
SUPERVISOR = "corral-guest: "  # how the guest's PID 1 begins its one line when it fails
DEBUG_HINT = "Run it again with --debug: it keeps the logs and prints where."
_MEMORY_HINT = "Give the sandbox more memory (--memory)."

# What the console says -> what happened, and the next step. Looked for in this order; the first
# three are the kernel's (kernel/panic.c, kernel/exit.c, mm/oom_kill.c, init/main.c).
_MEANINGS = (
    ("System is deadlocked on memory", "the guest ran out of memory.", _MEMORY_HINT),
    ("Out of memory and no killable", "the guest ran out of memory.", _MEMORY_HINT),
    ("Attempted to kill init", "the guest's first process was killed or failed.", None),
    ("Kernel panic", "the guest's kernel panicked.", None),
)

_ENDS = (  # kernel/reboot.c
    ("reboot: Power down", "the guest switched itself off."),
    ("reboot: Restarting system", "the guest restarted itself, which ends it."),
    ("sysrq: Resetting", "the guest restarted itself, which ends it."),  # drivers/tty/sysrq.c
)


def explained(
    error: CorralError, console: str, *, up: bool, next_step: str | None = DEBUG_HINT
) -> CorralError:
    """`error` with what the console shows. up: the guest had come up before.

    next_step: the hint where there is no better one. An error of the start becomes a BootError.
    """
    message, hint = error.message, error.hint
    if isinstance(error, SandboxGoneError):
        message, hint = _meaning(console) or (message, hint)
    hint = hint or next_step
    detail = "\n".join(part for part in (error.detail, _shown(console)) if part) or None
    if up:
        return type(error)(message, hint=hint, detail=detail)
    if not isinstance(error, BootError):
        message = f"the guest did not come up: {message}"
    return BootError(message, hint=hint, detail=detail)


def _shown(console: str) -> str:
    """Its end; of a panic without the registers and the stack that follow it."""
    lines = console.splitlines()
    panic = next((n for n, line in enumerate(lines) if "Kernel panic" in line), len(lines))
    return "\n".join(lines[: panic + 1][-_SHOWN_LINES:])


def _meaning(console: str) -> tuple[str, str | None] | None:
    for mark, message, hint in _MEANINGS:
        if mark in console:
            return message, hint
    for line in console.splitlines():
        _, found, said = line.partition(SUPERVISOR)
        if found:
            return f"the guest's supervisor failed: {said.rstrip('.')}.", None
    for mark, message in _ENDS:
        if mark in console:
            return message, None
    return None
