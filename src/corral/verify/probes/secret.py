"""Secrets for other hosts: a placeholder inside, the secret on the way to its hosts only."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
from pathlib import Path

from ... import extras
from ...paths import log_dir
from ..judging import breach_if, runnable, tried_if
from ..model import NotTried
from ..registry import Registry
from ..scenes import Networked
from ..servers import MARK, Got, plain, response

SECRETS = Registry("secrets")
probe = SECRETS.probe

# tls(): a request through TLS that trusts what programs here trust; keeps what came as `name`.
TLS = """
import ssl
TOKEN = os.environ.get("VERIFY_TOKEN", "none")
def tls(name, host, dial=None, target="/", further=None, method="GET", body=b"", inner=None,
        check=True):
    context = ssl.create_default_context()
    if not check:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = further if further is not None else f"x-verify: {TOKEN}\\r\\n"
    data = (f"{method} {target} HTTP/1.1\\r\\nHost: {inner or host}\\r\\n{head}"
            f"Connection: close\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n").encode() + body
    answer = b""
    try:
        with socket.create_connection((dial or host, 443), 15) as plain:
            with context.wrap_socket(plain, server_hostname=host) as s:
                s.sendall(data)
                while piece := s.recv(65536):
                    answer += piece
        outcome[name] = answer.decode("latin-1") or "closed"
    except (OSError, ssl.SSLError) as error:
        outcome[name] = answer.decode("latin-1") or f"{type(error).__name__}: {error}"
"""


async def asked(scene: Networked, code: str) -> dict[str, str]:
    """The answers that the jail got, by name. The servers have forgotten what came before."""
    if not scene.plan.secrets:
        raise NotTried(f"mitmproxy is not installed: {extras.install('intercept')}")
    answer = scene.servers.secret.answer
    scene.servers.reset()
    scene.servers.secret.answer = answer
    found = await scene.jail(TLS + code, seconds=60)
    runnable(found)
    return found


async def control(scene: Networked) -> None:
    """The secret is put in, on the way to its host."""
    scene.servers.secret.answer = plain
    if "secrets" in scene.shown:
        return
    found = await asked(scene, f"tls('plain', {scene.SECRET!r})")
    got = scene.servers.secret.got
    tried_if(got, f"no request reaches its host either: {found['plain'][:120]}")
    put_in = scene.servers.token in got[0].header(scene.HEADER)
    tried_if(put_in, "the secret was not put in on the way to its host either")
    tried_if(MARK.decode() in found["plain"], "the answer did not arrive")
    scene.shown.add("secrets")


def no_token(scene: Networked, *texts: str) -> None:
    """Raises Breach where the secret, or a good part of it, is in one of these."""
    token = scene.servers.token
    for text in texts:
        breach_if(token in text or token[13:45] in text, "the secret is in it")


def passed(got: list[Got]) -> str:
    """All that servers got."""
    return json.dumps([(each.line, each.headers, each.body.decode("latin-1")) for each in got])


@probe(
    "placeholder-inside",
    "secret-hosts",
    "The sandbox has the secret, in its environment or its files.",
    scene="network",
)
async def placeholder(scene: Networked) -> str:
    await control(scene)
    found = await scene.jail("outcome.update(os.environ)")
    runnable(found)
    no_token(scene, json.dumps(found))
    held = found.get(scene.TOKEN, "")
    tried_if(held, "there is no placeholder")
    return f"a placeholder of {len(held)} characters; its host gets the secret"


@probe(
    "placeholder-to-another-host",
    "secret-hosts",
    "The placeholder is sent to a host that is not the secret's.",
    scene="network",
)
async def another_host(scene: Networked) -> str:
    await control(scene)
    good = scene.GOOD
    await asked(
        scene,
        f"""
data = f"GET /?t={{TOKEN}} HTTP/1.1\\r\\nHost: {good}\\r\\nx-verify: {{TOKEN}}\\r\\n\\r\\n".encode()
with socket.create_connection(({good!r}, 80), 15) as s:
    s.sendall(data)
    outcome["answer"] = s.recv(65536).decode()
""",
    )
    got = scene.servers.good.got
    tried_if(got, "the request did not arrive")
    no_token(scene, passed(got))
    return "the placeholder arrives as it is"


@probe(
    "placeholder-elsewhere",
    "secret-hosts",
    "The placeholder is sent to its host in another header, in the URL and in the body.",
    scene="network",
)
async def elsewhere(scene: Networked) -> str:
    await control(scene)
    await asked(
        scene,
        f"""
host = {scene.SECRET!r}
tls("header", host, further=f"x-other: {{TOKEN}}\\r\\ncookie: {{TOKEN}}\\r\\n")
tls("URL", host, target=f"/{{TOKEN}}?t={{TOKEN}}", further="")
tls("body", host, method="POST", body=TOKEN.encode(), further="")
""",
    )
    got = scene.servers.secret.got
    tried_if(len(got) == 3, f"{len(got)} of 3 requests arrived")
    no_token(scene, passed(got))
    return "it stays a placeholder in two headers, the URL and the body"


@probe(
    "host-inside-tls",
    "secret-hosts",
    "Inside TLS to the secret's host the request names another host.",
    scene="network",
)
async def host_inside(scene: Networked) -> str:
    await control(scene)
    names = (scene.GOOD, scene.BAD, "x.secret.test", "secret.test.bad.test", "secret.test@bad.test")
    code = "\n".join(f"tls({n!r}, {scene.SECRET!r}, inner={n!r})" for n in names)
    code += f"\ntls('URL', {scene.SECRET!r}, target='https://{scene.BAD}/')"
    found = await asked(scene, code)
    servers = scene.servers
    got = [*servers.secret.got, *servers.good.got, *servers.bad.got]
    no_token(scene, passed(got))
    wrong = [each.header("host") for each in servers.secret.got]
    breach_if([name for name in wrong if name != scene.SECRET], f"passed on: {wrong}")
    tried_if(len(found) == len(names) + 1, "not all could be tried")
    return f"{len(found)} refused"


@probe(
    "server-name-of-another",
    "secret-hosts",
    "The ClientHello on a connection to the secret's host names another host.",
    scene="network",
)
async def server_name(scene: Networked) -> str:
    await control(scene)
    names = (scene.GOOD, scene.BAD, scene.FORGED)
    lines = [f"tls({n!r}, {n!r}, dial={scene.SECRET!r}, check=False)" for n in names]
    found = await asked(scene, "\n".join(lines))
    breach_if(scene.servers.secret.got, "the request was passed on")
    through = [name for name, text in found.items() if MARK.decode() in text]
    breach_if(through, f"went through: {through}")
    return f"{len(names)} refused"


@probe(
    "secret-echoed",
    "secret-hosts",
    "The secret's host repeats it: in its body, in small pieces, compressed, in headers.",
    scene="network",
)
async def echoed(scene: Networked) -> str:
    await control(scene)
    header = scene.HEADER

    def pieces(got: Got) -> bytes:
        text = f"you sent {got.header(header)}".encode()
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body

    def zipped(got: Got) -> bytes:
        return response(gzip.compress(got.header(header).encode()), "content-encoding: gzip")

    def in_header(got: Got) -> bytes:
        return response(b"{}", f"x-echo: {got.header(header)}", f"location: /{got.header(header)}")

    def in_body(got: Got) -> bytes:
        return response(got.header(header).encode())

    for name, answer in (
        ("body", in_body),
        ("pieces", pieces),
        ("gzip", zipped),
        ("headers", in_header),
    ):
        scene.servers.secret.answer = answer
        found = await asked(scene, f"tls({name!r}, {scene.SECRET!r})")
        tried_if(scene.servers.secret.got, f"the request did not arrive ({name})")
        text = found[name]
        no_token(scene, text, text.replace("\r\n1\r\n", ""), _unzipped(text))
    return "not in four kinds of answers"


def _unzipped(text: str) -> str:
    data = text.encode("latin-1")
    start = data.find(b"\x1f\x8b")
    try:
        return gzip.decompress(data[start:]).decode("latin-1") if start >= 0 else ""
    except (OSError, EOFError):
        return ""


@probe(
    "forged-server",
    "secret-hosts",
    "A server that nobody has certified stands in for the secret's host.",
    scene="network",
)
async def forged(scene: Networked) -> str:
    await control(scene)
    found = await asked(scene, f"tls('forged', {scene.FORGED!r})")
    breach_if(scene.servers.forged.got, "a request was passed on to it")
    breach_if(MARK.decode() in found["forged"], "its answer was passed on")
    log = (log_dir(scene.plan.name) / "network.jsonl").read_text()
    tried_if(scene.FORGED in log, "it was not connected to")
    return f"it gets no request; the sandbox hears: {found['forged'].splitlines()[0][:60]}"


@probe(
    "authority-of-its-own",
    "own-authority",
    "The authority that the sandbox trusts is on the host, is used again, or certifies all hosts.",
    scene="network",
)
async def authority(scene: Networked) -> str:
    await control(scene)
    from cryptography import x509

    found = await scene.jail("""
with open("/etc/corral/authority.pem") as file:
    outcome["pem"] = file.read()
for path in ("/etc/corral", "/etc/ssl/private"):
    for name in os.listdir(path) if os.path.isdir(path) else ():
        with open(f"{path}/{name}", "rb") as file:
            if b"PRIVATE KEY" in file.read():
                outcome["key"] = name
""")
    runnable(found)
    breach_if("key" in found, "its private key is in the sandbox")
    certificate = x509.load_pem_x509_certificate(found["pem"].encode())
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    permitted = {str(name.value) for name in constraints.value.permitted_subtrees or ()}
    breach_if(not constraints.critical or not permitted, "it certifies every host")
    strange = permitted - {scene.SECRET, scene.FORGED}
    breach_if(strange, f"it certifies {', '.join(sorted(strange))}")
    line = found["pem"].splitlines()[1]
    for bundle in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if Path(bundle).exists():
            breach_if(line in Path(bundle).read_text(), "this host trusts it")
    return f"for {', '.join(sorted(permitted))} only; neither on the host nor with its key inside"


@probe(
    "authority-is-not-used-again",
    "own-authority",
    "Two sandboxes are given the same authority, or it lies on a disk in between.",
    scene="network",
)
async def not_again(scene: Networked) -> str:
    await control(scene)
    from ...gateway.intercept.authority import Authority
    from ...paths import cache_dir, state_dir

    one, other = Authority((scene.SECRET,)), Authority((scene.SECRET,))
    same = one.pem == other.pem or one.hash == other.hash
    breach_if(same, "two that are made one after the other are the same")
    found = await scene.jail("outcome['pem'] = open('/etc/corral/authority.pem').read()")
    runnable(found)
    lines = found["pem"].splitlines()[1:3]
    for folder in (state_dir(), cache_dir(), scene.sandbox.folder):
        for path in folder.rglob("*.pem"):
            text = path.read_text(errors="replace")
            breach_if(all(line in text for line in lines), f"it is in {path}")
    return "new at each start, on no disk"


@probe(
    "interceptor-for-other-names",
    "own-authority",
    "The interceptor is asked for a host that has no secret, at its own socket.",
    scene="network",
)
async def other_names(scene: Networked) -> str:
    await control(scene)
    path = scene.sandbox.folder / "sockets" / "intercept"
    tried_if(path.exists(), "there is no such socket")
    scene.servers.reset()
    for name in (scene.GOOD, scene.BAD, "x.secret.test"):
        line = json.dumps(
            {
                "agent": 1,
                "name": name,
                "port": 443,
                "addresses": ["127.0.0.1"],
                "to_port": scene.servers.secret.port,
            }
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(path))
            client.sendall(line.encode() + b"\n")
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            try:
                with context.wrap_socket(client, server_hostname=name):
                    breach_if(True, f"it certifies {name}")
            except (OSError, ssl.SSLError):
                continue
    breach_if(scene.servers.secret.connections, "it dialled")
    return "three names, each hung up on"
