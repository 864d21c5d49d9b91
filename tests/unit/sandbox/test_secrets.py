"""The interceptor as a sandbox starts it: a real process, without a machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from importlib import util
from pathlib import Path

import msgspec
import psutil
import pytest

from corral.errors import HostError, PlanError
from corral.events import Event, Notice
from corral.host import Facts, Need, measure
from corral.plan import Plan
from corral.plan.trust import placeholders
from corral.policy import Key, Secret
from corral.proc import Helpers
from corral.sandbox import secrets
from corral.sandbox.secrets import Intercepting, check_extra, intercepting
from tests.support import examples, leftovers
from tests.support.https import TestAuthority, echo, serving

HOST = "api.example.test"
TOKEN = "ghp_r3aLr3aLr3aLr3aLr3aLr3aLr3aLr3aL"


@pytest.fixture(scope="module")
def facts() -> Facts:
    return measure(need=Need(kvm=False, user_namespaces=False))


def plan_with(key: Path, *hosts: str) -> Plan:
    secret = Secret(
        name="TOKEN",
        hosts=hosts or (HOST,),
        header="authorization",
        key=Key(kind="file", value=(str(key),)),
    )
    return msgspec.structs.replace(examples.plan(), secrets=(secret,))


class Setting:
    """A folder with a key in it, and what was reported."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder = folder
        self.facts = facts
        self.key = folder / "key"
        self.key.write_text(f"{TOKEN}\n")
        self.authority = TestAuthority(folder / "ca")
        self.events: list[Event] = []
        self.told = asyncio.Event()
        self.runs = 0

    @contextlib.asynccontextmanager
    async def started(
        self, *hosts: str, held: dict[str, str] | None = None
    ) -> AsyncIterator[Intercepting]:
        """An interceptor."""
        assert self.facts.bwrap is not None
        self.runs += 1
        run_folder = self.folder / f"run-{self.runs}"
        (run_folder / "sockets").mkdir(parents=True)
        environ = {**os.environ, "SSL_CERT_FILE": str(self.authority.file)}
        async with (
            Helpers.start(self.facts.bwrap.argv, root=os.getuid() == 0, run_folder=None) as helpers,
            intercepting(
                plan_with(self.key, *hosts),
                helpers,
                run_folder,
                self.facts,
                environ,
                self.report,
                held or {},
            ) as door,
        ):
            yield door

    def report(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Notice):
            self.told.set()

    def notices(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def setting(tmp_path: Path, facts: Facts) -> Setting:
    return Setting(tmp_path, facts)


async def asked(door: Intercepting, port: int, placeholder: str) -> bytes:
    """One request as the engine brings it."""
    trust = ssl.create_default_context(cadata=certificate(door.plan))
    reader, writer = await asyncio.open_unix_connection(str(door.socket))
    # As the policy may have it: asked for on 443, dialled elsewhere.
    line = {"agent": 1, "name": HOST, "port": 443, "addresses": ["127.0.0.1"], "to_port": port}
    writer.write(json.dumps(line).encode() + b"\n")
    async with asyncio.timeout(20):
        await writer.start_tls(trust, server_hostname=HOST)
        head = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        writer.write(f"{head}Authorization: Bearer {placeholder}\r\n\r\n".encode())
        back = await reader.read()
    writer.close()
    return back


def certificate(plan: Plan) -> str:
    """The sandbox's authority, as its programs find it."""
    files = plan.agents[0].setup["files"]
    assert isinstance(files, list)
    (text,) = [file[1] for file in files if file[0] == "/etc/corral/authority.pem"]
    return str(text)


async def test_the_secret_goes_out_and_is_in_no_process_but_one(setting: Setting) -> None:
    async with (
        serving(setting.authority.context(HOST), echo) as server,
        setting.started() as door,
    ):
        placeholder = placeholders(door.plan)["TOKEN"]
        assert placeholder.startswith("ghp_") and len(placeholder) == len(TOKEN)
        back = await asked(door, server.port, placeholder)
        for process in leftovers.family():
            assert TOKEN not in " ".join(process.cmdline())
            with contextlib.suppress(psutil.AccessDenied):  # of a jail's, which root may look into
                assert TOKEN not in "".join(process.environ().values())
    assert server.requests[0].header("authorization") == f"Bearer {TOKEN}"
    assert TOKEN.encode() not in back and placeholder.encode() in back
    assert setting.notices() == []


async def test_a_copy_keeps_its_placeholders_and_has_an_authority_of_its_own(
    setting: Setting,
) -> None:
    async with serving(setting.authority.context(HOST), echo) as server:
        async with setting.started() as source:
            held = placeholders(source.plan)
            async with setting.started(held=held) as copy:
                assert placeholders(copy.plan) == held
                assert certificate(source.plan) != certificate(copy.plan)
                await asked(copy, server.port, held["TOKEN"])
        # The secret has changed since, its length too: what the copy holds goes on to work.
        setting.key.write_text(TOKEN[:-3])
        async with setting.started(held=held) as later:
            back = await asked(later, server.port, held["TOKEN"])
    sent = [request.header("authorization") for request in server.requests]
    assert sent == [f"Bearer {TOKEN}", f"Bearer {TOKEN[:-3]}"]
    assert TOKEN[:-3].encode() not in back and held["TOKEN"][:-3].encode() in back


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("short", "it has 5 characters; 12 to 4096 can be used"),
        ("with a space in it", "characters that no header may have"),
        ("", "is empty"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_told_before_anything_starts(
    setting: Setting, content: str, message: str
) -> None:
    setting.key.write_text(content)
    with pytest.raises(HostError, match=message) as caught:
        async with setting.started():
            pass
    assert "TOKEN" in caught.value.message
    assert not content or content not in caught.value.message
    assert caught.value.hint


async def test_one_that_is_not_there_is_told(setting: Setting) -> None:
    setting.key.unlink()
    with pytest.raises(HostError, match="cannot be read"):
        async with setting.started():
            pass


async def test_an_interceptor_that_ends_is_told_and_refuses(setting: Setting) -> None:
    async with setting.started() as door:
        (process,) = [
            each
            for each in leftovers.family()
            if each.cmdline()[-2:] == ["-m", "corral.gateway.intercept"]
            and not each.cmdline()[0].endswith("bwrap")
        ]
        os.kill(process.pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            await setting.told.wait()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(str(door.socket))
    assert "the interceptor" in setting.notices()[0]


async def test_a_server_that_is_not_trusted_is_told(setting: Setting, tmp_path: Path) -> None:
    stranger = TestAuthority(tmp_path / "stranger", "a stranger")
    async with serving(stranger.context(HOST), echo) as server, setting.started() as door:
        back = await asked(door, server.port, placeholders(door.plan)["TOKEN"])
    assert back.startswith(b"HTTP/1.1 502") and server.requests == []
    assert any("ertificate verify failed" in message for message in setting.notices())


def test_the_extra_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = util.find_spec
    monkeypatch.setattr(
        secrets, "find_spec", lambda name: None if name == "mitmproxy" else there(name)
    )
    with pytest.raises(PlanError, match="TOKEN") as caught:
        check_extra(plan_with(tmp_path / "key"))
    assert caught.value.hint and "[intercept]" in caught.value.hint
