"""tmux, by libtmux: the session of one sandbox, made and ended."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from .. import extras
from ..errors import HostError, MissingProgramError, UsageError
from ..host.packages import how_to_install
from ..host.platform import find_os_release
from ..host.system import System, sound_path
from ..keeper.store import Record
from ..terminals import tmux
from . import terminal
from .keeping import talk

if TYPE_CHECKING:
    import libtmux

_SIZE = 200, 50  # columns and rows until somebody attaches
_CONFIGURATION = "tmux.conf"  # in the record's folder
# -P: not the current folder, which is a project, on the path of modules.
_CORRAL = (sys.executable, "-P", "-m", "corral")
_NOT_INSTALLED = "the package libtmux, which drives tmux, is not installed."


def open_all(name: str) -> None:
    """Make the session, unless it is there. Raises CorralError."""
    record = Record.find(name)
    agents = [each.number for each in talk(name, lambda kept: kept.agents())]
    program = _tmux()
    with _errors():
        server = _server(record)
        if server.is_alive():
            return
        configuration = record.folder / _CONFIGURATION
        configuration.write_text(tmux.configuration(name, _CORRAL))
        configuration.chmod(0o600)
        first, *others = tmux.windows(name, agents, _CORRAL, program)
        session = server.new_session(
            session_name=name,
            window_name=first.name,
            window_command=first.panes[0].command,
            start_directory="/",
            x=_SIZE[0],
            y=_SIZE[1],
        )
        _fill(session.active_window, first)
        for window in others:
            made = session.new_window(
                window_name=window.name,
                window_shell=window.panes[0].command,
                start_directory="/",
                attach=False,
            )
            _fill(made, window)


def _fill(made: libtmux.Window, window: tmux.Window) -> None:
    """The further panes of a window that has its first."""
    shown = made.active_pane
    assert shown is not None
    shown.cmd("set-option", "-p", "@corral", window.panes[0].title)
    for pane in window.panes[1:]:
        shown = shown.split(shell=pane.command, start_directory="/", attach=False)
        shown.cmd("set-option", "-p", "@corral", pane.title)
        made.select_layout("tiled")  # else there is no room for the next


def attach(name: str) -> NoReturn:
    """Become tmux's client. Raises UsageError without a terminal."""
    if not (os.isatty(terminal.STDIN) and os.isatty(terminal.STDOUT)):
        raise UsageError("tmux needs a terminal.", hint="Without one: --detach, --capture.")
    program = _tmux()
    # In a tmux of the user's: this is another server, so nothing is nested in itself.
    variables = {key: value for key, value in os.environ.items() if key != "TMUX"}
    argv = [program, "-L", tmux.socket_name(name), "attach-session", "-t", f"={name}"]
    os.execve(program, argv, variables)


def kill(name: str) -> bool:
    """End it; False when there is none."""
    record = Record.find(name)
    _tmux()
    with _errors():
        server = _server(record)
        if not server.is_alive():
            return False
        server.kill()
    return True


def _server(record: Record) -> libtmux.Server:
    try:
        import libtmux
    except ImportError as error:
        raise HostError(_NOT_INSTALLED, hint=extras.install("tmux")) from error
    return libtmux.Server(
        socket_name=tmux.socket_name(record.name),
        config_file=str(record.folder / _CONFIGURATION),
    )


def _tmux() -> str:
    found = System().which("tmux")
    if found is None:
        release = find_os_release(System())
        raise MissingProgramError(
            "tmux, which shows agents side by side, is not installed.",
            hint=how_to_install(("tmux",), release, os.uname().machine),
        )
    return found


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """What libtmux raises, as an error of ours."""
    try:
        with sound_path():  # it looks for tmux by itself
            yield
    except OSError as error:
        raise HostError(f"tmux cannot be used: {error}.") from error
    except Exception as error:
        if not type(error).__module__.startswith("libtmux"):
            raise
        raise HostError(
            f"tmux failed: {error or type(error).__name__}.",
            hint="corral tmux needs tmux 3.2a or later (tmux -V).",
        ) from error
