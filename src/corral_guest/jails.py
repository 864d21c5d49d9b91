"""All agents of this machine: their jails are made, heard, watched, and cleaned up when lost.

What a jail says is hostile: it is answered as one agent's, and never as more than that.
"""

from __future__ import annotations

import errno
import os
import signal
import time

from . import agent as agents
from . import apart, boot, freezer, vitals
from .agent import Agent
from .commands import Command, Commands
from .flows import MAX_PENDING, READ_SIZE
from .groups import Group
from .loop import READ
from .vitals import Vitals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .loop import Loop
    from .supervisor import Supervisor

MAX_ERRNO = 4096  # include/linux/err.h


class Jails:
    """By agent's number. host: the channel to the host, as it is at any time."""

    def __init__(self, loop: Loop, host: Supervisor) -> None:
        self._loop = loop
        self._host = host
        self._agents: dict[int, Agent] = {}
        self._vitals: dict[int, Vitals] = {}
        self._ending: dict[int, list[tuple[int, dict[str, Any]]]] = {}  # calls that wait for it
        self._frozen = False

    # Finding them

    def __iter__(self) -> Any:
        return iter(list(self._agents.values()))

    def get(self, number: int) -> Agent | None:
        """The agent of that number, if it has a jail."""
        return self._agents.get(number)

    def find(self, number: int) -> Agent:
        """The same. Raises OSError when it has none."""
        agent = self._agents.get(number)
        if agent is None:
            raise OSError(0, "the jail has ended")
        return agent

    # What the host asks for

    def make(self, request: int, params: dict[str, Any]) -> None:
        """Make an agent's jail, still without a tree; answered when it is there.

        Of an agent whose jail was lost, once nothing is left of that.
        """
        number = params["number"]
        if number in self._ending:
            self._ending[number].append((request, params))
            return
        if number in self._agents:
            raise OSError(errno.EEXIST, "the agent has a jail")
        agent = Agent(params, self._loop)
        try:
            agent.make()
        except OSError:
            agent.abandon()
            self._clear(agent)
            raise
        agent.call = request
        self.adopt(agent)

    def adopt(self, agent: Agent) -> None:
        """Listen to a jail."""
        assert agent.socket is not None
        agent.vitals = self._vitals.setdefault(agent.number, agent.vitals)
        agent.vitals.begin()
        self._agents[agent.number] = agent
        self._divide()
        self._loop.watch(agent.socket.fileno(), READ, lambda _events: self._heard(agent))

    def furnish(self, request: int, params: dict[str, Any], events: boot.DeviceEvents) -> None:
        """Give an agent's jail its tree; answered when commands can be started in it."""
        agent = self.find(params["number"])
        self._tell(agent.vitals)
        try:
            agent.furnish(params, events)
            # While the jail puts its tree in place: that is answered when we listen again.
            if params["network"] is not None:
                self._host.forwarder.begin(agent, params["network"])
        except BaseException:
            agent.kill()  # half of a jail is none
            raise
        agent.call = request

    def kill(self, number: int) -> None:
        """End every process of an agent."""
        agent = self._agents.get(number)
        if agent is not None:
            agent.killed = True
            agent.kill()

    def freeze(self) -> None:
        """Stop all of them. Raises OSError, with all going on, when one does not."""
        freezer.freeze([agent.cgroup for agent in self._agents.values()])
        self._frozen = True

    def thaw(self) -> None:
        """Let them go on, and tell the host, which may be another, how they are."""
        self._frozen = False
        freezer.thaw([agent.cgroup for agent in self._agents.values()])
        for each in self._vitals.values():
            each.stood(time.monotonic())
            if each.told:
                each.told = ""
                self._tell(each)

    def report(self) -> list[dict[str, Any]]:
        """How all agents are, the dead ones, too."""
        now = time.monotonic()
        return [
            each.report(f"{boot.CGROUP_ROOT}/agent-{number}", now)
            for number, each in sorted(self._vitals.items())
            if each.told
        ]

    def room(self) -> None:
        """The carrier has taken all that was queued: every agent may queue its share again."""
        for agent in self._agents.values():
            agent.share.queued = 0

    def _divide(self) -> None:
        """Divide what may be queued for the carrier among the agents."""
        count = len(self._agents)
        for agent in self._agents.values():
            agent.share.most = max(MAX_PENDING // count, READ_SIZE) if count > 1 else None

    # Signs of life

    def beat(self) -> None:
        """Ask each for one, and send the host ours."""
        if self._frozen or not any(each.told for each in self._vitals.values()):
            return  # it is being saved, or is a template, which says nothing of itself
        now = time.monotonic()
        for agent in self:
            if agent.vitals.beat(now):
                # If not: its socket is full, and it is not heard of; or it is gone, which is told.
                agents.attempt(agent.request, {"op": "ping", "id": 0})
            self._tell(agent.vitals)
        self._host.tell("heartbeat", {})

    def _tell(self, each: Vitals) -> None:
        """Tell the host of another state."""
        state = each.state
        if state != each.told:
            each.told = state
            self._host.tell("agent", {"number": each.number, "state": state, "reason": each.reason})

    def began(self, agent: Agent, number: int) -> None:
        """A command of its runs."""
        agent.vitals.running.add(number)
        self._tell(agent.vitals)

    def ended(self, agent: Agent, number: int) -> None:
        """A command of its runs no more, or never did."""
        agent.vitals.running.discard(number)
        agent.groups.over(number)
        self._tell(agent.vitals)

    def start(
        self, commands: Commands, command: Command, message: dict[str, Any], fds: list[int]
    ) -> None:
        """Have its jail start a command. fds: its streams, which are ours to close from now on."""
        agent = command.agent
        assert agent is not None

        def ask() -> None:
            try:
                if self._agents.get(agent.number) is agent:  # else that is told of all it had
                    agent.request(message, fds)
            except OSError as error:
                refuse(error)
            finally:
                close()

        def refuse(error: OSError) -> None:
            commands.failed(command, {"errno": error.errno, "what": ""})
            self.ended(agent, command.number)

        def close() -> None:
            for fd in fds:
                os.close(fd)

        try:
            fds.insert(0, agent.groups.make(command.number))
        except OSError as error:
            refuse(error)
            close()
        else:
            agent.when_fresh(ask)

    # What they say

    def _heard(self, agent: Agent) -> None:
        try:
            reply = agent.reply()
        except BlockingIOError:
            return
        if reply is None:
            self._lost(agent)
            return
        agent.vitals.heard(time.monotonic())
        message, fds = reply
        operation = message.get("op")
        found = self._host.owner(message.get("id"))
        if operation in ("made", "up") and agent.call is not None:
            agent.vitals.up = operation == "up"
            self._host.answer(agent.call)
            agent.call = None
            if operation == "up":
                self._tell(agent.vitals)
        elif operation == "lost":
            number = message.get("errno")
            agent.reason = ""
            if type(number) is int and 0 < number < MAX_ERRNO:
                agent.reason = os.strerror(number)
        elif found is not None and found[1].agent is agent:
            self._heard_of(agent, *found, operation, message, fds)
        elif agent.vitals.told == vitals.STUCK:
            self._tell(agent.vitals)
        for fd in fds:
            os.close(fd)

    def _heard_of(
        self,
        agent: Agent,
        commands: Commands,
        command: Command,
        operation: object,
        message: dict[str, Any],
        fds: list[int],
    ) -> None:
        """What a jail says of one of its commands. Takes the descriptors that it uses."""
        number = command.number
        if operation == "started" and command.request:
            # Only a terminal comes with a descriptor, and the loop can watch every terminal.
            terminal = bool(fds)
            if terminal == bool(command.ours) or (terminal and not os.isatty(fds[0])):
                commands.failed(command, {})
            else:
                commands.started(command, fds.pop(0) if fds else -1)
                self.began(agent, number)
            agent.groups.started(number)
        elif operation == "failed" and command.request:
            commands.failed(command, message)
            self.ended(agent, number)
        elif operation == "exited" and not command.request:
            status = message.get("status")
            status = status if type(status) is int and 0 <= status <= 255 else 255
            commands.exited(command, status)
            self.ended(agent, number)

    # The end of one

    def _lost(self, agent: Agent) -> None:
        """The jail is gone: so are its commands, and what it had is cleared away."""
        assert agent.socket is not None
        number = agent.number
        self._loop.forget(agent.socket.fileno())
        self._host.forwarder.end(number)
        ended = "the host has ended it" if agent.killed else "its jail has ended"
        agent.vitals.end(agent.cgroup, agent.reason or ended)
        self._agents.pop(number, None)
        self._divide()
        agent.close()
        if agent.call is not None:
            text = f"the jail ended while starting {agent.reason}".rstrip()
            self._host.refuse(agent.call, text)
        for commands in self._host.all_commands():
            for command in commands.of_agent(agent):
                if command.request:
                    commands.failed(command, {"text": "the jail has ended"})
                else:
                    commands.exited(command, 128 + signal.SIGKILL)
        if agent.vitals.told:
            self._tell(agent.vitals)
        self._clear(agent)

    def _clear(self, agent: Agent) -> None:
        """Kill what is left of it; what it had goes when no process is left."""
        self._ending[agent.number] = []
        group = Group(self._loop, agent.cgroup)
        group.then.append(lambda: apart.run(self._loop, agent.clear, lambda: self._cleared(agent)))
        if os.path.isdir(agent.cgroup):
            group.kill()
        else:
            group.forget()  # it never got that far

    def _cleared(self, agent: Agent) -> None:
        for request, params in self._ending.pop(agent.number):
            try:
                self.make(request, params)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._host.refuse(request, f"jail: {agents.plain(error)}")
