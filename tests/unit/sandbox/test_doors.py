"""Helper processes that hold keys: what one sees, what it is given, what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from corral.errors import HostError
from corral.events import Event, Notice
from corral.host import Facts, Need, measure
from corral.policy import Key
from corral.proc import Helpers, Process
from corral.proc.bwrap import Bind
from corral.sandbox.doors import Door, for_keys, opened, writable_folders
from corral.search import without
from tests.support import examples, leftovers

SECRET = "sk-the-real-key-0123456789"
DOOR = """
import json, os, pathlib, socket, sys
keys = []
with open(11, "rb", closefd=False) as pipe:
    for line in pipe:
        keys.append(json.loads(line))
        if len(keys) == 1:
            break
os.write(12, json.dumps({"notice": "up\\x1b[31m"}).encode() + b"\\n")
listener = socket.socket(fileno=20)
while True:
    connection, _ = listener.accept()
    connection.sendall(json.dumps({
        "config": json.loads(os.pread(10, 4096, 0)), "keys": keys, "argv": sys.argv,
        "environ": dict(os.environ), "root": sorted(os.listdir("/")), "uid": os.getuid(),
        "kept": os.path.exists("/kept"), "etc": sorted(os.listdir("/etc")),
        "programs": [name for place in ("/bin", "/usr/bin", "/usr/sbin", "/usr/local/bin")
                     if os.path.isdir(place) for name in os.listdir(place)],
        "home": os.path.exists(os.environ["THE_HOME"]), "net": os.readlink("/proc/self/ns/net"),
        "pids": [name for name in os.listdir("/proc") if name.isdigit()],
        "fds": sorted(map(int, os.listdir("/proc/self/fd"))),
    }).encode())
    connection.close()
"""


@pytest.fixture(scope="module")
def facts() -> Facts:
    return measure(need=Need(kvm=False, user_namespaces=False))


class Setting:
    """A run folder, what was reported, and a door that is described."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self.facts = facts
        self.events: list[Event] = []
        self.more = asyncio.Event()
        self.environ = {**os.environ, "OTHER": "of the user"}
        self.key = folder / "key"
        self.key.write_text(f"{SECRET}\n")
        (folder / "sockets").mkdir()
        module = folder / "code" / "a_door.py"
        module.parent.mkdir()
        module.write_text(DOOR)
        self.door = Door(
            what="the door",
            module="a_door",
            packages=("msgspec",),
            config=b'{"some": "thing"}',
            sockets=("door-1",),
            keys={"one": Key(kind="file", value=(str(self.key),))},
            folder=folder / "kept",
            further=(Bind(str(module.parent), str(module.parent)),),
            environment={"PYTHONPATH": str(module.parent), "THE_HOME": str(Path.home())},
        )
        (folder / "kept").mkdir()

    def notices(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice)]

    def report(self, event: Event) -> None:
        self.events.append(event)
        self.more.set()

    async def notice(self, number: int) -> str:
        """The message of a notice, once it is there."""
        async with asyncio.timeout(20):
            while len(self.notices()) <= number:
                self.more.clear()
                await self.more.wait()
        return self.notices()[number]


@pytest.fixture
def setting(tmp_path: Path, facts: Facts) -> Setting:
    return Setting(tmp_path, facts)


@pytest_asyncio.fixture
async def door(setting: Setting) -> AsyncIterator[Process]:
    assert setting.facts.bwrap is not None
    root = os.getuid() == 0
    async with (
        Helpers.start(setting.facts.bwrap.argv, root=root, run_folder=None) as helpers,
        opened(
            setting.door,
            helpers,
            setting.folder,
            setting.facts,
            setting.environ,
            setting.report,
        ) as process,
    ):
        yield process


async def report_of(setting: Setting) -> dict[str, Any]:
    """What the door says of itself; the connection waits until it is up."""
    reader, writer = await asyncio.open_unix_connection(setting.folder / "sockets" / "door-1")
    async with asyncio.timeout(20):
        said = json.loads(await reader.read())
    writer.close()
    assert isinstance(said, dict)
    return said


@pytest.mark.usefixtures("door")
async def test_a_door_gets_its_configuration_and_its_keys(setting: Setting) -> None:
    said = await report_of(setting)
    assert said["config"] == {"some": "thing"}
    assert [(found["name"], found["key"]) for found in said["keys"]] == [("one", SECRET)]


@pytest.mark.usefixtures("door")
async def test_a_door_sees_python_and_no_program_and_no_file_of_the_user(setting: Setting) -> None:
    said = await report_of(setting)
    assert not [name for name in said["programs"] if not name.startswith("python")]
    assert said["kept"]
    home = str(Path.home())
    if not sys.prefix.startswith(home) and not sys.base_prefix.startswith(home):
        assert not said["home"]
    allowed = {"ssl", "pki", "ca-certificates", "resolv.conf", "hosts", "nsswitch.conf"}
    assert set(said["etc"]) <= {*allowed, "gai.conf", "ld.so.cache"}
    assert "OTHER" not in said["environ"]
    assert SECRET not in json.dumps([said["argv"], said["environ"], said["config"]])


@pytest.mark.usefixtures("door")
async def test_a_door_has_the_hosts_network_and_no_process_of_the_host(setting: Setting) -> None:
    said = await report_of(setting)
    assert said["net"] == os.readlink("/proc/self/ns/net")  # noqa: PTH115
    assert len(said["pids"]) <= 3
    assert said["uid"] == 65534
    # Its own three, what it was given, and what it opened meanwhile: the connection, a listing.
    assert set(said["fds"]) <= {0, 1, 2, 10, 11, 12, 20, *range(3, 8)}


async def test_no_process_has_the_key_in_its_arguments_or_environment(
    setting: Setting, door: Process
) -> None:
    await report_of(setting)
    assert door.pid
    looked = []
    for process in leftovers.family():
        with contextlib.suppress(psutil.NoSuchProcess):  # another's, gone a moment ago
            words, variables = process.cmdline(), process.environ()
            assert SECRET not in " ".join(words)
            assert SECRET not in "".join(variables.values())
            looked += words
    assert any("a_door" in word for word in looked)


@pytest.mark.usefixtures("door")
async def test_its_socket_is_the_users_alone(setting: Setting) -> None:
    status = (setting.folder / "sockets" / "door-1").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600


@pytest.mark.usefixtures("door")
async def test_what_a_door_tells_is_shown_without_control_characters(setting: Setting) -> None:
    assert await setting.notice(0) == "the door: up\\x1b[31m"


@pytest.mark.usefixtures("door")
async def test_a_door_that_ends_is_told_once_and_refuses_connections(setting: Setting) -> None:
    await report_of(setting)
    (process,) = [p for p in leftovers.running("a_door") if p.name().startswith("python")]
    os.kill(process.pid, signal.SIGKILL)
    told = await setting.notice(1)
    assert told.startswith("the door was ended by SIGKILL; what leads through it fails")
    with pytest.raises(ConnectionRefusedError):
        await report_of(setting)


async def test_a_key_that_is_not_there_is_told_to_the_door(setting: Setting, facts: Facts) -> None:
    assert facts.bwrap is not None
    setting.key.unlink()
    async with (
        Helpers.start(facts.bwrap.argv, root=os.getuid() == 0, run_folder=None) as helpers,
        opened(setting.door, helpers, setting.folder, facts, setting.environ, setting.report),
    ):
        said = await report_of(setting)
    (found,) = said["keys"]
    assert found["key"] is None
    assert found["problem"] == f"{setting.key} cannot be read: No such file or directory."


def test_nothing_leads_a_program_for_a_key_into_the_workspace(tmp_path: Path) -> None:
    workspace, share = tmp_path / "w", tmp_path / "s"
    (workspace / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "link").symlink_to(workspace)
    environ = {
        "PATH": f"{workspace}/.venv/bin:/usr/bin:{tmp_path}/link/bin:{tmp_path}/./w/bin:/bin",
        "PYTHONPATH": str(workspace),
        "NODE_PATH": f"{share}/node:/usr/lib/node",
        "PWD": str(workspace),
        "VIRTUAL_ENV": f"{workspace}/.venv",
        "HOME": "/home/ada",
        "BESIDE": f"{tmp_path}/ww",
        "EMPTY": "",
        "KEY": "sk-a:b",
    }
    assert without(environ, (str(workspace), str(share))) == {
        "PATH": "/usr/bin:/bin",
        "NODE_PATH": "/usr/lib/node",
        "HOME": "/home/ada",
        "BESIDE": f"{tmp_path}/ww",
        "EMPTY": "",
        "KEY": "sk-a:b",
    }
    assert without(environ, ()) == environ


def test_nor_where_another_sandbox_could_put_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, mine = tmp_path / "before", tmp_path / "mine"
    monkeypatch.setattr("corral.sandbox.doors.changeable", lambda: frozenset({str(before)}))
    environ = {
        "PATH": f"{before}/bin:{mine}/bin:/usr/bin",
        "PASSWORD_STORE_DIR": str(before),
        "X": f"{mine}",
    }
    assert for_keys(environ, (str(mine),)) == {
        "PATH": "/usr/bin",
        "PASSWORD_STORE_DIR": str(before),
    }


def test_what_a_sandbox_can_write_is_told_by_its_plan() -> None:
    plan = examples.plan(examples.spec(workspace={"read_only": True}))
    assert writable_folders(plan) == ()
    assert examples.PROJECT in writable_folders(examples.plan())


async def test_a_variable_that_is_not_set_where_it_is_started_is_an_error(
    setting: Setting,
) -> None:
    """Before anything is started: no process of this test is there."""
    keys = {"one": Key(kind="env", value=("NOT_SET_HERE",))}
    door = dataclasses.replace(setting.door, keys=keys)
    with pytest.raises(HostError, match="NOT_SET_HERE, which is not set here"):
        async with opened(
            door,
            None,  # type: ignore[arg-type]  # nothing is to be started
            setting.folder,
            setting.facts,
            setting.environ,
            setting.report,
        ):
            raise AssertionError
