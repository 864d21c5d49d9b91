"""The tmux session of a sandbox: its windows, and a configuration that tmux understands."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from corral.terminals import tmux

CORRAL = ("/opt/my $HOME \"x'/python", "-P", "-m", "corral")


def test_each_agent_has_a_pane_and_log_and_console_a_window() -> None:
    agents, log, console = tmux.windows("herd", (1, 2, 12), CORRAL, "/usr/bin/tmux")
    assert [pane.title for pane in agents.panes] == ["agent 1", "agent 2", "agent 12"]
    assert shlex.split(agents.panes[2].command) == [*CORRAL, "attach", "herd", "--agent", "12"]
    assert shlex.split(console.panes[0].command) == [*CORRAL, "logs", "herd", "--console", "-f"]
    assert shlex.split(log.panes[0].command) == [
        *(*CORRAL, "logs", "herd", "-f;", "[", "$?", "-eq", "130", "]", "||"),
        *("/usr/bin/tmux", "-L", "corral-herd", "kill-server"),
    ]


def test_every_key_is_said_in_the_status_line() -> None:
    text = tmux.configuration("herd", CORRAL)
    [line] = [line for line in text.splitlines() if " status-right " in line]
    assert all(key in line and what in line for key, what in tmux.KEYS)


def test_tmux_understands_it_whatever_the_path_of_python(tmp_path: Path) -> None:
    """A server without a session, asked for what it has understood."""
    file = tmp_path / "tmux.conf"
    file.write_text(tmux.configuration("herd", CORRAL))
    base = ("tmux", "-L", f"corral-unit-{os.getpid()}", "-f", str(file))
    show = ("show-options", "-gv", "default-command", ";", "show-options", "-gv", "set-clipboard")
    keys = (";", "list-keys", "-T", "prefix", "c")
    said = subprocess.run(
        [*base, "start-server", ";", *show, *keys, ";", "kill-server"],
        env={**os.environ, "TMUX_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert said.returncode == 0 and not said.stderr, said
    command, clipboard, key = said.stdout.splitlines()
    assert shlex.split(command) == [*CORRAL, "shell", "herd"]
    assert clipboard == "off"
    assert "new-window" in key and "shell herd" in key
