"""Programs in a sandbox use secrets that they do not have: real clients, servers on loopback."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from corral.events import Connection, Notice
from corral.sandbox import Sandbox
from tests.support.copies import copies_of
from tests.support.sandboxes import python, run, sandbox_on, shell, succeeded
from tests.support.secret_sites import (
    API,
    GIT,
    PLAIN,
    SECOND,
    SECRETS,
    TOKEN,
    SecretSites,
    environment_of,
    sandbox_with_secrets,
    secret_sites,
)

needs_node = pytest.mark.skipif(
    not Path("/usr/bin/node").exists(), reason="this host has no node in /usr"
)
needs_java = pytest.mark.skipif(
    not Path("/usr/bin/javac").exists(), reason="this host has no Java in /usr"
)


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
    shutil.copy(sites.authority.file, project / "ca.pem")
    async with sandbox_with_secrets(sites, project) as running:
        yield running


def got(sites: SecretSites) -> str:
    """What the API was sent last."""
    return sites.api.requests[-1].header("authorization")


async def test_variables_hold_placeholders(sandbox: Sandbox) -> None:
    values = succeeded(await shell(sandbox, 'printf "%s\\n" "$TOKEN" "$GIT_TOKEN" "$KEY"')).split()
    for value, secret in zip(values, ("TOKEN", "GIT_TOKEN", "KEY"), strict=True):
        assert value != SECRETS[secret] and len(value) == len(SECRETS[secret])
    assert values[0].startswith("ghp_") and values[1].startswith("glpat-")


async def test_curl(sandbox: Sandbox, sites: SecretSites) -> None:
    script = f'curl -sS -D - -H "Authorization: Bearer $TOKEN" https://{API}/user'
    answer = succeeded(await shell(sandbox, script))
    assert got(sites) == f"Bearer {TOKEN}"
    assert "HTTP/1.1 200 OK" in answer and TOKEN not in answer


async def test_curl_over_http2(sandbox: Sandbox, sites: SecretSites) -> None:
    script = f'curl -sS -w "%{{http_version}}" -H "X-Api-Key: $KEY" https://{SECOND}/'
    answer = succeeded(await shell(sandbox, f'{script}; echo; echo "$KEY"'))
    placeholder, version, again = answer.split()
    assert version == "2" and placeholder == again
    assert sites.second.requests[-1].header("x-api-key") == SECRETS["KEY"]


URLLIB = f"""
import os, urllib.request
request = urllib.request.Request("https://{API}/urllib")
request.add_header("Authorization", "token " + os.environ["TOKEN"])
print(urllib.request.urlopen(request).read().decode())
"""


@pytest.mark.parametrize("variables", ["as they are", "without ours"])
async def test_python(sandbox: Sandbox, sites: SecretSites, variables: str) -> None:
    """Its defaults: a bundle or a folder of OpenSSL's, whether variables name them or not."""
    drop = (
        "import os; os.environ.pop('SSL_CERT_FILE', None)\n" if variables != "as they are" else ""
    )
    answer = succeeded(await python(sandbox, drop + URLLIB))
    assert got(sites) == f"token {TOKEN}" and TOKEN not in answer


async def test_pythons_requests(sandbox: Sandbox, sites: SecretSites) -> None:
    """pip's own copy, where there is no other."""
    code = "import os\ntry: import requests\nexcept ImportError: from pip._vendor import requests\n"
    code += f'print(requests.get("https://{API}/requests",'
    code += ' headers={"Authorization": "Bearer " + os.environ["TOKEN"]}).status_code)'
    assert succeeded(await python(sandbox, code)).strip() == "200"
    assert got(sites) == f"Bearer {TOKEN}"


NODE = f"""
const https = require("https"), headers = {{authorization: "Bearer " + process.env.TOKEN}};
https.get("https://{API}/https", {{headers}}, (answer) => {{
  answer.resume().on("end", async () => {{
    const second = await fetch("https://{API}/fetch", {{headers}});
    console.log(answer.statusCode, second.status, await second.text());
  }});
}});
"""


@needs_node
async def test_node(sandbox: Sandbox, sites: SecretSites) -> None:
    answer = succeeded(await run(sandbox, "node", "-e", NODE, timeout=110))
    assert answer.startswith("200 200 ") and TOKEN not in answer
    assert [request.path for request in sites.api.requests[-2:]] == ["/https", "/fetch"]
    assert got(sites) == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "how",
    [
        'git clone -q "https://me:$GIT_TOKEN@{host}/repo.git" {target}',
        'git -c http.extraheader="Authorization: Bearer $GIT_TOKEN" '
        "clone -q https://{host}/repo.git {target}",
    ],
    ids=["password", "extraheader"],
)
async def test_git(sandbox: Sandbox, how: str) -> None:
    script = f"d=$(mktemp -d) && {how.format(host=GIT, target='$d/c')} && cat $d/c/hello"
    answer = succeeded(await shell(sandbox, script, timeout=110))
    assert answer == "hello from the repository\n"


JAVA = f"""
import java.net.*;
class Get {{
  public static void main(String[] a) throws Exception {{
    var c = (HttpURLConnection) URI.create("https://{API}/java").toURL().openConnection();
    c.setRequestProperty("Authorization", "Bearer " + System.getenv("TOKEN"));
    System.out.println(c.getResponseCode());
  }}
}}
"""


@needs_java
async def test_java(sandbox: Sandbox, sites: SecretSites) -> None:
    project = Path(sandbox.plan.agents[0].workdir)
    (project / "Get.java").write_text(JAVA)
    made = await asyncio.create_subprocess_exec("javac", "Get.java", cwd=project)
    assert await made.wait() == 0
    result = await run(sandbox, "java", "-XX:TieredStopAtLevel=1", "Get", timeout=110)
    assert succeeded(result).strip() == "200"
    assert got(sites) == f"Bearer {TOKEN}"


async def test_a_host_without_a_secret_is_not_intercepted(
    sandbox: Sandbox, sites: SecretSites
) -> None:
    """Its certificate is its own, which the sandbox does not know; a placeholder stays one."""
    assert (await shell(sandbox, f"curl -sS https://{PLAIN}/")).status == 60
    script = f'curl -sS --cacert ca.pem -H "Authorization: Bearer $TOKEN" https://{PLAIN}/'
    answer = succeeded(await shell(sandbox, f'{script}; echo "$TOKEN"'))
    placeholder = answer.split()[-1]
    assert sites.plain.requests[-1].header("authorization") == f"Bearer {placeholder}"
    other = f"curl -sS --cacert ca.pem --capath /tmp https://{API}/"
    assert (await shell(sandbox, other)).status == 60


async def test_it_is_reported(sandbox: Sandbox, sites: SecretSites) -> None:
    """Connections by the rule that lets them out; a placeholder in the wrong place, once."""
    script = f'for i in 1 2; do curl -sS -d "$TOKEN" https://{API}/ -o /dev/null; done'
    succeeded(await shell(sandbox, script))
    rules = {
        event.rule for event in sites.told if isinstance(event, Connection) and event.name == API
    }
    assert rules == {"secret TOKEN"}
    told = [event.message for event in sites.told if isinstance(event, Notice)]
    notices = [message for message in told if "placeholder" in message]
    assert len(notices) == 1
    assert f"placeholder of TOKEN to {API} in the body" in notices[0]


WAITING = f"""
import os, time, urllib.request
while not os.path.exists("/tmp/go"):
    time.sleep(0.1)
request = urllib.request.Request("https://{API}/copied")
request.add_header("Authorization", "Bearer " + os.environ["TOKEN"])
status = urllib.request.urlopen(request).status
with open("result", "w") as file:
    print(status, file=file)
"""


async def test_a_copy_goes_on_with_its_placeholders_and_an_authority_of_its_own(
    sites: SecretSites, tmp_path: Path
) -> None:
    """A program that ran before, too."""

    async def before(source: Sandbox) -> None:
        await source.exec(["python3", "-c", WAITING])

    show = 'echo "$TOKEN"; openssl x509 -noout -serial -in /etc/corral/authority.pem'
    with environment_of(sites, tmp_path / "config") as overrides:
        async with copies_of(tmp_path, 1, before, overrides) as (source, copy):
            placeholder, serial = succeeded(await shell(source.sandbox, show)).split()
            theirs = succeeded(await shell(copy.sandbox, show)).split()
            assert theirs[0] == placeholder and theirs[1] != serial
            for each in (source, copy):
                sites.api.requests.clear()
                wait = "touch /tmp/go; while [ ! -s result ]; do sleep 0.1; done; cat result"
                assert succeeded(await shell(each.sandbox, wait)) == "200\n"
                assert got(sites) == f"Bearer {TOKEN}"


async def test_an_interceptor_that_is_killed_ends_connections_and_not_the_sandbox(
    sites: SecretSites, tmp_path: Path
) -> None:
    sites.told.clear()
    project = tmp_path / "project"
    project.mkdir()
    async with sandbox_with_secrets(sites, project) as running:
        ours = {process.pid for process in psutil.Process(running.machine.pid).children(True)}
        for process in map(psutil.Process, ours):
            line = process.cmdline()
            if line[-1:] == ["corral.gateway.intercept"] and "--unshare-pid" not in line:
                process.kill()
        first, second = [await shell(running, f"curl -sS https://{API}/") for _ in range(2)]
        assert first.status != 0 and second.status != 0
        assert succeeded(await shell(running, "echo well")) == "well\n"
    told = [event.message for event in sites.told if isinstance(event, Notice)]
    assert any("the interceptor" in message for message in told)
    reasons = {event.reason for event in sites.told if isinstance(event, Connection)}
    assert "the interceptor has ended" in reasons


async def test_without_secrets_nothing_of_all_this_is_there(tmp_path: Path) -> None:
    async with sandbox_on(tmp_path) as plain:
        found = await shell(plain, "env; ls /etc/corral /etc/ssl/certs | grep -i corral")
    assert "CERT" not in found.stdout and "CA_BUNDLE" not in found.stdout
