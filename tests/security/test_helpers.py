"""What runs on the host for a sandbox: confined, so that breaking out of the VM gains little."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from corral.backends.qemu.control import Monitor
from corral.plan.model import AGENT_UID_BASE
from corral.sandbox import Sandbox
from tests.security.attacks import from_guest_root, tree
from tests.support import leftovers
from tests.support.memory import peak, peak_from_now
from tests.support.sandboxes import guest_root, sandbox_on, shell, succeeded

NAMESPACES = ("user", "pid", "net", "ipc", "mnt", "uts")
QEMU, FILES = "qemu-system", "virtiofsd"


class Setting:
    """A sandbox, QEMU's monitor, and the helper processes below this one."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.sandbox: Sandbox
        self.monitor: Monitor

    def helpers(self, program: str) -> list[psutil.Process]:
        """The processes of a helper, without the bubblewrap around it."""
        return leftovers.running(program)


@pytest.fixture(scope="module")
async def setting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setting]:
    base = tmp_path_factory.mktemp("helpers")
    found = Setting(base / "workspace")
    tree(found.workspace)
    tree(base / "shared")
    patch = pytest.MonkeyPatch()
    patch.setenv("GITHUB_TOKEN", "a-secret-of-the-host")
    connect = Monitor.__init__

    def kept(self: Monitor, *arguments: object) -> None:
        connect(self, *arguments)  # type: ignore[arg-type] # whatever it takes
        found.monitor = self

    patch.setattr(Monitor, "__init__", kept)
    try:
        async with sandbox_on(
            found.workspace, {"share": [f"{base / 'shared'}:/mnt/shared"]}
        ) as found.sandbox:
            yield found
    finally:
        patch.undo()


@pytest.mark.parametrize("program", [QEMU, FILES])
def test_a_helper_has_namespaces_of_its_own(setting: Setting, program: str) -> None:
    processes = setting.helpers(program)
    assert processes
    for process in processes:
        for name in NAMESPACES:
            own = Path(f"/proc/{process.pid}/ns/{name}").readlink()
            assert own != Path(f"/proc/self/ns/{name}").readlink(), f"{program}: {name}"
        devices = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        (numbers,) = [
            line.split()[1:]
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("NSpid:")
        ]
        assert len(numbers) >= 3 and int(numbers[-1]) <= 5, "below the warden's and bubblewrap's"


@pytest.mark.parametrize("program", [QEMU, FILES])
def test_no_helper_can_change_what_the_kernel_is_set_to(setting: Setting, program: str) -> None:
    """Where root runs corral they own the files in /proc/sys: core_pattern names a program."""
    for process in setting.helpers(program):
        # A file server is in a chroot by now; bubblewrap, in the same tree, sees all of it.
        above = next(each for each in process.parents() if each.name() == "bwrap")
        seen = above if _mounts_of(above.pid) == _mounts_of(process.pid) else process
        mounts = Path(f"/proc/{seen.pid}/mountinfo").read_text().splitlines()
        settings = [line.split()[5] for line in mounts if line.split()[4] == "/proc/sys"]
        # To others than root these files do not belong, wherever they are mounted.
        read_only = ["ro"] if os.getuid() == 0 else []
        assert [options.split(",")[0] for options in settings] == read_only


def _mounts_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115 - no path


@pytest.mark.parametrize("program", [QEMU, FILES])
def test_a_helper_is_filtered_and_gains_no_privileges(setting: Setting, program: str) -> None:
    # virtiofsd's first process waits for its child, and has the filter that it was started with.
    for process in setting.helpers(program):
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"
        if program == QEMU:
            assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0
        # Not one id of the host but the user's own.
        for kind in ("uid_map", "gid_map"):
            lines = Path(f"/proc/{process.pid}/{kind}").read_text().split("\n")
            assert [line.split()[2] for line in lines if line] == ["1"]


@pytest.mark.parametrize("program", [QEMU, FILES])
def test_a_helper_gets_no_variable_and_no_file_of_the_user(setting: Setting, program: str) -> None:
    for process in setting.helpers(program):
        variables = process.environ()
        assert set(variables) <= {"PATH", "LANG", "PWD", "LD_LIBRARY_PATH"}, variables
        assert "a-secret-of-the-host" not in str(variables)
        root = Path(f"/proc/{process.pid}/root")
        home = Path.home().relative_to("/")
        assert root.is_dir(), "it can be looked into"
        for path in (
            "etc/shadow",
            "etc/passwd",
            home / ".ssh",
            home / ".profile",
            "var/log",
            "boot",
            "root",
        ):
            assert not (root / path).exists(), f"{program} sees /{path}"
        mounts = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
        writable = {
            line.split()[4]
            for line in mounts
            if line.split()[5].split(",")[0] == "rw"
            and line.split(" - ")[1].split()[0] not in ("proc", "tmpfs", "devpts", "mqueue")
        }
        allowed = (str(setting.workspace), "/dev/")
        assert not [
            path for path in writable if not path.removeprefix("/export").startswith(allowed)
        ], writable
        assert not [line for line in mounts if "shared:" in line], "mounts of the host come in"


async def test_qemu_has_only_the_devices_that_were_asked_for(setting: Setting) -> None:
    found = set()

    def walk(devices: object) -> None:
        assert isinstance(devices, list)
        for device in devices:
            found.add((device["id"]["vendor"], device["id"]["device"]))
            if bridge := device.get("pci_bridge"):
                walk(bridge.get("devices", []))

    for bus in await setting.monitor.execute("query-pci"):  # type: ignore[attr-defined]
        walk(bus["devices"])
    kinds = {
        (0x8086, 0x29C0): "host bridge",
        (0x8086, 0x2918): "ISA bridge of q35",
        (0x8086, 0x2922): "SATA of q35, without disks",
        (0x8086, 0x2930): "SMBus of q35",
        (0x1B36, 0x000C): "root port",
        (0x1AF4, 0x1003): "virtio console",
        (0x1AF4, 0x1043): "virtio console",
        (0x1AF4, 0x1002): "virtio balloon",
        (0x1AF4, 0x1045): "virtio balloon",
        (0x1AF4, 0x105A): "virtio file system",
    }
    assert found <= set(kinds), {hex(v) + ":" + hex(d) for v, d in found - set(kinds)}
    assert (0x1AF4, 0x105A) in found
    names = await setting.monitor.execute("qom-list", {"path": "/machine/peripheral"})
    kinds_named = {
        str(item["type"])
        for item in names  # type: ignore[attr-defined]
    }
    assert kinds_named == {
        "string",
        "child<pcie-root-port>",
        "child<virtio-serial-pci>",
        "child<virtio-balloon-pci>",
        "child<vhost-user-fs-pci>",
    }
    blocks = await setting.monitor.execute("query-block")
    assert blocks == [], "no disk, no floppy, no CD"
    chardevs = await setting.monitor.execute("query-chardev")
    assert {item["label"] for item in chardevs} == {  # type: ignore[attr-defined]
        *("qmp", "console", "channel", "toolbox", "agent1")
    }


async def test_qemu_cannot_start_programs_nor_open_files_by_its_monitor(setting: Setting) -> None:
    """What somebody who owns QEMU has: its monitor's powers, within its own few files."""
    from corral.errors import ProcessError

    attempts: tuple[tuple[str, dict[str, object]], ...] = (
        ("chardev-add", {"id": "x", "backend": {"type": "file", "data": {"out": "/etc/owned"}}}),
        ("chardev-add", {"id": "y", "backend": {"type": "file", "data": {"out": "/usr/owned"}}}),
        ("netdev_add", {"type": "tap", "id": "t"}),
        ("migrate", {"uri": "exec:touch /tmp/owned-by-migrate"}),
    )
    refusals = 0
    for command, arguments in attempts:
        try:
            await setting.monitor.execute(command, arguments)
        except ProcessError:
            refusals += 1
    assert refusals >= 3, "migrate may be refused only after it was accepted"
    assert not _exist("/etc/owned", "/usr/owned", "/tmp/owned-by-migrate")


def test_sockets_and_the_run_folder_are_private(setting: Setting) -> None:
    folder = setting.sandbox.folder
    for path in (folder.parent, folder, folder / "sockets"):
        assert path.stat().st_mode & 0o077 == 0 and path.stat().st_uid == os.getuid()
    assert list((folder / "sockets").iterdir()) == [], "nothing to connect to"
    # No helper listens on a network, in any family.
    for program in (QEMU, FILES):
        for process in setting.helpers(program):
            for table in ("tcp", "tcp6", "udp", "udp6", "raw", "packet"):
                text = Path(f"/proc/{process.pid}/net/{table}").read_text()
                assert len(text.splitlines()) == 1, f"{program}: {table}"


async def test_the_host_secret_is_nowhere_in_the_guests_memory_of_processes(
    setting: Setting,
) -> None:
    text = succeeded(
        await guest_root(
            setting.sandbox,
            "import os\n"
            "for p in os.listdir('/proc'):\n"
            "    if p.isdigit():\n"
            "        print(open(f'/proc/{p}/environ').read(), open(f'/proc/{p}/cmdline').read())",
        )
    )
    assert "PATH=" in text and "a-secret-of-the-host" not in text


def test_a_file_server_may_open_as_many_files_as_this_machine_lets_it(setting: Setting) -> None:
    """It has one open for each that the guest knows of: `find /` must not be the end of all."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    status = Path("/proc/self/status").read_text()
    may_raise = int(status.split("CapEff:\t")[1].split()[0], 16) >> 24 & 1  # CAP_SYS_RESOURCE
    most = int(Path("/proc/sys/fs/nr_open").read_text()) if may_raise else hard
    for process in setting.helpers(FILES):
        assert process.rlimit(psutil.RLIMIT_NOFILE)[0] >= min(most, 1 << 20)
    for process in setting.helpers(QEMU):
        assert process.rlimit(psutil.RLIMIT_NOFILE)[1] == hard, "nobody else has that"


async def test_exhausting_the_file_servers_descriptors_hurts_only_the_guest(
    setting: Setting,
) -> None:
    """The limit is set low here, as a guest needs long to reach a real one."""
    many = setting.workspace / "many"
    many.mkdir()
    for number in range(400):
        (many / f"f{number}").touch()
    servers = [p for p in setting.helpers(FILES) if str(setting.workspace) in _mounts(p)]
    assert servers
    before = {p.pid: p.rlimit(psutil.RLIMIT_NOFILE) for p in servers}
    for process in servers:
        process.rlimit(psutil.RLIMIT_NOFILE, (150, before[process.pid][1]))
    try:
        outcome = await from_guest_root(
            setting.sandbox,
            f"""
base = "/agents/1/export{many}"
opened = []
def exhaust():
    for number in range(400):
        attempt(str(number), lambda: opened.append(os.open(f"{{base}}/f{{number}}", os.O_RDONLY)))
exhaust()
outcome["other"] = str(len(os.listdir("/toolbox/mnt/shared")))
""",
        )
        assert "ENFILE" in outcome.values() or "EMFILE" in outcome.values(), outcome
        assert outcome["other"] == "4", "the other export works"
        assert (many / "f399").read_bytes() == b"", "the host works"
    finally:
        for process in servers:
            process.rlimit(psutil.RLIMIT_NOFILE, before[process.pid])
    result = await shell(setting.sandbox, "cat many/f0 many/f399 && echo again")
    assert succeeded(result) == "again\n", "and the guest does, when it lets go"


def _exist(*paths: str) -> list[str]:
    return [path for path in paths if Path(path).exists()]


def _mounts(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/mountinfo").read_text()


async def test_what_the_guest_fills_is_bounded_by_the_machines_memory(setting: Setting) -> None:
    """The guest's RAM is the machine's; what it caches of files is in there."""
    (qemu,) = setting.helpers(QEMU)
    before = peak_from_now()
    text = await shell(setting.sandbox, "head -c 200M /dev/zero > /tmp/full; stat -c %s /tmp/full")
    assert text.stdout.strip() or text.status
    machine = setting.sandbox.plan.machine.memory
    assert qemu.memory_info().rss < machine + (400 << 20)
    assert peak() - before < 64 << 20


async def test_no_other_agents_id_can_write_to_the_workspace(setting: Setting) -> None:
    other = AGENT_UID_BASE + 2
    outcome = await from_guest_root(
        setting.sandbox,
        f"""
base = "/agents/1/export{setting.workspace}"
def intrude():
    attempt("create", lambda: os.close(os.open(base + "/intruder", os.O_CREAT | os.O_WRONLY)))
    attempt("enter", os.listdir, base)
outcome.update(as_user({other}, intrude))
attempt("root", lambda: os.close(os.open(base + "/byroot", os.O_CREAT | os.O_WRONLY)))
""",
    )
    made = setting.workspace / "byroot"
    # Root of the guest is every agent; some daemons take it for the agent at once.
    assert outcome.pop("root") != "done" or made.stat().st_uid == os.getuid()
    assert "done" not in outcome.values(), outcome
    assert not (setting.workspace / "intruder").exists()


def test_the_run_root_is_refused_when_it_is_another_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from corral.errors import HostError
    from corral.paths import run_root

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    run_root()
    (tmp_path / "corral").chmod(0o755)
    with pytest.raises(HostError):
        run_root()
    (tmp_path / "corral").rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "corral").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError):
        run_root()


async def test_a_sandbox_has_this_process_listen_on_nothing(tmp_path: Path) -> None:
    before = _listening()
    async with sandbox_on(tmp_path):
        assert _listening() == before
        with socket.create_server(("127.0.0.1", 0)) as seen:
            assert _listening() == before | {seen.fileno()}


def _listening() -> set[int]:
    """Descriptors of this process that others on the network, or guests, may connect to."""
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_VSOCK)
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            copy = socket.socket(fileno=int(link.name))
        except OSError:  # no socket, or the descriptor that the folder was listed with
            continue
        if copy.family in families and copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.add(copy.fileno())
        copy.detach()
    return found
