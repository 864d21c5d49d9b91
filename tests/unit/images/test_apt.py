"""apt is run for real here, on archives that lie in the test's own folder or nowhere."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from corral.errors import FetchError, ImageError
from corral.images import apt as apt_module
from corral.images.apt import Apt, parse_packages, parse_plan
from corral.images.sources import Archive, debian_suite

from .conftest import Reports

SHOWN = """\
Package: linux-image-cloud-amd64
Version: 6.1.192-2
Installed-Size: 13
Pre-Depends: dpkg (>= 1.15)
Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), kmod:any | module-init-tools
Description: Linux
 Depends: not this
Size: 1504

Package: linux-image-cloud-amd64
Version: 6.1.176-1
Size: 1500

Package: kmod
Version: 30
"""


def test_what_apt_shows_is_read() -> None:
    kernel, kmod = parse_packages(SHOWN)
    assert (kernel.version, kernel.size, kernel.installed) == ("6.1.192-2", 1504, 13 * 1024)
    assert kernel.depends == (
        "dpkg",
        "linux-image-6.1.0-56-cloud-amd64",
        "kmod",
        "module-init-tools",
    )
    assert (kmod.name, kmod.depends) == ("kmod", ())
    assert parse_packages("N: Unable to locate package x") == []


def test_what_apt_would_install_is_read() -> None:
    plan = "Inst libc6 (2.41-12 Debian:13.4/stable [amd64]) []\nConf libc6 (2.41-12 ...)\n"
    assert parse_plan(plan) == ["libc6=2.41-12"]


needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this is not Debian")


@needs_apt
def test_a_mirror_that_cannot_be_reached_says_what_was_tried(cache: Path, report: Reports) -> None:
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    suite = debian_suite("http://127.0.0.1:9/debian", "trixie", keyring)
    apt = Apt("trixie", [suite], report)
    with pytest.raises(FetchError) as caught:
        apt.with_fresh_lists(lambda: pytest.fail("the lists are there"))
    assert "http://127.0.0.1:9/debian trixie" in caught.value.message
    assert "127.0.0.1" in (caught.value.detail or "")
    assert caught.value.hint


@needs_apt
@pytest.mark.parametrize("options", ["", "Trusted: yes\n"])
def test_an_unsigned_archive_is_refused(
    tmp_path: Path, cache: Path, report: Reports, options: str
) -> None:
    archive = tmp_path / "archive/dists/evil"
    (archive / "main/binary-amd64").mkdir(parents=True)
    listed = b"Package: virtiofsd\nVersion: 99\nArchitecture: amd64\nFilename: x.deb\nSize: 1\n"
    (archive / "main/binary-amd64/Packages").write_bytes(listed)
    digest = hashlib.sha256(listed).hexdigest()
    release = f"Suite: evil\nCodename: evil\nSHA256:\n {digest} {len(listed)} "
    (archive / "Release").write_text(release + "main/binary-amd64/Packages\n")
    uri = f"file:{tmp_path}/archive"
    from corral.images.sources import parse

    stanza = f"Types: deb\nURIs: {uri}\nSuites: evil\nComponents: main\n{options}"
    apt = Apt("evil", parse("evil.sources", stanza), report)
    with pytest.raises(FetchError, match=r"apt-get update") as caught:
        apt.with_fresh_lists(lambda: apt.show("virtiofsd"))
    assert "not signed" in (caught.value.detail or "")
    assert "keyring" in (caught.value.hint or "")


@needs_apt
def test_a_full_disk_is_known_before_the_download(
    cache: Path, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(1 << 30, (1 << 30) - (5 << 20), 5 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
    apt = Apt("x", [Archive(("file:/nowhere",), ("x",), ("main",), "")], report)
    with pytest.raises(ImageError, match=r"needs 160 MiB in .*; 5 MiB are free") as caught:
        apt.update()
    assert "CORRAL_CACHE_DIR" in (caught.value.hint or "")


def test_a_host_without_apt_is_told_so(
    cache: Path, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt_module, "_PATH", "/nowhere")
    with pytest.raises(FetchError, match="no apt-get") as caught:
        Apt("x", [], report)
    assert caught.value.hint


def test_apts_programs_are_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "ran"
    for name in ("setpriv", "apt-get", "sh"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = apt_module.run(["sh", "-c", "echo $PATH"])
    assert str(tmp_path) not in done.stdout and "/usr/bin" in done.stdout
    assert not mark.exists()


@needs_apt
def test_hooks_of_this_hosts_apt_are_not_run(
    tmp_path: Path, cache: Path, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other programs' hooks clean the host's own archives, or talk to its desktop."""
    mark = tmp_path / "hook-ran"
    hooks = tmp_path / "hooks.conf"
    hooks.write_text(f'APT::Update::Pre-Invoke {{"touch {mark}";}};\n')
    real = apt_module.run

    def with_hooks(argv: list[str], cwd: Path | None = None) -> object:
        return real(["env", f"APT_CONFIG={hooks}", *argv], cwd)

    monkeypatch.setattr(apt_module, "run", with_hooks)
    apt = Apt("x", [Archive(("file:/nowhere",), ("x",), ("main",), "")], report)
    apt.update()
    assert not mark.exists()
