"""A Plan as QEMU's, virtiofsd's and vhost-device-vsock's command lines. Pure.

Every channel between these processes and corral is a descriptor; nothing has a path on the host
but vhost-device-vsock's sockets, which live in the run folder. Options: qemu(1), and for virtiofsd
and vhost-device-vsock their own --help.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from corral_guest import wire

from ...errors import PlanError
from ...host import Facts, Program, Virtiofsd, parse_version
from ...host.programs import CHECKPOINT_VIRTIOFSD
from ...plan.model import AGENT_UID_BASE, NOBODY, Export, Machine, Plan
from ...plan.trees import EMPTY_FILE, EXPORT
from ...proc.bwrap import Access, Bind, Folder, Step, Symlink, confined

# Descriptor numbers inside QEMU.
PROTOCOL_VERSION = wire.VERSION
QMP_FD, CHANNEL_FD, CONSOLE_FD, RAM_FD, FILTER_FD = 10, 11, 12, 13, 14
# Descriptor numbers inside a file server.
LISTEN_FD, EXPORT_FILTER_FD = 10, 11

KERNEL_FILE, INITRD_FILE = "/machine/kernel", "/machine/initrd"
PORT_NAME = "corral"  # corral_guest.carrier
VSOCK_SOCKETS = "/sockets"
_RUST_CACHE = {"none": "never", "auto": "auto", "always": "always"}
_TRANSLATES = (1, 13)  # the oldest virtiofsd whose --translate-uid is tested; it came with 1.12
DENY = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

# QEMU's machine and the kernel's name of its first serial port. Only x86_64 has been tried.
MACHINES = {"x86_64": ("q35,smm=off,vmport=off", "ttyS0"), "aarch64": ("virt", "ttyAMA0")}
# The emulated processor. QEMU carries out `rep movsb` and `rep stosb` byte by byte; a kernel and a
# libc that are told that these are fast (ERMS, FSRM) clear and copy memory at a third of the speed.
_EMULATED = {"x86_64": "max,erms=off,fsrm=off", "aarch64": "max"}

KERNEL_COMMAND_LINE = (
    # panic=-1 with -no-reboot: a panic ends QEMU, so that it is noticed at once.
    "panic=-1 reboot=t tsc=reliable random.trust_cpu=on no_timer_check "
    "cryptomgr.notests "
    "rdinit=/usr/bin/python3 -- -I -S -E /corral/init.pyc"
)


def qemu(
    plan: Plan,
    facts: Facts,
    kernel: str,
    initrd: str,
    empty_file: str,
    *,
    verbose: bool = False,
    restored: bool = False,
) -> tuple[str, ...]:
    """argv of QEMU inside bubblewrap. kernel, initrd, empty_file: paths on the host.

    verbose: the kernel tells on its console what it does, and not only what goes wrong. restored:
    the machine is not booted but waits to be told where its state is.
    """
    if facts.qemu is None or facts.bwrap is None:
        raise PlanError("QEMU and bubblewrap are needed.", hint="Run `corral doctor --fix`.")
    machine = plan.machine
    tree: list[Step] = [
        *programs(facts.qemu),
    ]
    if not restored:
        tree += [Folder("/machine"), Bind(kernel, KERNEL_FILE), Bind(initrd, INITRD_FILE)]
    if machine.accel == "kvm":
        tree.append(Bind("/dev/kvm", "/dev/kvm", Access.DEVICE))
    uid, filter_fd = NOBODY, None
    if machine.transport == "9p":
        # QEMU itself serves the files: it gets the trees, the agent's id and the servers' filter.
        uid, filter_fd = AGENT_UID_BASE + plan.agents[0].number, FILTER_FD
        for export in exports(plan):
            tree += _moved(export, empty_file)
    return confined(
        facts.bwrap.argv,
        tuple(tree),
        (*facts.qemu.argv, *machine_arguments(plan, verbose=verbose, restored=restored)),
        uid=uid,
        root=facts.user.uid == 0,
        seccomp_fd=filter_fd,
    )


def machine_arguments(plan: Plan, *, verbose: bool = False, restored: bool = False) -> list[str]:
    """QEMU's own arguments. A restored machine has its kernel in its memory already."""
    machine = plan.machine
    accel, cpu = "kvm", "host"
    if machine.accel == "tcg":
        accel, cpu = "tcg,thread=multi", _EMULATED[machine.arch]
    arguments = [
        *("-name", "corral", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-sandbox", DENY),
        *("-machine", f"{MACHINES[machine.arch][0]},memory-backend=ram"),
        *("-accel", accel, "-cpu", cpu, "-smp", str(machine.cpus)),
        *("-m", f"{machine.memory >> 20}M"),
        "-object",
        f"memory-backend-file,id=ram,size={machine.memory},mem-path=/proc/self/fd/{RAM_FD},share=on",
        *(("-incoming", "defer") if restored else _boot(plan, verbose)),
        *("-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=console,fd={CONSOLE_FD}", "-serial", "chardev:console"),
        # Memory that the guest frees is punched out of the RAM file: it goes back to the host.
        *("-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"),
    ]
    for port in range(1, machine.ports + 1):
        # Eight functions a slot: root ports are many, slots of the root bus are few.
        slot, function = 2 + (port - 1) // 8, (port - 1) % 8
        multi = ",multifunction=on" if function == 0 else ""
        address = f"bus=pcie.0,addr={slot:#x}.{function:#x}{multi}"
        arguments += ["-device", f"pcie-root-port,id=port{port},chassis={port},{address}"]
    arguments += [
        *("-device", "virtio-serial-pci,id=serial,max_ports=2"),
        *("-chardev", f"socket,id=channel,fd={CHANNEL_FD}"),
        *("-device", f"virtserialport,chardev=channel,name={PORT_NAME}"),
    ]
    if machine.transport == "9p":
        for export in exports(plan):
            arguments += _nine_p(export)
    return arguments


def _boot(plan: Plan, verbose: bool) -> tuple[str, ...]:
    console = MACHINES[plan.machine.arch][1]
    words = f"console={console} {'' if verbose else 'quiet '}{KERNEL_COMMAND_LINE}"
    return ("-kernel", KERNEL_FILE, "-initrd", INITRD_FILE, "-append", words)


def exports(plan: Plan) -> list[Export]:
    """All exports of a plan, the toolbox first."""
    return [plan.toolbox, *(agent.export for agent in plan.agents)]


def _nine_p(export: Export) -> list[str]:
    """A 9p share. `none`: the guest's id is the owner's, which the user namespace sees to."""
    read_only = ",readonly=on" if export.tag == "toolbox" else ""
    source = f"path=/exports/{export.tag}{EXPORT}"
    return [
        "-fsdev",
        f"local,id={export.tag},{source},security_model=none,multidevs=remap{read_only}",
        "-device",
        f"virtio-9p-pci,fsdev={export.tag},mount_tag={export.tag}",
    ]


def _moved(export: Export, empty_file: str) -> list[Step]:
    """The export's tree below a folder of its own, for QEMU, which serves several."""
    prefix = f"/exports/{export.tag}"
    moved: list[Step] = []
    for step in resolved(export.tree, empty_file):
        match step:
            case Bind():
                moved.append(replace(step, target=prefix + step.target))
            case Symlink():
                moved.append(Symlink(step.target, prefix + step.path))
            case _:
                moved.append(replace(step, path=prefix + step.path))
    return moved


def resolved(tree: tuple[Step, ...], empty_file: str) -> tuple[Step, ...]:
    """The tree with the run folder's empty file in place of its name."""
    return tuple(
        Bind(empty_file, step.target, step.access)
        if isinstance(step, Bind) and step.source == EMPTY_FILE
        else step
        for step in tree
    )


def programs(*used: Program) -> tuple[Step, ...]:
    """What a program of the host needs to be visible."""
    tree: list[Step] = [
        Symlink("usr/lib", "/lib"),
        Symlink("usr/lib64", "/lib64"),
        Symlink("usr/bin", "/bin"),
    ]
    folders = dict.fromkeys(folder for program in used for folder in program.binds)
    return (*(Bind(folder, folder) for folder in folders), *tree)


def file_server(
    export: Export, daemon: Virtiofsd, bwrap: Program, empty_file: str, *, root: bool = False
) -> tuple[str, ...]:
    """argv of virtiofsd inside bubblewrap; it accepts QEMU on LISTEN_FD.

    root: the user is the host's root.
    """
    tree = (*programs(daemon.program), Folder("/var/run"), *resolved(export.tree, empty_file))
    uid = export.uid
    match daemon.dialect:
        case "c":
            command = [
                *(f"--fd={LISTEN_FD}", "-o", f"source={EXPORT}", "-o", "sandbox=chroot"),
                *("-o", f"cache={export.cache}", "--thread-pool-size=1"),
                *(("-o", "writeback") if export.writeback else ()),
                *(("-o", "announce_submounts") if export.submounts else ()),
            ]
        case "rust":
            ids: tuple[str, ...]
            if root and parse_version(daemon.program.version) >= _TRANSLATES:
                uid, ids = 0, _translated(export.uid)
            else:
                # Its own namespaces inside ours, with the same one id; chroot mode wants id 0.
                ids = (f"--uid-map=:{uid}:{uid}:1:", f"--gid-map=:{uid}:{uid}:1:")
            command = [
                *(f"--fd={LISTEN_FD}", f"--shared-dir={EXPORT}", "--sandbox=namespace"),
                *ids,
                *(f"--cache={_RUST_CACHE[export.cache]}", "--thread-pool-size=1"),
                *(("--writeback",) if export.writeback else ()),
                *_rust_submounts(export, daemon),
                *_rust_migration(daemon),
            ]
        case _:
            assert_never(daemon.dialect)
    return confined(
        bwrap.argv,
        tree,
        (*daemon.program.argv, *command),
        uid=uid,
        root=root,
        seccomp_fd=EXPORT_FILTER_FD,
        all_capabilities=True,
    )


def _translated(uid: int) -> tuple[str, ...]:
    """The guest's `uid` is id 0 of the namespace, the only one there is; every other is refused.

    For the host's root bubblewrap covers parts of /proc, and the kernel then lets a user namespace
    inside mount none (mount_too_revealing in fs/namespace.c): virtiofsd, which makes one unless it
    is id 0, could not start.
    """
    above = (1 << 32) - 1 - (uid + 1)
    return tuple(
        f"--translate-{kind}={rule}"
        for kind in ("uid", "gid")
        for rule in (
            f"map:{uid}:0:1",
            f"forbid-guest:0:{uid}",
            f"forbid-guest:{uid + 1}:{above}",
        )
    )


def _rust_submounts(export: Export, daemon: Virtiofsd) -> tuple[str, ...]:
    """Since 1.13 submounts are announced unless told otherwise (virtiofsd's changelog)."""
    if export.submounts:
        return ("--announce-submounts",)
    announced = parse_version(daemon.program.version) >= (1, 13)
    return ("--no-announce-submounts",) if announced else ()


def _rust_migration(daemon: Virtiofsd) -> tuple[str, ...]:
    """Taking over from another: a file that is gone is an error of who had it open only."""
    able = parse_version(daemon.program.version) >= CHECKPOINT_VIRTIOFSD
    return ("--migration-on-error=guest-error",) if able else ()


def vsock_server(
    program: Program, bwrap: Program, sockets: str, cid: int, *, root: bool
) -> tuple[str, ...]:
    """argv of vhost-device-vsock inside bubblewrap. sockets: the run folder's, on the host."""
    tree = (*programs(program), Bind(sockets, VSOCK_SOCKETS, Access.WRITABLE))
    vm = f"guest-cid={cid},socket={VSOCK_SOCKETS}/device,uds-path={VSOCK_SOCKETS}/vsock"
    return confined(bwrap.argv, tree, (*program.argv, "--vm", vm), uid=NOBODY, root=root)


def memory_size(machine: Machine) -> int:
    """Bytes of the RAM descriptor."""
    return machine.memory
