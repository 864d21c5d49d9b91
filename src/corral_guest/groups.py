"""The control groups of an agent's commands: one each, so that all a command began can be ended.

A process cannot leave its command's group: no control group file system is in sight of a jail. So
`kill` reaches what has forked twice and left its session, too. A group that is empty is removed;
one in which something runs on after its command has ended stays until that ends.

These groups have no controllers: what they use is accounted to the agent's group, in which the
jail's own processes are (cgroup-v2.rst, "No Internal Process Constraint").
"""

from __future__ import annotations

import errno
import os
import select

from . import boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

MAX_GROUPS = 1024  # of one agent; those included in which only something left behind runs on


class _Group:
    """One. events: a descriptor of cgroup.events while its end is waited for, or -1.

    doomed: to be killed as soon as its command has started. then: called when it is gone.
    """

    __slots__ = ("doomed", "events", "path", "then")

    def __init__(self, path: str) -> None:
        self.path = path
        self.events = -1
        self.doomed = False
        self.then: list[Callable[[], object]] = []


class Groups:
    """Those of one agent, by the host's number of each command. folder: the agent's own group."""

    def __init__(self, loop: Loop, folder: str) -> None:
        self._loop = loop
        self._folder = folder
        self._groups: dict[int, _Group] = {}

    @property
    def last(self) -> int:
        """The highest number in use; 0 when there is none."""
        return max(self._groups, default=0)

    def __contains__(self, number: object) -> bool:
        return number in self._groups

    def make(self, number: int) -> int:
        """Make one; returns a descriptor of its cgroup.procs, which the caller closes.

        The kernel judges a write to it by who opened it, so a jail may write itself into it.
        Raises OSError, with EAGAIN when commands have left too many behind.
        """
        if len(self._groups) >= MAX_GROUPS:
            raise OSError(errno.EAGAIN, "too many commands have left processes behind")
        path = f"{self._folder}/exec-{number}"
        _make(path)
        self._groups[number] = _Group(path)
        return os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def started(self, number: int) -> None:
        """Its command runs: nothing of ours is in the group any more."""
        group = self._groups.get(number)
        if group is not None and group.doomed:
            self._kill(number, group)

    def over(self, number: int) -> None:
        """Its command runs no more, or never did: the group goes when nothing is left in it."""
        group = self._groups.get(number)
        if group is not None:
            self._settle(number, group)

    def end(self, number: int, then: Callable[[], object], *, begun: bool) -> None:
        """Kill all that is in it; `then` is called when all of it is gone: at once, if it is.

        begun: its command has started. Before that, the process that starts it may be in the group.
        """
        group = self._groups.get(number)
        if group is None:
            then()
            return
        group.then.append(then)
        if begun:
            self._kill(number, group)
        else:
            group.doomed = True

    def close(self) -> None:
        """The agent is gone, and everything in these groups: who waits for that is told."""
        for group in self._groups.values():
            self._forget(group)
        self._groups.clear()

    def _kill(self, number: int, group: _Group) -> None:
        boot.write(f"{group.path}/cgroup.kill", "1")
        self._settle(number, group)

    def _settle(self, number: int, group: _Group) -> None:
        """Remove it if it is empty; else when it becomes so, which cgroup.events tells."""
        while not _removed(group.path):
            if group.events < 0:
                group.events = os.open(f"{group.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
                self._loop.watch(
                    group.events, select.EPOLLPRI, lambda _events: self._settle(number, group)
                )
            # Reading says that we have seen it: what changes from now on is told.
            if b"populated 0" not in os.pread(group.events, 4096, 0):
                return
        if self._groups.get(number) is group:
            del self._groups[number]
        self._forget(group)

    def _forget(self, group: _Group) -> None:
        if group.events >= 0:
            self._loop.forget(group.events)
            os.close(group.events)
            group.events = -1
        waiting, group.then = group.then, []
        for then in waiting:
            then()


def _make(path: str) -> None:
    os.mkdir(path, 0o755)


def _removed(path: str) -> bool:
    """Whether the group is gone; a populated one cannot be removed."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
