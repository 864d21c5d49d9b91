"""A sandbox that uses a secret never has it, and can send it nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.sandbox import Sandbox
from tests.support.sandboxes import guest_root, python, shell, succeeded
from tests.support.secret_sites import (
    API,
    GIT,
    SECOND,
    SECRETS,
    TOKEN,
    SecretSites,
    in_memory,
    sandbox_with_secrets,
    secret_sites,
)

USE_ALL = f"""
curl -sS -H "Authorization: Bearer $TOKEN" https://{API}/ -o /tmp/api &&
curl -sS -H "X-Api-Key: $KEY" https://{SECOND}/ -o /tmp/second &&
git clone -q "https://me:$GIT_TOKEN@{GIT}/repo.git" $(mktemp -d)/c && cat /tmp/api /tmp/second
"""


@pytest.fixture(scope="module")
async def sites(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecretSites]:
    async with secret_sites(tmp_path_factory.mktemp("sites")) as serving:
        yield serving


@pytest.fixture(scope="module")
async def sandbox(
    sites: SecretSites, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sandbox]:
    project = tmp_path_factory.mktemp("secrets") / "project"
    project.mkdir()
    async with sandbox_with_secrets(sites, project) as running:
        yield running


async def test_no_byte_of_the_machine_is_a_secrets(sandbox: Sandbox, sites: SecretSites) -> None:
    """After every secret was used, and repeated by servers: the whole memory is searched.

    Files in memory, caches of files, every process and the kernel are in it; there is no disk.
    """
    answer = succeeded(await shell(sandbox, USE_ALL, timeout=110))
    assert sites.api.requests[-1].header("authorization") == f"Bearer {TOKEN}"
    held = succeeded(await shell(sandbox, 'printf "%s " "$TOKEN" "$KEY" "$GIT_TOKEN"')).split()
    assert held[0] in answer and held[1] in answer
    memory = sandbox.machine.memory
    for secret in SECRETS.values():
        assert not in_memory(memory, secret.encode())
        assert not in_memory(memory, secret[8:].encode())
    for placeholder in held:  # the control: what is there is found
        assert in_memory(memory, placeholder.encode())


SEARCH = """
import os
wanted = [bytes.fromhex(each) for each in %r]
found, looked = [], 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid():
        continue
    for name in ("environ", "cmdline"):
        try:
            data = open(f"/proc/{pid}/{name}", "rb").read()
        except OSError:
            continue
        looked += 1
        found += [(pid, name) for each in wanted if each in data]
print(looked, found)
"""


async def test_no_variable_and_no_argument_holds_one(sandbox: Sandbox) -> None:
    """As the guest's root, of every process."""
    spelled = [secret.encode().hex() for secret in SECRETS.values()]
    looked, found = succeeded(await guest_root(sandbox, SEARCH % (spelled,))).split(" ", 1)
    assert int(looked) > 4 and found.strip() == "[]"


async def test_the_authoritys_key_is_not_in_the_machine(sandbox: Sandbox) -> None:
    """Only certificates are; and they are for the hosts of secrets."""
    memory = sandbox.machine.memory
    assert in_memory(memory, b"-----BEGIN CERTIFICATE-----\nMIIB")
    shown = succeeded(
        await shell(sandbox, "cat /etc/corral/*; openssl x509 -text -in /etc/corral/authority.pem")
    )
    assert "PRIVATE" not in shown
    constraints = shown[shown.index("Permitted") : shown.index("Excluded")]
    assert all(f"DNS:{name}" in constraints for name in (API, GIT, SECOND))
    assert constraints.count("DNS:") == 3


@pytest.mark.parametrize(
    ("curl", "status"),
    [
        (f'-H "Host: {SECOND}" https://{API}/', "421"),
        (f"--request-target https://{SECOND}/ https://{API}/", "421"),
        (f'-H "X-Elsewhere: $TOKEN" https://{API}/', "200"),
        (f"https://{API}/?token=$TOKEN", "200"),
        (f"-d $TOKEN https://{API}/", "200"),
        (f'-H "Authorization: Bearer $TOKEN" https://{SECOND}/', "200"),
    ],
)
async def test_a_placeholder_elsewhere_stays_one(
    sandbox: Sandbox, sites: SecretSites, curl: str, status: str
) -> None:
    servers = (sites.api, sites.second)
    for server in servers:
        server.requests.clear()
    result = await shell(sandbox, f'curl -sS -o /dev/null -w "%{{http_code}} " {curl}')
    assert succeeded(result).strip() == status
    assert TOKEN not in repr([server.requests for server in servers])


CONNECT = f"""
import socket, ssl
raw = socket.create_connection(("{API}", 443), 20)
context = ssl.create_default_context()
context.check_hostname = False
tls = context.wrap_socket(raw, server_hostname=%r)
print("connected", tls.version())
"""


@pytest.mark.parametrize("name", [SECOND, "elsewhere.test", None])
async def test_another_name_in_tls_leads_nowhere(
    sandbox: Sandbox, sites: SecretSites, name: str | None
) -> None:
    before = (sites.api.connections, sites.second.connections)
    result = await python(sandbox, CONNECT % name)
    assert result.status != 0 and "connected" not in result.stdout
    assert before == (sites.api.connections, sites.second.connections)
    control = await python(sandbox, CONNECT % API)
    assert "connected TLSv1.3" in succeeded(control)


async def test_over_plain_http_nothing_is_put_in(sandbox: Sandbox, sites: SecretSites) -> None:
    """A secret's host is not even reached without TLS."""
    sites.api.requests.clear()
    asked = await shell(sandbox, f'curl -sS -H "Authorization: $TOKEN" http://{API}/')
    assert "may not connect" in asked.stdout
    script = f'printf "GET / HTTP/1.1\\r\\nHost: {API}\\r\\nAuthorization: $TOKEN\\r\\n\\r\\n"'
    plain = f"{script} | timeout 20 openssl s_client -quiet -connect {API}:443 -no_servername"
    assert (await shell(sandbox, plain)).stdout == ""
    assert sites.api.requests == []


def test_the_interceptors_process_is_confined(sandbox: Sandbox) -> None:
    """No secret in its variables or arguments, no capability, and namespaces of its own."""
    found = [process for process in Path("/proc").iterdir() if _runs_interceptor(process)]
    assert found
    for process in found:
        seen = _read(process / "environ") + _read(process / "cmdline")
        assert b"TOKEN=" not in seen
        assert not any(secret.encode() in seen for secret in SECRETS.values())
        assert b"CapEff:\t0000000000000000" in _read(process / "status")
        for namespace in ("user", "pid", "mnt", "ipc", "uts"):
            try:
                theirs = (process / "ns" / namespace).readlink()
            except PermissionError:
                continue  # it is not dumpable: to its own user not even that is shown
            assert theirs != Path("/proc/self/ns", namespace).readlink()


def _runs_interceptor(process: Path) -> bool:
    """Not the bubblewrap around it, whose arguments end alike."""
    line = _read(process / "cmdline") if process.name.isdigit() else b""
    return line.endswith(b"\0-m\0corral.gateway.intercept\0") and b"--unshare" not in line


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_two_sandboxes_have_nothing_in_common(
    sandbox: Sandbox, sites: SecretSites, tmp_path: Path
) -> None:
    """Neither authority nor placeholder; each one's placeholder means nothing to the other."""
    fields = "-noout -pubkey -serial -subject_hash"
    show = f"openssl x509 -in /etc/corral/authority.pem {fields};"
    show += 'printf "%s\\n" "$TOKEN" "$KEY" "$GIT_TOKEN"'
    project = tmp_path / "other"
    project.mkdir()
    async with sandbox_with_secrets(sites, project) as other:
        ours, theirs = [succeeded(await shell(each, show)) for each in (sandbox, other)]
        token = theirs.splitlines()[-3]
        use = f'curl -sS -o /dev/null -H "Authorization: Bearer {token}" https://{API}/'
        succeeded(await shell(sandbox, use))
        assert sites.api.requests[-1].header("authorization") == f"Bearer {token}"
        succeeded(await shell(other, use))
        assert sites.api.requests[-1].header("authorization") == f"Bearer {TOKEN}"
    common = set(ours.splitlines()) & set(theirs.splitlines())
    assert all(line.startswith("-----") for line in common)
