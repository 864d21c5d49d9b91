"""The gateway: the key stays on the host, whatever the sandbox asks for and the upstream says."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

from ...paths import log_dir
from ..judging import breach_if, runnable, tried_if
from ..memory import without
from ..model import Breach, NotTried
from ..processes import Helper, descendants
from ..registry import Registry
from ..scenes import Networked
from ..servers import MARK, Got, response
from .through import ASK

GATEWAY = Registry("gateway")
probe = GATEWAY.probe

MODEL = "claude-haiku-4-5"
USAGE = {"input_tokens": 50_000, "output_tokens": 50_000}  # dear, for the budget

# message(): a request to a gateway; keeps what came back as `name`.
MESSAGE = """
import base64
def message(name, host="echo.corral.internal", model="claude-haiku-4-5", further="",
            target="/v1/messages", method="POST", data=None):
    body = data if data is not None else json.dumps({"model": model, "max_tokens": 8,
        "messages": [{"role": "user", "content": "hello"}]}).encode()
    head = (f"{method} {target} HTTP/1.1\\r\\nHost: {host}\\r\\nx-api-key: {PLACEHOLDER}\\r\\n"
            f"anthropic-version: 2023-06-01\\r\\ncontent-type: application/json\\r\\n{further}"
            f"Connection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n").encode()
    send(name, host.partition(":")[0], head + body)
def send(name, host, data, port=80, patience=5):
    try:
        with socket.socket() as s:
            s.settimeout(patience)
            s.connect((host, port))
            s.sendall(data)
            answer = b""
            while piece := s.recv(65536):
                answer += piece
    except OSError as error:
        if not answer_of(error, locals().get("answer")):
            outcome[name] = errno.errorcode.get(error.errno, str(error))
            return
        answer = locals()["answer"]
    outcome[name] = answer.decode("latin-1") or "closed"
def answer_of(error, answer):
    return bool(answer)
PLACEHOLDER = os.environ.get("ANTHROPIC_API_KEY", "none")
"""


def message(got: Got, further: tuple[str, ...] = (), text: str = "") -> bytes:
    """What a model API answers; text: what it says besides."""
    body = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": text or MARK.decode()}],
        "stop_reason": "end_turn",
        "usage": USAGE,
    }
    return response(json.dumps(body).encode(), "content-type: application/json", *further)


async def asked(scene: Networked, code: str) -> dict[str, str]:
    """The answers that the jail got, by name. The upstream has forgotten what came before."""
    tried_if(scene.plan.gateways, "this sandbox has no gateway")
    answer = scene.servers.model.answer
    scene.servers.reset()
    scene.servers.model.answer = answer
    found = await scene.jail(ASK + MESSAGE + code, seconds=60)
    runnable(found)
    return found


async def control(scene: Networked) -> None:
    """A request passes, and the real key is added to it."""
    scene.servers.model.answer = message
    found = await asked(scene, 'message("plain")')
    got = scene.servers.model.got
    tried_if(got, f"no request reaches the upstream either: {found['plain'][:120]}")
    tried_if(got[0].header("x-api-key") == scene.servers.key, "the key was not added")
    tried_if(MARK.decode() in found["plain"], "the answer did not arrive")


def no_key(scene: Networked, found: dict[str, str]) -> None:
    """Raises Breach where the key, or a good part of it, is in what the jail got."""
    key = scene.servers.key
    for name, text in found.items():
        breach_if(key in text or key[10:42] in text, f"the key is in the answer to “{name}”")


@probe(
    "key-is-added-on-the-host",
    "keys-stay",
    "The sandbox has the key, in place of a placeholder that the gateway replaces.",
    scene="network",
    cites=("CVE-2026-21852",),
)
async def added(scene: Networked) -> str:
    await control(scene)
    found = await scene.jail("outcome.update(os.environ)")
    runnable(found)
    no_key(scene, found)
    breach_if(scene.servers.key in str(found), "the key is in the jail's environment")
    tried_if(found.get("ANTHROPIC_API_KEY"), "there is no placeholder")
    return f"“{found['ANTHROPIC_API_KEY']}” inside, the key at the upstream"


@probe(
    "guests-credentials-are-dropped",
    "keys-stay",
    "The sandbox sends credentials, cookies and headers for proxies of its own to the upstream.",
    scene="network",
)
async def dropped(scene: Networked) -> str:
    await control(scene)
    own = "a-credential-of-the-guest"
    lines = "".join(
        f"{name}: {own}\\r\\n"
        for name in ("Authorization", "X-Api-Key", "Cookie", "Proxy-Authorization", "Api-Key")
    )
    await asked(scene, f'message("own", further="{lines}")')
    for got in scene.servers.model.got:
        passed = [name for name, value in got.headers if own in value]
        breach_if(passed, f"passed on: {', '.join(passed)}")
        breach_if(got.header("x-api-key") != scene.servers.key, "the key was not the only one")
    tried_if(scene.servers.model.got, "the request was not passed on")
    return "none of five arrives; the key does"


@probe(
    "paths-and-urls-at-the-gateway",
    "gateway-bounds",
    "Requests name other hosts, climb out of the API's path or use the gateway as a proxy.",
    scene="network",
)
async def paths(scene: Networked) -> str:
    await control(scene)
    servers = scene.servers
    bad = f"127.0.0.1:{servers.bad.port}"
    targets = (
        *(f"http://{bad}/v1/messages", f"//{bad}/v1/messages", f"@{bad}/", f"/v1/messages@{bad}"),
        *("/../admin", "/v1/../../admin", "/v1/%2e%2e/admin", "/v1//admin", "/admin", "/v1/files"),
    )
    lines = [f"message({target!r}, target={target!r})" for target in targets]
    lines.append(f'message("CONNECT", target={bad!r}, method="CONNECT")')
    found = await asked(scene, "\n".join(lines))
    breach_if(servers.bad.connections, "another server was reached")
    passed = [got.line for got in servers.model.got if "/v1/messages" not in got.line]
    strange = [line for line in passed if "admin" in line or ".." in line or bad in line]
    breach_if(strange, f"passed on with the key: {strange[:2]}")
    no_key(scene, found)
    tried_if(len(found) == len(targets) + 1, "not all could be tried")
    return f"{len(found)} requests, {len(servers.model.got)} of them passed on, to the API only"


@probe(
    "names-of-no-gateway",
    "gateway-bounds",
    "A request names a gateway that there is not, another host, or comes by another port.",
    scene="network",
)
async def no_gateway(scene: Networked) -> str:
    await control(scene)
    names = ("unknown.corral.internal", "corral.internal", "echo.corral.internal.x", scene.GOOD)
    lines = []
    for name in names:
        head = f"GET /v1/models HTTP/1.1\\r\\nHost: {name}\\r\\nConnection: close\\r\\n\\r\\n"
        lines.append(f'send({name!r}, "echo.corral.internal", b"{head}")')
    for port in (443, 8080):
        lines.append(f'send("port {port}", "echo.corral.internal", b"x", {port})')
    lines.append('message("no such", host="unknown.corral.internal")')
    found = await asked(scene, "\n".join(lines))
    breach_if(scene.servers.model.got, "a request was passed on")
    breach_if(scene.servers.good.got, "a request went to another server")
    tried_if(len(found) == len(names) + 3, "not all could be tried")
    return f"{len(found)} refused"


@probe(
    "request-smuggling",
    "gateway-bounds",
    "A request has two lengths, a folded header, or another request hidden in its body.",
    scene="network",
)
async def smuggling(scene: Networked) -> str:
    await control(scene)
    host = "echo.corral.internal"
    hidden = f"GET /v1/hidden HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n"
    start = f"POST /v1/messages HTTP/1.1\\r\\nHost: {host}\\r\\n"
    end = f"\\r\\n0\\r\\n\\r\\n{hidden}"
    attacks = (
        f"{start}Content-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n{end}",
        f"{start}Content-Length: 0\\r\\nContent-Length: 60\\r\\n\\r\\n{hidden}",
        f"{start}Transfer-Encoding: xchunked\\r\\n\\r\\n0\\r\\n\\r\\n{hidden}",
        f"{start}X: a\\r\\n b\\r\\nTransfer-Encoding : chunked\\r\\n\\r\\n0\\r\\n\\r\\n{hidden}",
        f"{start}X: a\\nTransfer-Encoding: chunked\\r\\n{end}",
    )
    lines = [f'send("{n}", {host!r}, b"{data}")' for n, data in enumerate(attacks)]
    found = await asked(scene, "\n".join(lines))
    lines_got = [got.line for got in scene.servers.model.got]
    breach_if([line for line in lines_got if "hidden" in line], "the hidden request was passed on")
    no_key(scene, found)
    return f"{len(attacks)} attempts, {len(lines_got)} requests passed on"


@probe(
    "models-that-are-not-listed",
    "gateway-bounds",
    "A request asks for a model that is not listed, also twice, in capitals and as a fallback.",
    scene="network",
)
async def models(scene: Networked) -> str:
    await control(scene)
    bodies = (
        '{"model": "gpt-x", "max_tokens": 1, "messages": []}',
        '{"model": "claude-haiku-4-5", "model": "gpt-x", "max_tokens": 1, "messages": []}',
        '{"model": "claude-haiku-4-5", "MODEL": "gpt-x", "max_tokens": 1, "messages": []}',
        '{"model": "claude-haiku-4-5", "models": ["gpt-x"], "max_tokens": 1, "messages": []}',
        '{"model": ["gpt-x"], "max_tokens": 1, "messages": []}',
        '{"max_tokens": 1, "messages": []}',
    )
    code = "\n".join(f"message('{n}', data={body.encode()!r})" for n, body in enumerate(bodies))
    found = await asked(scene, code)
    asked_for = [got.body.decode() for got in scene.servers.model.got]
    breach_if([body for body in asked_for if "gpt-x" in body], "another model was asked for")
    tried_if(len(found) == len(bodies), "not all could be tried")
    return f"{len(found)} requests, none for another model"


@probe(
    "budget-that-is-spent",
    "gateway-bounds",
    "Requests go on when the budget is spent.",
    scene="network",
)
async def budget(scene: Networked) -> str:
    scene.servers.model.answer = message
    host = "spent.corral.internal"
    found = await asked(scene, "\n".join(f"message('{n}', host={host!r})" for n in range(4)))
    passed = len(scene.servers.model.got)
    breach_if(passed > 1, f"{passed} requests were passed on, of a budget for one")
    tried_if(passed == 1, f"not even the first was passed on: {found['0'][:120]}")
    tried_if("budget" in found["3"], f"refused for another reason: {found['3'][-160:]}")
    return "the first one spends it, three are refused"


@probe(
    "requests-a-minute",
    "gateway-bounds",
    "More requests are made in a minute than are allowed.",
    scene="network",
)
async def rate(scene: Networked) -> str:
    scene.servers.model.answer = message
    host = "slow.corral.internal"
    found = await asked(scene, "\n".join(f"message('{n}', host={host!r})" for n in range(4)))
    passed = len(scene.servers.model.got)
    breach_if(passed > 1, f"{passed} requests were passed on, of one a minute")
    tried_if(passed == 1, f"not even the first was passed on: {found['0'][:120]}")
    tried_if(" 429 " in found["3"][:20], f"refused for another reason: {found['3'][:60]}")
    return "one is passed on, three get 429"


@probe(
    "key-in-the-guests-memory",
    "keys-stay",
    "All memory of the guest is searched for the key and the secret, after both were used.",
    scene="network",
)
async def in_memory(scene: Networked) -> str:
    await control(scene)
    return await without(scene, "a key", scene.servers.key, scene.servers.token)


@probe(
    "key-in-arguments-and-variables",
    "keys-stay",
    "A process of the sandbox on the host has the key in its arguments or environment.",
    scene="network",
)
async def in_processes(scene: Networked) -> str:
    count = 0
    for pid in descendants(scene.sandbox.machine.pid):
        for name in ("environ", "cmdline"):
            try:
                text = Helper(pid, "").read(name)
            except OSError:  # not for us to read: of a process that keeps keys
                continue
            held = scene.servers.key in text or scene.servers.token in text
            breach_if(held, f"process {pid} has a key in its {name}")
            count += 1
    tried_if(count > 8, "its processes could not be looked at")
    return f"not in {count} records"


@probe(
    "key-in-logs-and-transcripts",
    "keys-stay",
    "The key is in a log, a transcript or the run folder, or these are open to others.",
    scene="network",
)
async def in_logs(scene: Networked) -> str:
    await control(scene)
    count = 0
    for folder in (log_dir(scene.plan.name), scene.sandbox.folder):
        for path in folder.rglob("*"):
            if not path.is_file():
                continue
            data = path.read_bytes()
            secrets = (scene.servers.key.encode(), scene.servers.token.encode())
            breach_if([each for each in secrets if each in data], f"a key is in {path}")
            opened = path.stat().st_mode & 0o077 and data
            breach_if(opened, f"{path} is open to others")
            count += 1
    tried_if(_transcribed(log_dir(scene.plan.name)), "there is no transcript")
    return f"not in {count} files, the transcript among them"


def _transcribed(folder: Path) -> bool:
    return any("transcript" in path.name for path in folder.rglob("*"))


@probe(
    "gateway-process-is-confined",
    "confined",
    "The process that holds keys sees the user's files and variables, or may gain privileges.",
    scene="network",
)
async def confined(scene: Networked) -> str:
    pids = descendants(scene.sandbox.machine.pid)
    found = [each for each in map(_door, pids) if each is not None]
    tried_if(found, "there is no such process")
    for door in found:
        status = door.status()
        breach_if(status["NoNewPrivs"] != "1", f"{door.name} may gain privileges")
        breach_if(int(status["CapEff"], 16), f"{door.name} has capabilities")
        for kind in ("user", "pid", "ipc", "mnt", "uts"):
            same = door.namespace(kind) == Path(f"/proc/self/ns/{kind}").readlink()
            breach_if(same, f"{door.name} is in the host's {kind} namespace")
        root, home = door.path / "root", scene.facts.user.home.lstrip("/")
        try:
            tried_if(root.is_dir(), f"the root of {door.name} cannot be looked into")
            paths = ("etc/shadow", f"{home}/.ssh", f"{home}/.profile", "var/log", "run/user")
            seen = [path for path in paths if os.path.exists(root / path)]
        except PermissionError:
            raise NotTried(f"{door.name} lets nobody look, not even its own user") from None
        breach_if(seen, f"{door.name} sees /{', /'.join(seen)}")
        breach_if((root / str(scene.workspace).lstrip("/")).exists(), "it sees the workspace")
    return f"{', '.join(sorted({door.name for door in found}))}"


def _door(pid: int) -> Helper | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return None
    if Path(words[0]).name == "bwrap":
        return None
    names = [word for word in words if word.startswith("corral.gateway")]
    return Helper(pid, names[0]) if names else None


@probe(
    "key-holders-memory",
    "keys-stay",
    "Another process of the same user reads the memory of one that holds keys, or gets its core.",
    scene="network",
)
async def holders_memory(scene: Networked) -> str:

    found = [
        each for each in map(_door, descendants(scene.sandbox.machine.pid)) if each is not None
    ]
    tried_if(found, "there is no such process")
    for door in found:
        core = resource.prlimit(door.pid, resource.RLIMIT_CORE)[0]
        breach_if(core, f"{door.name} would write a core of {core} bytes")
        if os.getuid() != 0:  # root reads everything
            try:
                (door.path / "mem").open("rb").close()
            except PermissionError:
                continue
            raise Breach(f"the memory of {door.name} can be read")
    who = "read by no other process of this user" if os.getuid() else "for root it always is"
    return f"no core; {who}"
