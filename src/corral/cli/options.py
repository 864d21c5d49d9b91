"""The options of every verb that starts a sandbox, written once, and what they come to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import HostError

F = TypeVar("F", bound=Callable[..., Any])
Complete = Callable[[click.Context, click.Parameter, str], list[Any]]

# Names of parameters here -> keys of settings (spec/layers.py).
KEYS = {
    "cpus": "machine.cpus",
    "memory": "machine.memory",
    "accel": "machine.accel",
    "carrier": "machine.carrier",
    "filesystem": "machine.filesystem",
    "kernel": "machine.kernel",
    "cold": "machine.cold",
    "p9_cache": "machine.p9_cache",
    "p9_msize": "machine.p9_msize",
    "disk": "machine.disk",
    "limit_memory": "limits.memory",
    "limit_cpu": "limits.cpu",
    "limit_pids": "limits.pids",
    "limit_io_weight": "limits.io_weight",
    "limit_io_read": "limits.io_read",
    "limit_io_write": "limits.io_write",
    "checkpoints": "machine.checkpoints",
    "debug_shell": "machine.debug_shell",
    "read_only": "workspace.read_only",
    "review": "workspace.review",
    "mask": "workspace.mask",
    "unprotect": "workspace.unprotect",
    "share": "share",
    "user": "run.user",
    "workdir": "run.workdir",
    "env": "run.env",
    "timeout": "run.timeout",
    "tool": "run.tools",
    "image": "run.image",
    "seccomp": "run.seccomp",
    "seccomp_mode": "run.seccomp_mode",
    "agents": "herd.agents",
    "agent_workspace": "herd.workspace",
    "shared": "herd.shared",
    "agent_memory": "herd.memory",
    "agent_cpu": "herd.cpu",
    "agent_pids": "herd.pids",
    "agent_io_read": "herd.io_read",
    "agent_io_write": "herd.io_write",
    "agent_home": "herd.home",
    "agent_tmp": "herd.tmp",
    "agent_restart": "herd.restart",
    "net": "network.mode",
    "allow": "network.allow",
    "deny": "network.deny",
    "net_ports": "network.ports",
    "host": "network.hosts",
    "publish": "network.publish",
    "net_max_connections": "network.max_connections",
    "net_rate": "network.rate",
    "net_max_bytes": "network.max_bytes",
    "net_idle": "network.idle",
    "gateway": "network.gateways",
    "secret": "network.secrets",
    "action": "actions",
    "name": "name",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say. overrides: settings by key, only those that were given."""

    overrides: Mapping[str, object]
    config_file: Path | None
    force: bool
    assume_yes: bool
    console: bool
    debug: bool
    as_json: bool


def wanted(parameters: Mapping[str, Any]) -> Wanted:
    """The parameters of a command that has `sandbox_options`."""
    settings = {KEYS[name]: _plain(value) for name, value in parameters.items() if name in KEYS}
    return Wanted(
        overrides={key: value for key, value in settings.items() if value is not None},
        config_file=parameters["config_file"],
        force=parameters["force"],
        assume_yes=parameters["yes"],
        console=parameters["console"],
        debug=parameters["debug"],
        as_json=parameters["as_json"],
    )


def current_folder() -> Path:
    """The folder that becomes the workspace. Raises HostError."""
    try:
        return Path.cwd()
    except OSError as error:
        raise HostError(
            f"the current folder cannot be used as a workspace: {error.strerror}.",
            hint="It may have been removed: go to another one (cd).",
        ) from error


def known_name(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """For completion: the kept sandboxes whose names begin so."""
    from ..keeper.store import names

    return [name for name in names() if name.startswith(begun)]


def _beginning(known: Callable[[], Iterable[str]]) -> Complete:
    """For completion: those of `known` that begin so; none when a file of the user's is wrong."""

    def complete(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
        from ..errors import CorralError

        try:
            return [name for name in known() if name.startswith(begun)]
        except CorralError:
            return []

    return complete


def _presets() -> list[str]:
    from ..policy.presets import presets

    return [f"@{name}" for name in presets()]


def _gateways() -> list[str]:
    from ..spec.load import known_doors

    return known_doors()[0]


def _secrets() -> list[str]:
    from ..spec.load import known_doors

    return known_doors()[1]


def _duration(_ctx: click.Context, _parameter: click.Parameter, value: str) -> float:
    """Seconds out of `30s`, `5m`; 0 is none."""
    from ..errors import ConfigError
    from ..spec.sizes import parse_duration

    try:
        return 0.0 if value.strip() in ("0", "0s") else parse_duration(value)
    except ConfigError as error:
        raise click.BadParameter(error.message) from error


grace_option = click.option(
    "--timeout",
    metavar="TIME",
    default="10s",
    show_default=True,
    callback=_duration,
    help="How long its commands get after TERM: 30s, 5m, 0.",
)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _note_debug(ctx: click.Context, _option: click.Parameter, value: bool) -> bool:
    """Tell the entry point, which shows tracebacks, too."""
    from .entry import DEBUG

    ctx.meta[DEBUG] = value
    return value


_SANDBOX = (
    click.option(
        "--share",
        multiple=True,
        metavar="SRC[:DST][:ro|:rw]",
        help="A further folder; read-only unless :rw. Repeatable.",
    ),
    click.option(
        "--ro", "read_only", is_flag=True, default=None, help="The workspace is read-only."
    ),
    click.option(
        "--review",
        is_flag=True,
        default=None,
        help="Hold changes of the workspace back; then: corral diff, apply, discard.",
    ),
    click.option("--shared", metavar="DIR", help="A folder that all agents see at /shared."),
    click.option("--agent-memory", metavar="SIZE", help="The most memory of one agent."),
    click.option("--agent-cpu", metavar="N%", help="The most processor time of one agent."),
    click.option("--agent-pids", metavar="N", help="The most processes of one agent."),
    click.option("--agent-home", metavar="SIZE", help="The most one may keep in its home."),
    click.option("--agent-tmp", metavar="SIZE", help="The most one may keep in /tmp."),
    click.option(
        "--agent-restart",
        metavar="never|on-failure|always",
        help="When an agent's jail that ended is made again.",
    ),
    click.option("-u", "--user", metavar="NAME", help="Who runs CMD: your own name, or root."),
    click.option(
        "--mask",
        multiple=True,
        metavar="PATTERN",
        help="Hide files, as in .gitignore (.env, say). Repeatable.",
    ),
    click.option(
        "--unprotect",
        multiple=True,
        metavar="PATH",
        help="Let CMD change .git/config, .git/hooks or corral.toml.",
    ),
    click.option(
        "-w", "--workdir", metavar="DIR", help="Where CMD starts; default: the workspace."
    ),
    click.option(
        "-e",
        "--env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable, or pass yours on. Repeatable.",
    ),
    click.option(
        "--net",
        metavar="none|allow|internet",
        shell_complete=_beginning(lambda: ("none", "allow", "internet")),
        help="What it may reach; default: nothing.",
    ),
    click.option(
        "--allow",
        multiple=True,
        metavar="HOST[:PORT]|@PRESET",
        shell_complete=_beginning(_presets),
        help="A host that it may reach (*.x.org: all below x.org). Repeatable.",
    ),
    click.option(
        "--deny",
        multiple=True,
        metavar="HOST[:PORT]",
        help="A host that it may not reach, whatever else says. Repeatable.",
    ),
    click.option(
        "--gateway",
        multiple=True,
        metavar="NAME",
        shell_complete=_beginning(_gateways),
        help="A model API, its key staying outside: anthropic, openai, yours. Repeatable.",
    ),
    click.option(
        "--secret",
        multiple=True,
        metavar="NAME[@HOST,...]",
        shell_complete=_beginning(_secrets),
        help="A credential for HOST, staying outside. Repeatable.",
    ),
    click.option(
        "-p",
        "--publish",
        multiple=True,
        metavar="[HOST:]PORT[:GUEST]",
        help="A port of this machine that leads to one of the sandbox. Repeatable.",
    ),
    click.option(
        "--host",
        multiple=True,
        metavar="NAME[:PORT]=ADDRESS[:PORT]",
        help="Where a name leads, as in /etc/hosts; may be private. Repeatable.",
    ),
    click.option(
        "--net-ports", metavar="PORT,...", help="Ports of hosts without one; default: 80,443."
    ),
    click.option("--net-max-connections", metavar="N", help="The most connections at once."),
    click.option("--net-rate", metavar="N", help="The most new connections a second."),
    click.option("--net-max-bytes", metavar="SIZE", help="The most bytes, both ways together."),
    click.option("--net-idle", metavar="TIME", help="Close a connection that is silent so long."),
    click.option("--cpus", metavar="N", help="Virtual CPUs, 1 to 128."),
    click.option("--memory", metavar="SIZE", help="Memory: 4g, 8gb, 512MiB."),
    click.option("--image", metavar="IMAGE", help="Where programs come from: host."),
    click.option(
        "--tool",
        multiple=True,
        metavar="PATH",
        help="A further read-only program folder. Repeatable.",
    ),
    click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A configuration file in place of corral.toml.",
    ),
    click.option("--console", is_flag=True, help="Show the guest's console on standard error."),
    click.option("--accel", metavar="auto|kvm|tcg", help="How the machine is run; auto measures."),
    click.option("--carrier", metavar="auto|vsock|serial", help="What carries the channel."),
    click.option("--filesystem", metavar="auto|virtiofs|9p", help="How folders are served."),
    click.option("--kernel", metavar="FILE", help="A guest kernel of your own."),
    click.option(
        "--cold", is_flag=True, default=None, help="Boot the machine, do not restore a saved one."
    ),
    click.option("--p9-cache", metavar="MODE", help="9p: none, loose, fscache or mmap."),
    click.option("--p9-msize", metavar="SIZE", help="9p: bytes of one message."),
    click.option(
        "--checkpoints",
        is_flag=True,
        default=None,
        help="Let it be checkpointed and forked; needs QEMU 10 and virtiofsd 1.13.",
    ),
    click.option(
        "--debug-shell",
        is_flag=True,
        default=None,
        help="A shell of each agent at a vsock port; needs --carrier vsock.",
    ),
    click.option("--limit-memory", metavar="SIZE", help="The most memory of the host it may use."),
    click.option(
        "--limit-cpu", metavar="N%", help="The most processor time: 150% is one and a half."
    ),
    click.option("--limit-pids", metavar="N", help="The most processes and threads on the host."),
    click.option(
        "--limit-io-weight", metavar="N", help="Weight on its disk, 1 to 10000; others: 100."
    ),
    click.option(
        "--limit-io-read", metavar="SIZE", help="The most bytes a second read from its disk."
    ),
    click.option("--limit-io-write", metavar="SIZE", help="The most bytes a second written there."),
    click.option(
        "--seccomp",
        metavar="default|none|FILE",
        help="Which system calls CMD may make; FILE: a profile in Docker's format.",
    ),
    click.option(
        "--seccomp-mode",
        metavar="errno|log|kill",
        help="A refused call fails (default), is logged and allowed, or ends its process.",
    ),
    click.option("--force", is_flag=True, help="Allow a workspace such as / or your home."),
    click.option("--yes", is_flag=True, help="Install missing packages without asking."),
    click.option("--json", "as_json", is_flag=True, help="Print events as JSON lines."),
    click.option(
        "--debug",
        is_flag=True,
        callback=_note_debug,
        help="Keep the logs and print where; show tracebacks.",
    ),
)

MAX_AGENT = 32  # spec.MAX_AGENTS, which would cost an import here

agent_option = click.option(
    "--agent",
    type=click.IntRange(1, MAX_AGENT),
    default=1,
    show_default=True,
    metavar="N",
    help="Which of several agents.",
)

_STREAMS = (
    click.option(
        "-t/-T",
        "--tty/--no-tty",
        "terminal",
        default=None,
        help="Give CMD a terminal or not; default: if you are at one.",
    ),
    click.option(
        "-i/-I",
        "--stdin/--no-stdin",
        "stdin",
        default=True,
        help="Pass standard input on (default) or not.",
    ),
)


def sandbox_options(function: F) -> F:
    """What a new sandbox gets, for `run` and `up`; `wanted` reads their parameters."""
    return decorated(_SANDBOX, function)


def stream_options(function: F) -> F:
    """A command's terminal and standard input, for `run` and `exec`."""
    return decorated(_STREAMS, function)


def decorated(options: tuple[Callable[[F], F], ...], function: F) -> F:
    """The command with these options, in this order."""
    for option in reversed(options):  # as decorators, the last one first
        function = option(function)
    return function
