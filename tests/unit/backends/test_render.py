"""The command lines of a sandbox's processes, whole, as they were approved.

One argument a line in golden/*.txt; see tests/support/golden.py for how to renew them.
"""

from __future__ import annotations

import msgspec
import pytest

from corral.backends.qemu import render
from corral.errors import PlanError
from corral.host import Facts, Virtiofsd
from corral.plan import Plan
from corral.proc import bwrap
from corral.proc.bwrap import Access, Bind, EmptyReadOnly, Folder, Symlink
from corral.spec import Spec
from tests.support import examples
from tests.support.golden import Golden

EMPTY = "/run/user/1000/corral/demo-0/empty"


def small_plan(wanted: Spec | None = None, host: Facts | None = None) -> Plan:
    """A plan with two root ports: the others look the same."""
    plan = examples.plan(wanted, host)
    return msgspec.structs.replace(plan, machine=msgspec.structs.replace(plan.machine, ports=2))


def qemu(plan: Plan) -> tuple[str, ...]:
    return render.qemu(plan, examples.facts(), "/cache/vmlinux", "/cache/base.cpio", EMPTY)


def after(argv: tuple[str, ...], option: str) -> str:
    """The value of an option that is there once."""
    assert argv.count(option) == 1
    return argv[argv.index(option) + 1]


@pytest.mark.parametrize(
    ("name", "wanted", "host"),
    [
        ("qemu-tcg-serial-virtiofs", {}, {}),
        ("qemu-kvm-serial-virtiofs", {}, {"kvm": examples.KVM_WORKS}),
        ("qemu-tcg-vsock-virtiofs", {"carrier": "vsock"}, {}),
        ("qemu-tcg-serial-9p", {"filesystem": "9p"}, {}),
        ("qemu-tcg-aarch64", {}, {"arch": "aarch64"}),
    ],
)
def test_qemu(name: str, wanted: dict[str, str], host: dict[str, object], golden: Golden) -> None:
    golden(name, qemu(small_plan(examples.spec(machine=wanted), examples.facts(**host))))


@pytest.mark.parametrize(
    ("name", "daemon"),
    [
        ("virtiofsd-c", examples.C_VIRTIOFSD),
        ("virtiofsd-rust-1.10", examples.OLD_RUST_VIRTIOFSD),
        ("virtiofsd-rust-1.13", examples.RUST_VIRTIOFSD),
    ],
)
def test_the_file_server_of_the_toolbox_and_of_an_agent(
    name: str, daemon: Virtiofsd, golden: Golden
) -> None:
    plan = examples.plan(
        examples.spec(workspace={"mask": (".env",)}),
        found=examples.layout(
            masked_files=(f"{examples.PROJECT}/.env",),
            masked_folders=(f"{examples.PROJECT}/secrets",),
        ),
    )
    for export in render.exports(plan):
        argv = render.file_server(export, daemon, examples.BWRAP, EMPTY)
        golden(f"{name}-{export.tag}", argv)


def test_the_file_server_of_the_hosts_root_translates_ids_itself(golden: Golden) -> None:
    plan = examples.plan()
    agent = plan.agents[0].export
    argv = render.file_server(agent, examples.RUST_VIRTIOFSD, examples.BWRAP, EMPTY, root=True)
    golden("virtiofsd-rust-1.13-root-agent1", argv)


def test_the_vsock_server(golden: Golden) -> None:
    argv = render.vsock_server(
        examples.VHOST_DEVICE_VSOCK, examples.BWRAP, "/run/x/sockets", 3, root=False
    )
    golden("vhost-device-vsock", argv)


def test_a_confined_process(golden: Golden) -> None:
    tree = (
        Bind("/usr", "/usr"),
        Bind("/dev/kvm", "/dev/kvm", Access.DEVICE),
        Bind("/home/ada/src", "/export/src", Access.WRITABLE),
        Symlink("usr/bin", "/bin"),
        Folder("/machine"),
        EmptyReadOnly("/export/src/secrets"),
    )
    argv = bwrap.confined(
        ("/usr/bin/bwrap",),
        tree,
        ("/usr/bin/true", "--", "x"),
        uid=2001,
        root=True,
        seccomp_fd=11,
        all_capabilities=True,
    )
    golden("confined", argv)


@pytest.mark.parametrize(("name", "root"), [("warden-root", True), ("warden-user", False)])
def test_the_warden(name: str, root: bool, golden: Golden) -> None:
    golden(name, bwrap.warden(("/usr/bin/bwrap",), ("/usr/bin/python3", "warden.py"), root=root))


SHOWN = (
    *("/usr", "/opt", "/cache/", "/run/", examples.PROJECT),
    *("/etc/ld.so.cache", "/etc/ssl/certs", "/dev/kvm"),
)

# What must hold for every one of them, whatever the golden files say


def every_command() -> list[tuple[str, ...]]:
    """The command line of each helper in each variant."""
    commands = []
    for carrier in ("serial", "vsock"):
        for filesystem in ("virtiofs", "9p"):
            for kvm in (examples.KVM_ABSENT, examples.KVM_WORKS):
                machine = {"carrier": carrier, "filesystem": filesystem}
                plan = examples.plan(examples.spec(machine=machine), examples.facts(kvm=kvm))
                commands.append(qemu(plan))
    for daemon in (examples.C_VIRTIOFSD, examples.OLD_RUST_VIRTIOFSD, examples.RUST_VIRTIOFSD):
        for export in render.exports(examples.plan()):
            for root in (False, True):
                argv = render.file_server(export, daemon, examples.BWRAP, EMPTY, root=root)
                commands.append(argv)
    commands.append(
        render.vsock_server(
            examples.VHOST_DEVICE_VSOCK, examples.BWRAP, "/run/x/sockets", 3, root=False
        )
    )
    return commands


@pytest.mark.parametrize("argv", every_command())
def test_every_helper_is_confined_without_a_network_and_dies_with_its_parent(
    argv: tuple[str, ...],
) -> None:
    options = argv[: argv.index("--")]
    needed = {"user", "pid", "net", "ipc", "uts"}
    assert {f"--unshare-{name}" for name in needed} <= set(options)
    assert "--die-with-parent" in options
    assert "--share-net" not in options


@pytest.mark.parametrize("argv", every_command())
def test_no_helper_sees_the_home_or_etc(argv: tuple[str, ...]) -> None:
    """What is bound is below the workspace, or holds programs; nothing else of the host."""
    for option in (access.value for access in Access):
        for position, argument in enumerate(argv[: argv.index("--")]):
            if argument == option:
                source = argv[position + 1].removeprefix("pinned:")  # see proc/warden.py
                if (source, argv[position + 2], option) == ("/proc/sys", "/proc/sys", "--ro-bind"):
                    continue  # over its own, which root's could write: see `confined`
                assert source.startswith(SHOWN), source


def test_qemu_always_runs_in_its_own_sandbox_and_without_default_devices() -> None:
    for argv in every_command()[:8]:
        sandbox = after(argv, "-sandbox").split(",")
        assert sandbox[0] == "on"
        for denied in ("spawn", "elevateprivileges", "resourcecontrol"):
            assert f"{denied}=deny" in sandbox
        assert {"-nodefaults", "-no-user-config"} <= set(argv)
        assert not [argument for argument in argv if "netdev" in argument or "-nic" in argument]


def test_the_toolbox_is_bound_read_only_and_only_the_workspace_can_be_written() -> None:
    toolbox, agent = render.exports(examples.plan())
    assert {step.access for step in toolbox.tree if isinstance(step, Bind)} == {Access.READ_ONLY}
    writable = [
        step.source
        for step in agent.tree
        if isinstance(step, Bind) and step.access is not Access.READ_ONLY
    ]
    assert writable == [examples.PROJECT, f"{examples.PROJECT}/.git"]


def test_9p_serves_the_toolbox_read_only() -> None:
    argv = qemu(examples.plan(examples.spec(machine={"filesystem": "9p"})))
    served = [argument for argument in argv if argument.startswith("local,id=")]
    assert len(served) == 2
    assert "readonly=on" in served[0]
    assert "readonly" not in served[1]


def test_root_ports_are_many_and_their_addresses_differ() -> None:
    plan = examples.plan()
    wide = msgspec.structs.replace(plan.machine, ports=32)
    argv = qemu(msgspec.structs.replace(plan, machine=wide))
    addresses = [a.partition("addr=")[2] for a in argv if a.startswith("pcie-root-port")]
    assert len(set(addresses)) == 32
    assert all(a.endswith(",multifunction=on") == (".0x0" in a) for a in addresses)


def test_without_qemu_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PlanError) as caught:
        render.qemu(examples.plan(), examples.facts(qemu=None), "k", "i", EMPTY)
    assert caught.value.hint
