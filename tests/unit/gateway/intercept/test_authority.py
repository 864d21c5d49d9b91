"""What a sandbox's authority may certify."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from corral.gateway.intercept.authority import LIFETIME, Authority, Leaf


def shake(authority: Authority, leaf: Leaf, name: str, folder: Path) -> None:
    """A handshake in memory between a client that trusts the authority, and the leaf's owner."""
    file = folder / "leaf.pem"
    file.write_bytes(
        leaf.certificate.public_bytes(serialization.Encoding.PEM)
        + leaf.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    owner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    owner.load_cert_chain(file)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.create_default_context(cadata=authority.pem)
    client = trusting.wrap_bio(back, there, server_hostname=name)
    server = owner.wrap_bio(there, back, server_side=True)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for each in (client, server):
            try:
                each.do_handshake()
                done.add(each)
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("name", ["api.example.test", "a.wild.test", "b.a.wild.test"])
def test_it_certifies_the_hosts_of_secrets(tmp_path: Path, name: str) -> None:
    authority = Authority(("api.example.test", "*.wild.test"))
    shake(authority, authority.leaf(name), name, tmp_path)


@pytest.mark.parametrize("name", ["example.test", "other.test", "notapi.example.test"])
def test_and_no_other_name_is_believed(tmp_path: Path, name: str) -> None:
    authority = Authority(("api.example.test", "*.wild.test"))
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        shake(authority, authority.leaf(name), name, tmp_path)


def test_a_certificate_is_made_once_a_day_and_ends_with_the_authority() -> None:
    authority = Authority(("api.example.test",))
    leaf = authority.leaf("api.example.test")
    assert authority.leaf("api.example.test") is leaf
    until = authority.certificate.not_valid_after_utc
    assert leaf.until <= until
    assert until - authority.certificate.not_valid_before_utc < 2 * LIFETIME


def test_many_names_take_no_memory_without_end() -> None:
    authority = Authority(("*.wild.test",))
    for number in range(600):
        authority.leaf(f"n{number}.wild.test")
    assert len(authority._leaves) <= 256
