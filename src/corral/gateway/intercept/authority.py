"""The certificate authority of one sandbox, and certificates by it. The private key never leaves.

Made at each start, for the hosts of the sandbox's secrets only (name constraints, RFC 5280,
4.2.1.10). Keys are on the curve P-256: made in well under a millisecond, and taken by every client.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import secrets
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A sandbox that runs for longer has to be started again; nothing else ever trusts this.
LIFETIME = datetime.timedelta(days=30)
LEAF_LIFETIME = datetime.timedelta(days=2)
RENEWED = datetime.timedelta(days=1)  # before its end
EARLIER = datetime.timedelta(hours=1)  # a guest's clock may be behind
_EVERY_ADDRESS = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate for one name, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    until: datetime.datetime


class Authority:
    """A new one with each object. names: which it may certify, "*.name" for all below."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._leaves: dict[str, Leaf] = {}
        now = _now()
        number = secrets.token_hex(4)
        self._subject = f"corral sandbox {number}"
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._subject)])
        bare = sorted({name.removeprefix("*.") for name in names})
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.NameConstraints(
                    permitted_subtrees=[x509.DNSName(name) for name in bare],
                    excluded_subtrees=[
                        x509.IPAddress(ipaddress.ip_network(every)) for every in _EVERY_ADDRESS
                    ],
                ),
                critical=True,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def hash(self) -> str:
        """How OpenSSL names its file in a folder of certificates (X509_NAME_hash).

        SHA-1 over the names as sets of UTF-8 strings in lower case, its first four bytes backwards.
        """
        text = self._subject.encode()
        value = bytes((0x0C, len(text))) + text  # UTF8String
        oid = bytes.fromhex("0603550403")  # commonName
        pair = bytes((0x30, len(oid) + len(value))) + oid + value
        digest = hashlib.sha1(bytes((0x31, len(pair))) + pair, usedforsecurity=False).digest()
        return f"{int.from_bytes(digest[:4], 'little'):08x}"

    def leaf(self, name: str) -> Leaf:
        """A certificate for exactly this name; the same one for a day."""
        now = _now()
        known = self._leaves.get(name)
        if known is not None and now < known.until - RENEWED:
            return known
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(now + LEAF_LIFETIME, self.certificate.not_valid_after_utc)
        short = len(name) <= 64  # of a common name (RFC 5280, appendix A: ub-common-name)
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if short else []
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(attributes))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=not short)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        if len(self._leaves) >= 256:  # of "*.name"; a guest chooses them
            self._leaves.clear()
        leaf = Leaf(certificate, key, until)
        self._leaves[name] = leaf
        return leaf


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
