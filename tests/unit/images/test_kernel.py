from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from corral.errors import FetchError, ImageError
from corral.events import Phase
from corral.images import kernel_package, kernel_sources
from corral.images.apt import Package
from corral.images.kernel import ensure_kernel
from corral.images.kernel_package import FoundKernel, candidates, kernel_dependencies

from . import builders
from .conftest import Reports

RELEASE = "6.1.0-test"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A kernel of the user's own, with its modules beside it."""
    modules = {
        "kernel/virtio.ko": builders.module(),
        "kernel/virtio_pci.ko": builders.module("virtio"),
    }
    builders.module_tree(tmp_path, RELEASE, modules, "kernel/fs/overlayfs/overlay.ko\n")
    path = tmp_path / "vmlinuz"
    path.write_bytes(builders.kernel())
    return path


def test_the_users_kernel_is_unpacked_and_its_modules_ordered(
    cache: Path, image: Path, report: Reports
) -> None:
    kernel = ensure_kernel(wanted=image, modules=("virtio_pci", "overlay"), report=report)
    assert kernel.image.read_bytes().startswith(b"\x7fELF")
    assert kernel.release == RELEASE
    assert [path.name for path in kernel.modules] == ["virtio.ko", "virtio_pci.ko"]
    assert str(image) in kernel.origin
    assert any(isinstance(event, Phase) and event.name == "kernel" for event in report)


def test_the_second_time_it_is_remembered(
    cache: Path, image: Path, report: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ensure_kernel(wanted=image, modules=("virtio_pci",), report=report)
    monkeypatch.setattr(kernel_sources, "find", lambda *_: pytest.fail("looked for again"))
    report.clear()
    assert ensure_kernel(wanted=image, modules=("virtio_pci",), report=report) == first
    assert report == []


@pytest.mark.parametrize("damage", ["vmlinux", "record", "all"])
def test_a_damaged_cache_is_made_again(
    cache: Path, image: Path, report: Reports, damage: str
) -> None:
    first = ensure_kernel(wanted=image, modules=("virtio_pci",), report=report)
    whole = first.image.read_bytes()
    if damage == "vmlinux":
        first.image.write_bytes(whole[:100])
    elif damage == "record":
        next((cache / "kernels").glob("*.json")).write_bytes(b"{")
    else:
        shutil.rmtree(cache)
    again = ensure_kernel(wanted=image, modules=("virtio_pci",), report=report)
    assert again == first
    assert again.image.read_bytes() == whole


def test_a_changed_module_is_noticed(
    cache: Path, image: Path, report: Reports, tmp_path: Path
) -> None:
    ensure_kernel(wanted=image, modules=("virtio_pci",), report=report)
    module = tmp_path / "lib/modules" / RELEASE / "kernel/virtio_pci.ko"
    module.write_bytes(builders.module("virtio", "not_there"))
    with pytest.raises(ImageError, match="no module not_there, which virtio_pci needs"):
        ensure_kernel(wanted=image, modules=("virtio_pci",), report=report)


def test_a_missing_module_names_module_and_kernel(
    cache: Path, image: Path, report: Reports
) -> None:
    with pytest.raises(ImageError, match=rf"{RELEASE} has no module 9p\."):
        ensure_kernel(wanted=image, modules=("9p",), report=report)


def test_what_is_no_kernel_is_said(cache: Path, tmp_path: Path, report: Reports) -> None:
    for path, reason in ((tmp_path / "none", "cannot read"), (Path("/bin/sh"), "not a Linux")):
        with pytest.raises(ImageError, match=reason) as caught:
            ensure_kernel(wanted=path, modules=(), report=report)
        assert "machine.kernel" in (caught.value.hint or "")


def test_a_kernel_without_its_modules_says_where_they_were_looked_for(
    cache: Path, image: Path, report: Reports, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "lib")
    with pytest.raises(ImageError, match=rf"looked in {tmp_path}/lib/modules/{RELEASE}"):
        ensure_kernel(wanted=image, modules=("virtio",), report=report)


def test_an_elf_kernel_that_qemu_cannot_start_is_said(
    cache: Path, image: Path, report: Reports
) -> None:
    banner = f"Linux version {RELEASE} (someone)".encode()
    image.write_bytes(builders.elf(tail=banner))
    with pytest.raises(ImageError, match="PVH") as caught:
        ensure_kernel(wanted=image, modules=(), report=report)
    assert "vmlinuz" in (caught.value.hint or "")


def test_a_kernel_that_cannot_be_unpacked_is_booted_as_it_is(
    cache: Path, image: Path, report: Reports
) -> None:
    image.write_bytes(builders.bzimage(b"\x89LZO1234", 8))
    assert ensure_kernel(wanted=image, modules=(), report=report).image == image


def test_nixos_comes_before_the_hosts_own(tmp_path: Path) -> None:
    nixos = tmp_path / "run/booted-system"
    builders.module_tree(nixos / "kernel-modules", "6.6-nixos", {})
    builders.module_tree(tmp_path, RELEASE, {})
    (tmp_path / "boot").mkdir()
    for name in (f"vmlinuz-{RELEASE}", "vmlinuz-6.0-other"):
        (tmp_path / "boot" / name).touch()
    found = list(kernel_sources.on_host(tmp_path, RELEASE))
    assert [(kernel.image, kernel.release) for kernel in found] == [
        (nixos / "kernel", "6.6-nixos"),
        (tmp_path / f"boot/vmlinuz-{RELEASE}", RELEASE),
    ]


def test_a_host_kernel_that_lacks_a_module_is_passed_over_and_said(
    cache: Path, image: Path, report: Reports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = FoundKernel(image, tmp_path / "lib/modules" / RELEASE, RELEASE, "this host's own")
    monkeypatch.setattr(kernel_sources, "on_host", lambda *_: [own])

    def offline(*_: object) -> FoundKernel:
        raise FetchError("no mirror.", hint="Connect.", detail="E: Could not resolve")

    monkeypatch.setattr(kernel_sources, "fetch", offline)
    kernel = ensure_kernel(wanted=None, modules=("virtio_pci",), report=report)
    assert kernel.origin == "this host's own"
    with pytest.raises(FetchError) as caught:
        ensure_kernel(wanted=None, modules=("virtiofs",), report=report)
    assert "no mirror." in caught.value.message
    assert f"not used: {image}" in caught.value.message
    assert "no module virtiofs" in caught.value.message
    assert (caught.value.hint, caught.value.detail) == ("Connect.", "E: Could not resolve")


def test_the_small_kernel_is_taken_unless_9p_is_wanted() -> None:
    assert candidates("cloud", "amd64")[0] == "linux-image-cloud-amd64"
    assert candidates("generic", "arm64") == ("linux-image-arm64", "linux-image-generic")


def test_kernels_and_modules_are_told_from_other_dependencies() -> None:
    def depends(*names: str) -> list[str]:
        return kernel_dependencies(Package("x", "1", names, 0, 0))

    assert depends("linux-image-6.1.0-56-cloud-amd64", "kmod", "linux-base") == [
        "linux-image-6.1.0-56-cloud-amd64"
    ]
    ubuntu = ("linux-image-6.8.0-31-generic", "linux-modules-extra-6.8.0-31-generic")
    assert depends(*ubuntu, "linux-firmware", "linux-headers-6.8.0-31") == list(ubuntu)
    assert depends("linux-modules-6.8.0-31-generic") == ["linux-modules-6.8.0-31-generic"]


@pytest.mark.parametrize("damage", ["image", "module", "stamp", "nothing"])
def test_a_damaged_unpacked_package_is_not_used(tmp_path: Path, damage: str) -> None:
    tree = builders.module_tree(tmp_path, RELEASE, {"kernel/virtio.ko": builders.module()})
    (tmp_path / "boot").mkdir()
    image = tmp_path / "boot" / f"vmlinuz-{RELEASE}"
    image.write_bytes(builders.kernel())
    stamp = kernel_package._stamp(tmp_path, "package x 1")
    (tmp_path / "corral.json").write_bytes(msgspec.json.encode(stamp))
    if damage == "image":
        image.write_bytes(b"half")
    elif damage == "module":
        (tree / "kernel/virtio.ko").write_bytes(b"")
    elif damage == "stamp":
        (tmp_path / "corral.json").unlink()
    whole = FoundKernel(image, tree, RELEASE, "package x 1")
    assert kernel_package._cached(tmp_path) == (whole if damage == "nothing" else None)
