"""Writes the corpus from the tests' own examples: python -m tests.fuzz.make_corpus"""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.unit.policy.hellos import hello, openssl, plain, records, server_name
from tests.unit.policy.test_names import ROWS

FOLDER = Path(__file__).parent / "corpus"
GET = b"GET /x HTTP/1.1\r\nHost: allowed.test\r\nAccept: */*\r\n\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: allowed.test\r\n" + CHUNKS
UPGRADE = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def seeds() -> dict[str, list[bytes]]:
    """A few for each target; of the names every twelfth, and what is oddest."""
    texts = [text.encode("utf-8", "surrogatepass") for text, _, _ in ROWS[::12]]
    hellos = [
        plain("allowed.test"),
        openssl("allowed.test"),
        openssl("evil.test"),
        records(hello(server_name(b"allowed.test")), [1, 5, 9]),
    ]
    requests = [GET, GET + GET, POST, UPGRADE + b"x", GET.replace(b"allowed", b"evil")]
    rules = [b"@python", b"*.x.org:443", b"[2001:db8::/32]:443", b"a.test=127.0.0.1:80", b"0:80"]
    return {
        "names": texts,
        "rules": rules,
        "tls": [bytes([size]) + each for size, each in zip((1, 7, 90, 255), hellos, strict=True)],
        "http": [bytes([9 * (n + 1)]) + each for n, each in enumerate(requests)],
    }


def main() -> None:
    """Files by their hash; those that are there stay."""
    for target, found in seeds().items():
        folder = FOLDER / target
        folder.mkdir(parents=True, exist_ok=True)
        for seed in found:
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


if __name__ == "__main__":
    main()
