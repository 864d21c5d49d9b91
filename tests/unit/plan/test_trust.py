"""What a sandbox with secrets is given besides: files, variables, and Java's store."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.gateway.intercept.authority import Authority
from corral.plan.trust import (
    ALL,
    CERTIFICATE,
    DEFAULT_BUNDLE,
    FURTHER,
    JAVA,
    JAVA_STORE,
    Trust,
    certificates,
    java_store,
    placeholders,
    trusting,
)
from corral.policy import Key, Secret
from tests.support import examples

SECRET = Secret(
    name="TOKEN",
    hosts=("api.example.test",),
    header="authorization",
    key=Key(kind="env", value=("TOKEN",)),
)
AUTHORITY = Authority(("api.example.test",))
OTHERS = Authority(("other.example.test",)).pem


def trust(**changes: object) -> Trust:
    made = Trust(
        certificate=AUTHORITY.pem, hash=AUTHORITY.hash, placeholders={"TOKEN": "corralplaceholder"}
    )
    return msgspec.structs.replace(made, **changes)


def files_of(given: Trust) -> dict[str, str]:
    """What is added, by path."""
    before = examples.plan().agents[0].setup["files"]
    after = trusting(examples.plan(), given).agents[0].setup["files"]
    assert isinstance(before, list) and isinstance(after, list)
    assert after[: len(before)] == before
    return {file[0]: file[1] for file in after[len(before) :]}


def variables_of(given: Trust, **wanted: Mapping[str, Any]) -> dict[str, str]:
    plan = examples.plan(examples.spec(**wanted))
    return dict(trusting(plan, given).agents[0].environment)


def test_the_authority_is_added_to_every_bundle() -> None:
    bundles = (("/etc/ssl/certs/ca-certificates.crt", OTHERS), ("/etc/ssl/cert.pem", "x"))
    files = files_of(trust(bundles=bundles))
    assert files["/etc/ssl/certs/ca-certificates.crt"] == OTHERS + AUTHORITY.pem
    assert files["/etc/ssl/cert.pem"] == "x\n" + AUTHORITY.pem
    assert files[CERTIFICATE] == AUTHORITY.pem
    assert files[f"/etc/ssl/certs/{AUTHORITY.hash}.0"] == AUTHORITY.pem


def test_a_host_without_bundles_has_one_of_the_sandboxs_own() -> None:
    files = files_of(trust())
    assert files[DEFAULT_BUNDLE] == AUTHORITY.pem


def test_variables_name_the_files() -> None:
    variables = variables_of(trust(bundles=(("/etc/ssl/cert.pem", OTHERS),)))
    assert {variables[name] for name in ALL} == {"/etc/ssl/cert.pem"}
    assert {variables[name] for name in FURTHER} == {CERTIFICATE}
    assert variables["TOKEN"] == "corralplaceholder"
    assert JAVA not in variables


def test_what_the_user_has_set_stays() -> None:
    variables = variables_of(trust(), run={"env": (("SSL_CERT_FILE", "/mine"),)})
    assert variables["SSL_CERT_FILE"] == "/mine"


def test_a_copy_is_told_the_placeholders_that_it_holds() -> None:
    plan = msgspec.structs.replace(examples.plan(), secrets=(SECRET,))
    assert placeholders(plan) == {}
    assert placeholders(trusting(plan, trust())) == {"TOKEN": "corralplaceholder"}


def test_the_name_by_hash_is_openssls(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    (tmp_path / "ca.pem").write_text(AUTHORITY.pem)
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-hash", "-in", str(tmp_path / "ca.pem")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == AUTHORITY.hash


def test_java_has_a_store_of_its_own() -> None:
    there = files_of(trust(java=("/etc/ssl/certs/java/cacerts",), has_java=True))
    store = base64.b64decode(there["/etc/ssl/certs/java/cacerts"])
    assert store.startswith(bytes.fromhex("feedfeed 00000002 00000001"))
    assert ssl.PEM_cert_to_DER_cert(AUTHORITY.pem) in store
    # A Java from elsewhere, which has no store in /etc, is told where one is.
    assert variables_of(trust(has_java=True))[JAVA].endswith(JAVA_STORE)
    assert JAVA_STORE in files_of(trust(has_java=True))
    assert not [path for path in files_of(trust()) if "cacerts" in path]


def test_keytool_reads_it(tmp_path: Path) -> None:
    if shutil.which("keytool") is None:
        pytest.skip("no Java")
    store = tmp_path / "cacerts"
    store.write_bytes(java_store(certificates(OTHERS + "\n" + AUTHORITY.pem)))
    shown = subprocess.run(
        ["keytool", "-list", "-v", "-keystore", str(store), "-storepass", "changeit"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "contains 2 entries" in shown.stdout and "corral sandbox" in shown.stdout
