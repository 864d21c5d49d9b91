"""The small things that boot and the making of a jail stand on, as far as a host lets them run."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from corral.spec import MAX_AGENTS
from corral_guest import boot, carrier, jail, linux, tree
from tests.support.golden import Golden


def test_a_kernel_file_is_written_in_one_call_and_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "uid_map"
    file.touch()
    boot.write(str(file), "0 2001 1\n1000 2001 1\n")
    assert boot.read(str(file)) == "0 2001 1\n1000 2001 1\n"


def test_a_kernel_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        boot.write(str(tmp_path / "missing"), "x")
    assert list(tmp_path.iterdir()) == []


def test_modules_are_loaded_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(linux, "load_module", loaded.append)
    for name in ("10-b.ko", "00-a.ko", "02-c.ko"):
        (tmp_path / name).touch()
    boot.load_modules(str(tmp_path))
    assert [os.path.basename(path)[:2] for path in loaded] == ["00", "02", "10"]  # noqa: PTH119
    boot.load_modules(str(tmp_path / "none"))


class Events(boot.DeviceEvents):
    """Device events from a socket pair."""

    def __init__(self) -> None:
        self._socket, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def test_an_action_is_tried_again_after_every_event_until_it_succeeds() -> None:
    events = Events()
    tries: list[int] = []

    def action() -> None:
        tries.append(1)
        if len(tries) < 3:
            events.kernel.send(b"add@/devices/virtio0")
            raise FileNotFoundError(2, "not yet")

    events.retry(action, 10)
    assert len(tries) == 3
    events.close()
    events.kernel.close()


def test_an_action_that_never_succeeds_raises_its_last_error_in_time() -> None:
    events = Events()

    def action() -> None:
        raise FileNotFoundError(2, "no such tag", "toolbox")

    with pytest.raises(FileNotFoundError, match="no such tag"):
        events.retry(action, 0.01)
    events.close()
    events.kernel.close()


def test_the_port_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier, "_PORTS", str(tmp_path))
    for device, name in (("vport0p1", "org.qemu.guest_agent.0"), ("null", carrier.PORT_NAME)):
        (tmp_path / device).mkdir()
        (tmp_path / device / "name").write_text(name + "\n")
    port = carrier._open_port()
    assert os.path.samestat(os.fstat(port), Path("/dev/null").stat())
    os.close(port)
    (tmp_path / "null" / "name").write_text("other\n")
    with pytest.raises(FileNotFoundError, match="virtio-serial"):
        carrier._open_port()


def test_the_jails_command_line(golden: Golden) -> None:
    golden("jail", jail.bwrap("/agents/1"))


def test_every_jail_has_namespaces_of_its_own() -> None:
    kinds = {"user", "pid", "net", "ipc", "uts", "cgroup"}
    assert {f"--unshare-{kind}" for kind in kinds} <= set(jail.bwrap("/agents/1"))


def test_the_pid_of_a_jail_is_read_however_bubblewrap_writes_it() -> None:
    for text in (b'{\n    "child-pid": 12\n}\n', b'{"child-pid": 12, "cgroup-namespace": 40}'):
        read, write = os.pipe()
        os.write(write, text)
        os.close(write)
        assert jail._child_pid(read) == 12
        os.close(read)


def test_a_bubblewrap_that_ends_without_a_word_has_no_pid() -> None:
    read, write = os.pipe()
    os.close(write)
    assert jail._child_pid(read) == 0
    os.close(read)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (0, "mode=1777"),
        (1 << 20, "mode=1777,size=1048576,nr_inodes=1024"),
        (64 << 20, "mode=1777,size=67108864,nr_inodes=16384"),
    ],
)
def test_memory_of_a_given_size_bounds_files_without_content_too(size: int, options: str) -> None:
    assert tree.memory(0o1777, size) == options


def test_the_tables_of_the_kernel_are_widened(tmp_path: Path) -> None:
    assert {"fs/file-max", "fs/aio-max-nr", "kernel/pty/max", "kernel/threads-max"} <= {*boot._WIDE}
    for name in boot._WIDE.keys() - {"fs/aio-max-nr"}:  # not every kernel has all of them
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    boot.widen_tables(str(tmp_path))
    assert (tmp_path / "fs/file-max").read_text() == str(2**63 - 1)
    most = int((tmp_path / "kernel/pty/max").read_text())
    reserve = int((tmp_path / "kernel/pty/reserve").read_text())
    assert boot.MAX_AGENTS == MAX_AGENTS
    assert reserve == boot.MAX_AGENTS * boot.TERMINALS < most
