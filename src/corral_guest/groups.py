"""The control groups of an agent's commands: one each, so that all a command began can be ended.

A process cannot leave its command's group: no control group file system is in sight of a jail. So
`end` reaches what has forked twice and left its session, too. A group that is empty is removed;
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

# Of one agent; those included in which only something left behind runs on. Each holds a descriptor
# of the supervisor.
MAX_GROUPS = 256


class Group:
    """A control group that is to go when it is empty. then: called, each once, when it is gone.

    doomed: to be killed as soon as its command has started.
    """

    __slots__ = ("_events", "_loop", "doomed", "path", "then")

    def __init__(self, loop: Loop, path: str) -> None:
        self._loop = loop
        self.path = path
        self._events = -1
        self.doomed = False
        self.then: list[Callable[[], object]] = []

    def kill(self) -> None:
        """Kill all that is in it and below it, and let it go."""
        if os.path.isdir(self.path):  # else it went with its agent's
            boot.write(f"{self.path}/cgroup.kill", "1")
        self.settle()

    def settle(self) -> None:
        """Remove it if it is empty; else when it becomes so, which cgroup.events tells.

        What fails here must not end the supervisor: then the group stays, to go with its agent's.
        """
        try:
            self._settle()
        except OSError as error:
            os.write(1, f"corral-guest: {self.path}: {error.strerror}\n".encode())

    def _settle(self) -> None:
        while not _removed(self.path):
            if self._events < 0:
                self._events = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
                self._loop.watch(self._events, select.EPOLLPRI, lambda _events: self.settle())
            # Reading says that we have seen it: what changes from now on is told.
            if b"populated 0" not in os.pread(self._events, 4096, 0):
                return
            for each in os.scandir(self.path):
                if each.is_dir():
                    os.rmdir(each)
        self.forget()

    def forget(self) -> None:
        """It is gone, or will go with the agent's: who waits for that is told."""
        if self._events >= 0:
            self._loop.forget(self._events)
            os.close(self._events)
            self._events = -1
        waiting, self.then = self.then, []
        for then in waiting:
            then()


class Groups:
    """Those of one agent, by the host's number of each command. folder: the agent's own group."""

    def __init__(self, loop: Loop, folder: str) -> None:
        self._loop = loop
        self._folder = folder
        self._groups: dict[int, Group] = {}

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
        group = Group(self._loop, f"{self._folder}/exec-{number}")
        _make(group.path)
        self._groups[number] = group
        group.then.append(lambda: self._groups.pop(number, None))
        return os.open(f"{group.path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def started(self, number: int) -> None:
        """Its command runs: nothing of ours is in the group any more."""
        group = self._groups.get(number)
        if group is not None and group.doomed:
            group.kill()

    def over(self, number: int) -> None:
        """Its command runs no more, or never did: the group goes when nothing is left in it."""
        group = self._groups.get(number)
        if group is not None:
            group.settle()

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
            group.kill()
        else:
            group.doomed = True

    def close(self) -> None:
        """The agent is gone, and everything in these groups: who waits for that is told."""
        for group in list(self._groups.values()):
            group.forget()


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
