"""A tmux session for a sandbox, as text: its configuration, its windows, what runs in them.

tmux(1) is the source of options and of quoting. It runs with a socket and a configuration of its
own, so that the user's tmux is not touched and theirs does not change this one.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

# What a person presses, and what it does: the status line says it.
KEYS = (
    ("C-b d", "leave"),
    ("C-b n", "next window"),
    ("C-b o", "next pane"),
    ("C-b z", "zoom"),
    ("C-b R", "again"),
    ("C-b [", "scroll"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Pane:
    """One pane. title: on its border. command: for sh."""

    title: str
    command: str


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """One window, with its panes side by side."""

    name: str
    panes: tuple[Pane, ...]


def socket_name(sandbox: str) -> str:
    """For tmux -L."""
    return f"corral-{sandbox}"


def windows(
    sandbox: str, agents: Sequence[int], corral: Sequence[str], tmux: str
) -> tuple[Window, ...]:
    """A pane an agent, attached to its session; the log of events; the console.

    corral: what starts corral. When the sandbox has ended, so has its log, and tmux with that.
    """

    def run(*arguments: str) -> str:
        return shlex.join((*corral, *arguments))

    # 130: somebody pressed Ctrl-C there.
    followed = f"{run('logs', sandbox, '-f')}; [ $? -eq 130 ]"
    end = shlex.join((tmux, "-L", socket_name(sandbox), "kill-server"))
    attached = [
        Pane(f"agent {number}", run("attach", sandbox, "--agent", str(number))) for number in agents
    ]
    return (
        Window("agents", tuple(attached)),
        Window("log", (Pane("events", f"{followed} || {end}"),)),
        Window("console", (Pane("console", run("logs", sandbox, "--console", "-f")),)),
    )


def configuration(sandbox: str, corral: Sequence[str]) -> str:
    """The file for tmux -f. A new window is a shell in the sandbox, never one of the host."""
    shell = shlex.join((*corral, "shell", sandbox))
    keys = "  ".join(f"{key} {what}" for key, what in KEYS)
    options = {
        "default-command": shell,
        "default-terminal": "screen-256color",  # which every system's terminfo has
        "history-limit": "5000",
        "mouse": "on",
        "remain-on-exit": "on",
        # Nothing that is shown sets the clipboard, a title or a name, or speaks to the terminal.
        "set-clipboard": "off",
        "allow-passthrough": "off",
        "set-titles": "off",
        "allow-rename": "off",
        "automatic-rename": "off",
        "allow-set-title": "off",
        "pane-border-status": "top",
        "pane-border-format": " #{pane_index}: #{@corral} #{?pane_dead,(ended; C-b R again),} ",
        "status-left": f" {sandbox} ",
        "status-left-length": "70",
        "status-right": f" {keys} ",
        "status-right-length": "120",
    }
    lines = [f"set-option -gq {name} {quoted(value)}" for name, value in options.items()]
    lines += [
        "set-option -sq escape-time 10",
        "bind-key R respawn-pane -k",
        f"bind-key c new-window {quoted(shell)}",
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A word of tmux's configuration: within these quotes \\ and $ and \" are special."""
    return '"' + "".join(f"\\{c}" if c in '\\"$' else c for c in text) + '"'
