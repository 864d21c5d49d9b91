from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from corral.errors import ImageError
from corral.images.modules import load_order, module_name, read_module, read_tree

from .builders import module, module_tree

RELEASE = "6.1.0-test"


def names(order: tuple[Path, ...]) -> list[str | None]:
    return [module_name(str(path)) for path in order]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    modules = {
        "kernel/fs/fuse/virtiofs.ko.xz": lzma.compress(module("fuse", "virtio-ring")),
        "kernel/fs/fuse/fuse.ko.zst": zstandard.compress(module()),
        "kernel/drivers/virtio/virtio_ring.ko.gz": gzip.compress(module()),
        "kernel/drivers/virtio/virtio-rng.ko": module("virtio_ring", "rng_core"),
        "kernel/net/broken.ko": b"not a module",
        "kernel/net/9p/9p.ko": module("9pnet"),
    }
    return module_tree(tmp_path, RELEASE, modules, "kernel/drivers/char/hw_random/rng-core.ko\n")


def test_modules_come_after_what_they_depend_on_and_once(tree: Path) -> None:
    order = load_order(read_tree(tree), ("virtiofs", "virtio_rng", "fuse"))
    assert names(order) == ["fuse", "virtio_ring", "virtiofs", "virtio_rng"]


def test_a_built_in_module_needs_no_file(tree: Path) -> None:
    assert load_order(read_tree(tree), ("rng-core",)) == ()


def test_a_missing_module_is_named_with_the_kernel(tree: Path) -> None:
    with pytest.raises(ImageError, match=r"6\.1\.0-test has no module overlay") as caught:
        load_order(read_tree(tree), ("virtiofs", "overlay"))
    assert caught.value.hint


def test_a_missing_dependency_is_named_with_who_needs_it(tree: Path) -> None:
    with pytest.raises(ImageError, match="no module 9pnet, which 9p needs"):
        load_order(read_tree(tree), ("9p",))


def test_a_damaged_module_is_named(tree: Path) -> None:
    with pytest.raises(ImageError, match=r"broken\.ko is damaged"):
        load_order(read_tree(tree), ("broken",))


def test_modules_that_depend_on_each_other_do_not_hang(tmp_path: Path) -> None:
    folder = module_tree(tmp_path, RELEASE, {"a.ko": module("b"), "b.ko": module("a")})
    assert names(load_order(read_tree(folder), ("a",))) == ["b", "a"]


def test_an_updated_module_replaces_the_kernels_own(tmp_path: Path) -> None:
    modules = {"updates/dkms/x.ko": module(), "kernel/x.ko": module("missing")}
    folder = module_tree(tmp_path, RELEASE, modules)
    assert load_order(read_tree(folder), ("x",)) == (folder / "updates/dkms/x.ko",)


def test_each_compression_is_read(tree: Path) -> None:
    for path in read_tree(tree).files.values():
        if path.name != "broken.ko":
            assert read_module(path).startswith(b"\x7fELF")


def test_a_folder_that_holds_no_modules_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"modules\.builtin"):
        read_tree(tmp_path)
