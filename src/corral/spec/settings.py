"""Every setting once: its key, option, variable, how a value is read, how layers combine.

The tables SETTINGS and VARIABLES are what the documentation is checked against.
"""

from __future__ import annotations

from .actions import parse_action, show_action
from .herd_settings import HERD_SETTINGS
from .model import ACCELS, CARRIERS, FILESYSTEMS, IMAGES, P9_CACHES, SECCOMP_MODES, Action
from .network_settings import NETWORK_SETTINGS
from .setting import Setting
from .sizes import (
    parse_cpus,
    parse_disk,
    parse_duration,
    parse_limit_memory,
    parse_memory,
    parse_msize,
    parse_percent,
    parse_pids,
    parse_rate,
    parse_weight,
)
from .values import (
    NAME_PATTERN,
    USER_PATTERN,
    EnvVar,
    NamedShare,
    choice,
    expand,
    matching,
    parse_env,
    parse_flag,
    parse_mask,
    parse_seccomp,
    parse_share,
    parse_unprotect,
    parse_workdir,
    show_disk,
    show_duration,
    show_env,
    show_flag,
    show_percent,
    show_rate,
    show_share,
    show_size,
    variable,
)


def _item(value: object) -> object:
    return value


def _env_name(value: object) -> object:
    return value.name if isinstance(value, EnvVar) else value


def _action_name(value: object) -> object:
    return value.name if isinstance(value, Action) else value


def _share_source(value: object) -> object:
    return value.source if isinstance(value, NamedShare) else value


SETTINGS: dict[str, Setting] = {
    setting.key: setting
    for setting in (
        Setting(
            key="machine.cpus",
            option="--cpus",
            variable="CORRAL_CPUS",
            meaning="virtual CPUs, 1 to 128",
            parse=lambda value, _base: parse_cpus(value),
            tighter="lower",
        ),
        Setting(
            key="machine.memory",
            option="--memory",
            variable="CORRAL_MEMORY",
            meaning="memory, 64MiB to 1024GiB",
            parse=lambda value, _base: parse_memory(value),
            tighter="lower",
            show=show_size,
        ),
        Setting(
            key="machine.disk",
            option="--disk",
            variable="CORRAL_DISK",
            meaning="a disk for what `corral up` keeps, 64MiB to 10TiB",
            parse=lambda value, _base: parse_disk(value),
            default=0,
            tighter="lower",
            show=show_disk,
        ),
        Setting(
            key="machine.accel",
            option="--accel",
            variable="CORRAL_ACCEL",
            meaning="auto, kvm or tcg",
            parse=choice(ACCELS),
            default="auto",
        ),
        Setting(
            key="machine.carrier",
            option="--carrier",
            variable="CORRAL_CARRIER",
            meaning="auto, vsock or serial",
            parse=choice(CARRIERS),
            default="auto",
        ),
        Setting(
            key="machine.filesystem",
            option="--filesystem",
            variable="CORRAL_FILESYSTEM",
            meaning="auto, virtiofs or 9p",
            parse=choice(FILESYSTEMS),
            default="auto",
        ),
        Setting(
            key="machine.kernel",
            option="--kernel",
            variable="CORRAL_KERNEL",
            meaning="a guest kernel of your own",
            parse=expand,
        ),
        Setting(
            key="machine.cold",
            option="--cold",
            variable="CORRAL_COLD",
            meaning="true: boot instead of restoring a saved machine",
            parse=parse_flag,
            default=False,
            show=show_flag,
        ),
        Setting(
            # 9p.rst: "mmap" caches nothing but what is needed for a shared writable mapping,
            # which "none" refuses; linkers and SQLite need one. "loose" and "fscache" are meant
            # for exclusive or read-only mounts: they would hide what the host changes.
            key="machine.p9_cache",
            option="--p9-cache",
            variable="CORRAL_P9_CACHE",
            meaning="none, loose, fscache or mmap",
            parse=choice(P9_CACHES),
            default="mmap",
        ),
        Setting(
            # The most that Linux' virtio transport takes is a little less (125 pages), and it
            # rounds down by itself (net/9p/trans_virtio.c).
            key="machine.p9_msize",
            option="--p9-msize",
            variable="CORRAL_P9_MSIZE",
            meaning="bytes of one 9p message",
            default=512 * 1024,
            parse=lambda value, _base: parse_msize(value),
            show=show_size,
        ),
        Setting(
            key="machine.checkpoints",
            option="--checkpoints",
            variable="CORRAL_CHECKPOINTS",
            meaning="true: it can be checkpointed and forked",
            parse=parse_flag,
            default=False,
            show=show_flag,
        ),
        Setting(
            key="machine.debug_shell",
            option="--debug-shell",
            variable="CORRAL_DEBUG_SHELL",
            meaning="true: a shell of each agent at a vsock port",
            parse=parse_flag,
            default=False,
            show=show_flag,
        ),
        Setting(
            key="workspace.read_only",
            option="--ro",
            variable="CORRAL_READ_ONLY",
            meaning="true: the workspace cannot be changed",
            parse=parse_flag,
            default=False,
            tighter="true",
            show=show_flag,
        ),
        Setting(
            key="workspace.review",
            option="--review",
            variable="CORRAL_REVIEW",
            meaning="true: changes are held back until they are applied",
            parse=parse_flag,
            default=False,
            tighter="true",
            show=show_flag,
        ),
        Setting(
            key="workspace.mask",
            option="--mask",
            variable="CORRAL_MASK",
            meaning="files to hide, separated by commas",
            parse=parse_mask,
            adds=True,
            tighter="mask",
        ),
        Setting(
            key="workspace.unprotect",
            option="--unprotect",
            variable="CORRAL_UNPROTECT",
            meaning="protected paths that may be changed, separated by commas",
            parse=parse_unprotect,
            adds=True,
            identity=_item,
        ),
        Setting(
            key="share",
            option="--share",
            variable="CORRAL_SHARE",
            meaning="further folders, SRC[:DST][:ro|:rw], separated by commas",
            parse=parse_share,
            adds=True,
            identity=_share_source,
            tighter="share",
            show=show_share,
        ),
        Setting(
            key="run.user",
            option="--user",
            variable="CORRAL_USER",
            meaning="who runs the command",
            parse=matching(USER_PATTERN, "a user's name"),
        ),
        Setting(
            key="run.workdir",
            option="--workdir",
            variable="CORRAL_WORKDIR",
            meaning="where the command starts",
            parse=parse_workdir,
        ),
        Setting(
            key="run.env",
            option="--env",
            variable="",
            meaning="variables, NAME=VALUE or NAME",
            parse=parse_env,
            adds=True,
            identity=_env_name,
            show=show_env,
        ),
        Setting(
            key="run.pass_env",
            option="--env",
            variable="CORRAL_PASS_ENV",
            meaning="names of variables to take from yours, separated by commas",
            parse=lambda value, _base: variable(value, None),
            adds=True,
            identity=_env_name,
            show=show_env,
            bucket="run.env",
        ),
        Setting(
            key="run.timeout",
            option="--timeout",
            variable="CORRAL_TIMEOUT",
            meaning="end the command after this time, as 30s",
            parse=lambda value, _base: parse_duration(value),
            tighter="lower",
            show=show_duration,
        ),
        Setting(
            key="run.tools",
            option="--tool",
            variable="CORRAL_TOOLS",
            meaning="further read-only program folders, separated by commas",
            parse=expand,
            adds=True,
            identity=_item,
        ),
        Setting(
            key="run.image",
            option="--image",
            variable="CORRAL_IMAGE",
            meaning="where programs come from: host",
            parse=choice(IMAGES),
            default="host",
        ),
        Setting(
            key="run.seccomp",
            option="--seccomp",
            variable="CORRAL_SECCOMP",
            meaning="the seccomp profile: default, none or a file",
            parse=parse_seccomp,
            default="default",
        ),
        Setting(
            key="run.seccomp_mode",
            option="--seccomp-mode",
            variable="CORRAL_SECCOMP_MODE",
            meaning="what becomes of a refused call: errno, log or kill",
            parse=choice(SECCOMP_MODES),
            default="errno",
        ),
        Setting(
            key="limits.memory",
            option="--limit-memory",
            variable="CORRAL_LIMIT_MEMORY",
            meaning="the host's memory that a sandbox may use",
            parse=lambda value, _base: parse_limit_memory(value),
            tighter="lower",
            show=show_size,
        ),
        Setting(
            key="limits.cpu",
            option="--limit-cpu",
            variable="CORRAL_LIMIT_CPU",
            meaning="processor time, as 150%",
            parse=lambda value, _base: parse_percent(value),
            tighter="lower",
            show=show_percent,
        ),
        Setting(
            key="limits.pids",
            option="--limit-pids",
            variable="CORRAL_LIMIT_PIDS",
            meaning="processes and threads on the host",
            parse=lambda value, _base: parse_pids(value),
            tighter="lower",
        ),
        Setting(
            key="limits.io_weight",
            option="--limit-io-weight",
            variable="CORRAL_LIMIT_IO_WEIGHT",
            meaning="weight of reads and writes, 1 to 10000",
            parse=lambda value, _base: parse_weight(value),
        ),
        Setting(
            key="limits.io_read",
            option="--limit-io-read",
            variable="CORRAL_LIMIT_IO_READ",
            meaning="bytes a second read from the disk",
            parse=lambda value, _base: parse_rate(value),
            tighter="lower",
            show=show_rate,
        ),
        Setting(
            key="limits.io_write",
            option="--limit-io-write",
            variable="CORRAL_LIMIT_IO_WRITE",
            meaning="bytes a second written to the disk",
            parse=lambda value, _base: parse_rate(value),
            tighter="lower",
            show=show_rate,
        ),
        *HERD_SETTINGS,
        *NETWORK_SETTINGS,
        Setting(
            key="actions",
            option="--action",
            variable="",
            meaning="commands that tasks call by a name",
            parse=parse_action,
            adds=True,
            identity=_action_name,
            tighter="more",  # they run inside the sandbox, as anything there can
            show=show_action,
        ),
        Setting(
            key="name",
            option="--name",
            variable="CORRAL_NAME",
            meaning="the sandbox's name",
            parse=matching(NAME_PATTERN, "a name for a sandbox"),
        ),
    )
}

VARIABLES: dict[str, str] = {
    **{setting.variable: setting.meaning for setting in SETTINGS.values() if setting.variable},
    "CORRAL_CONFIG": "a configuration file in place of corral.toml, as --config",
    "CORRAL_CONFIG_DIR": "the folder of your own config.toml",
    "CORRAL_CACHE_DIR": "the folder for kernels, base images and tools",
    "CORRAL_STATE_DIR": "the folder for records that are kept, such as accepted files",
    "CORRAL_DEBUG": "set: a fault in corral is shown with its traceback",
    "CORRAL_PYTHON": "the Python that ./corral makes its environment with",
}
"""Every CORRAL_* variable for users: name to meaning. An empty value counts as unset."""


def bucket_of(key: str) -> str:
    """The key under which the merged value of `key` is kept."""
    return SETTINGS[key].bucket or key
