"""Where probes are carried out: this host, the user's own sandbox, a staged one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from ..errors import CorralError
from ..events import Report
from ..host import Facts
from ..host.limits import capacity
from ..plan import Plan
from ..plan.model import AGENT_UID_BASE
from ..policy import Gateway, Key, Network, Secret
from ..policy.rules import parse_address, parse_publish, parse_rules
from ..sandbox import Sandbox, make_plan, prepare, start
from ..spec import AgentSpec, Spec, load_spec
from . import inside
from .model import NotTried
from .processes import descendants, start_time
from .runner import Runner
from .servers import Servers

CANARY = "CORRAL_VERIFY_CANARY"  # a variable of the host that must be nowhere else
NAME = "verify"


class Ground:
    """This host. scratch: a folder of verify's own, removed afterwards."""

    def __init__(self, scratch: Path, facts: Facts) -> None:
        self.scratch = scratch
        self.ports: Callable[[], set[int]] = set  # on which verify itself listens
        self.facts = facts

    def folder(self, name: str) -> Path:
        """A new empty folder."""
        made = self.scratch / f"{name}-{secrets.token_hex(3)}"
        made.mkdir()
        return made


class Inside(Ground):
    """A running sandbox, attacked from its jail and by its root.

    root, jail: run a program as the guest's root, and in agent 1's jail. canary: the value of a
    variable that the host had when it was planned.
    """

    def __init__(self, scratch: Path, facts: Facts, spec: Spec) -> None:
        super().__init__(scratch, facts)
        self.spec = spec
        self.canary = os.environ.get(CANARY, "")
        self.workspace = Path(spec.workspace.on_host)
        self.sandbox: Sandbox
        self.root: Runner
        self.jail: Runner
        self.ended = False  # by an attack
        self.quiet = False  # attacks are under way
        self.processes: dict[int, str] = {}  # those of the sandbox, and when each began
        self.run_folder = scratch
        self.other: asyncio.Future[dict[str, str]] | None = None  # what a second sandbox drew

    @property
    def plan(self) -> Plan:
        """The plan of the sandbox."""
        return self.sandbox.plan

    @property
    def agent_id(self) -> int:
        """The id of agent 1 in the guest, outside its jail."""
        return AGENT_UID_BASE + 1

    def exported(self, path: Path | str) -> str:
        """Where the guest's root sees a path of the workspace's export."""
        return f"/agents/1/export{self.inside(path)}"

    def inside(self, path: Path | str) -> str:
        """Where the jail sees a path of the host's: a copy of the workspace is in its place."""
        if Path(path).is_relative_to(self.workspace):
            path = Path(self.spec.workspace.path, Path(path).relative_to(self.workspace))
        return str(path)

    def _heard(self, report: Report) -> Report:
        """What happens, but for what attacks bring about on purpose."""
        return lambda event: None if self.ended or self.quiet else report(event)

    @contextlib.asynccontextmanager
    async def running(self, environ: Mapping[str, str], report: Report) -> AsyncIterator[None]:
        """Start the sandbox, and end it. Raises CorralError."""
        plan = make_plan(self.spec, self.facts, {**environ, CANARY: self.canary})
        parts = prepare(plan, self.facts, report)
        try:
            async with start(plan, parts, self._heard(report)) as self.sandbox:
                self.root, self.jail = Runner(self.sandbox, 0), Runner(self.sandbox, 1)
                self.run_folder = self.sandbox.folder
                pids = descendants(self.sandbox.machine.pid)
                self.processes = {pid: start_time(pid) for pid in pids}
                self.quiet = True
                yield
                await self.root.close()
                await self.jail.close()
        except CorralError:
            if not self.ended:  # by a probe, on purpose
                raise


class Staged(Inside):
    """A sandbox on a workspace of verify's own.

    shared: a share that is read-only. writable: one that is not. tool: a folder of programs.
    outside: a folder that is not shared, with the file `secret`, whose content is `secret`.
    """

    def __init__(self, scratch: Path, facts: Facts, environ: Mapping[str, str]) -> None:
        base = scratch / "files"
        self.base = base
        self.shared, self.writable = base / "shared", base / "writable"
        self.tool, self.outside = base / "tool", base / "outside"
        self.secret = f"secret of the host {secrets.token_hex(8)}"
        workspace = base / "workspace"
        for folder in (workspace, self.shared, self.writable, self.tool, self.outside):
            tree(folder)
        (self.outside / "secret").write_text(self.secret)
        (workspace / ".env").write_text(self.secret)
        repository(workspace)
        spec = load_spec(workspace, self.settings(), dict(environ), capacity=capacity(), alone=True)
        # None of the user's own keys is asked for, and nothing is listened to, for this.
        spec = msgspec.structs.replace(spec, network=Network(), gateways=(), secrets=())
        super().__init__(scratch, facts, spec)

    def settings(self) -> dict[str, object]:
        """What it has beside the user's own defaults."""
        return {
            "name": NAME,
            "share": [f"{self.shared}:/mnt/shared", f"{self.writable}:/mnt/writable:rw"],
            "run.tools": [str(self.tool)],
            "workspace.mask": [".env"],
            "workspace.read_only": False,
        }


class Networked(Inside):
    """A sandbox with servers of verify's own: GOOD is allowed, BAD is not, both lead to loopback.

    It has gateways (to servers.model) and, where interception is installed, a secret (for SECRET,
    and for FORGED, whose server nobody has certified), and two agents on one workspace. tell: who
    waits for what it drew.
    """

    GOOD, BAD, SECRET, FORGED = "good.test", "bad.test", "secret.test", "forged.test"
    TOKEN, HEADER = "VERIFY_TOKEN", "x-verify"

    def __init__(
        self, scratch: Path, facts: Facts, environ: Mapping[str, str], servers: Servers
    ) -> None:
        workspace = scratch / "networked"
        workspace.mkdir()
        settings = {"name": f"{NAME}-network", "workspace.read_only": False}
        spec = load_spec(workspace, settings, dict(environ), capacity=capacity(), alone=True)
        spec = msgspec.structs.replace(
            spec,
            agents=(AgentSpec(number=1), AgentSpec(number=2)),
            network=self.network(servers),
            gateways=self.gateways(servers),
            secrets=(self.secret(servers),) if servers.authority is not None else (),
        )
        super().__init__(scratch, facts, spec)
        self.servers = servers
        self.shown: set[str] = set()  # what was shown to work where it is allowed
        self.tell: asyncio.Future[dict[str, str]] | None = None
        self.neighbour: Runner  # in agent 2's jail
        self.neighbours = False  # both agents have what `probes.neighbours` looks for

    @contextlib.asynccontextmanager
    async def running(self, environ: Mapping[str, str], report: Report) -> AsyncIterator[None]:
        """As any; with a second agent."""
        async with super().running(environ, report):
            self.neighbour = Runner(self.sandbox, 2)
            yield
            await self.neighbour.close()

    async def tell_identity(self) -> None:
        """Tell whoever waits for it what this sandbox drew."""
        if self.tell is not None:
            with contextlib.suppress(NotTried):
                self.tell.set_result(await self.jail(inside.IDENTITY))

    def network(self, servers: Servers) -> Network:
        """What is allowed, and where names lead."""
        hosts = {f"{self.GOOD}:80": servers.good, f"{self.BAD}:80": servers.bad}
        hosts |= {f"{self.SECRET}:443": servers.secret, f"{self.FORGED}:443": servers.forged}
        return Network(
            mode="allow",
            allow=parse_rules(self.GOOD),
            addresses=tuple(
                parse_address(f"{name}=127.0.0.1:{server.port}") for name, server in hosts.items()
            ),
            publish=(parse_publish(f"{servers.free}:8000"),),
        )

    def gateways(self, servers: Servers) -> tuple[Gateway, ...]:
        """One without limits but models, one with a small budget, one that is slow."""
        plain = Gateway(
            name="echo",
            dialect="anthropic",
            upstream=f"http://127.0.0.1:{servers.model.port}",
            key=Key(kind="file", value=(str(servers.key_file),)),
            models=("claude-*",),
        )
        change = msgspec.structs.replace
        return (
            plain,
            change(plain, name="spent", budget_usd=0.001),
            change(plain, name="slow", rpm=1),
        )

    def secret(self, servers: Servers) -> Secret:
        """For the host that is certified, and the one that is not."""
        return Secret(
            name=self.TOKEN,
            hosts=(self.SECRET, self.FORGED),
            header=self.HEADER,
            key=Key(kind="file", value=(str(servers.token_file),)),
        )


def tree(folder: Path) -> None:
    """What `inside.WRITES` works on."""
    folder.mkdir(parents=True)
    for name in ("file", "other", "program"):
        (folder / name).write_text(f"{name}\n")
    (folder / "folder").mkdir()


def repository(folder: Path) -> None:
    """A git repository as far as git's own configuration goes; no git is run for it."""
    root = folder / ".git"
    (root / "hooks").mkdir(parents=True)
    (root / "HEAD").write_text("ref: refs/heads/main\n")
    (root / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    (root / "hooks" / "pre-commit").write_text("#!/bin/sh\nexit 0\n")
    for name in ("objects", "refs"):
        (root / name).mkdir()
    (folder / "corral.toml").write_text("# of the project\n")


def state(folder: Path) -> dict[str, object]:
    """Everything about a folder that an attack could change, to compare."""
    found: dict[str, object] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        times = (status.st_mtime_ns, status.st_ctime_ns)
        kept = (status.st_mode, status.st_uid, status.st_ino, status.st_nlink, *times, content)
        found[str(path.relative_to(folder))] = kept
    return found


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Have these in the environment of this process, which its helpers could inherit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
