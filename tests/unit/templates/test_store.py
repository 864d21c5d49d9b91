"""The store of templates: found only when exactly what was written is there."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from corral import templates
from corral.events import Event, silent
from corral.images.watched import FileState
from corral.templates import store
from corral.templates.store import Shape


def shape(**changed: object) -> Shape:
    known: dict[str, object] = {
        "format": store.FORMAT,
        "arguments": ("-m", "512M"),
        "qemu": ("/usr/bin/qemu",),
        "qemu_version": "7.2.22",
        "qemu_files": (FileState("/usr/bin/qemu", 10, 20),),
        "kernel": FileState("/cache/vmlinux", 30, 40),
        "kernel_release": "6.1.0",
        "base": "abc",
        "jails": ({"number": 1, "uid_map": "0 1 1"},),
        "processor": "",
    }
    return Shape(**{**known, **changed})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(tmp_path))
    return tmp_path


def save(wanted: Shape, size: int = 4096) -> Path:
    """Make a template; returns its folder."""
    with templates.saving(wanted, "a machine", silent) as files:
        assert files is not None
        memory, state = files
        os.write(memory, b"m" * size)
        os.write(state, b"s")
    return store._root() / wanted.key


def is_found(wanted: Shape) -> bool:
    found = templates.find(wanted)
    if found is not None:
        found.close()
    return found is not None


def test_what_was_saved_is_found_and_can_be_read() -> None:
    assert templates.find(shape()) is None
    save(shape())
    found = templates.find(shape())
    assert found is not None
    assert (os.pread(found.memory, 9, 0), os.pread(found.state, 9, 0)) == (b"m" * 9, b"s")
    found.close()


CHANGES: dict[str, object] = {
    "format": store.FORMAT + 1,
    "arguments": ("-m", "1G"),
    "qemu": ("/opt/qemu",),
    "qemu_version": "10.0.2",
    "qemu_files": (FileState("/usr/bin/qemu", 10, 21),),
    "kernel": FileState("/cache/vmlinux", 30, 41),
    "kernel_release": "6.12.0",
    "base": "abd",
    "jails": ({"number": 1, "uid_map": "0 2 1"},),
    "processor": "another",
}


@pytest.mark.parametrize("part", msgspec.structs.fields(Shape), ids=lambda part: part.name)
def test_whatever_shaped_it_is_in_its_key(part: msgspec.structs.FieldInfo) -> None:
    save(shape())
    assert not is_found(shape(**{part.name: CHANGES[part.name]}))


def truncate(folder: Path) -> None:
    os.truncate(folder / "memory", 10)


def overwrite(folder: Path) -> None:
    """With another content of the same size, and the old times put back."""
    before = (folder / "state").stat()
    time.sleep(0.02)  # file times come from a clock that advances every few milliseconds
    (folder / "state").write_bytes(b"X")
    os.utime(folder / "state", ns=(before.st_atime_ns, before.st_mtime_ns))


def copied(folder: Path) -> None:
    """As somebody who brings a cache from elsewhere does, with all times kept."""
    shutil.copytree(folder, folder.with_name("other"), copy_function=shutil.copy2)
    shutil.rmtree(folder)
    folder.with_name("other").rename(folder)


def linked(folder: Path) -> None:
    (folder / "memory").rename(folder / "elsewhere")
    (folder / "memory").symlink_to("elsewhere")


def open_to_others(folder: Path) -> None:
    (folder / "state").chmod(0o666)


def without_memory(folder: Path) -> None:
    (folder / "memory").unlink()


def without_manifest(folder: Path) -> None:
    (folder / "template.json").unlink()


def nonsense(folder: Path) -> None:
    (folder / "template.json").write_bytes(b'{"shape": 3}')


def of_another_shape(folder: Path) -> None:
    """A template under the name of another one."""
    other = save(shape(base="zzz"))
    shutil.rmtree(folder)
    other.rename(folder)


@pytest.mark.parametrize(
    "damage",
    [
        *(truncate, overwrite, copied, linked, open_to_others),
        *(without_memory, without_manifest, nonsense, of_another_shape),
    ],
    ids=lambda function: function.__name__,
)
def test_a_damaged_or_foreign_one_is_not_believed_and_made_anew(
    damage: Callable[[Path], None],
) -> None:
    folder = save(shape())
    damage(folder)
    assert not is_found(shape())
    assert not any(entry.usable for entry in templates.entries())
    save(shape())
    assert is_found(shape())


def test_one_that_is_being_made_is_not_found_and_leaves_nothing_when_it_fails() -> None:
    with pytest.raises(RuntimeError), templates.saving(shape(), "a machine", silent):
        assert not is_found(shape())
        raise RuntimeError
    assert not is_found(shape())
    assert list(store._root().iterdir()) == []


def test_many_at_once_make_it_once() -> None:
    made, waited = [], []

    def report(event: Event) -> None:
        waited.append(event)

    def one() -> None:
        with templates.saving(shape(), "a machine", report) as files:
            if files is not None:
                made.append(files)
                time.sleep(0.1)
                os.write(files[0], b"m")

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(waited) == 5
    assert is_found(shape())


def test_the_least_recently_used_go_first() -> None:
    shapes = [shape(base=name) for name in "abc"]
    for number, each in enumerate(shapes):
        folder = save(each, 1 << 20)
        os.utime(folder / "template.json", (number, number))
    assert is_found(shapes[0])  # used just now
    removed = templates.prune(5 << 19, dry_run=True)
    assert [entry.key for entry in removed] == [shapes[1].key]
    assert all(is_found(each) for each in (shapes[1],)), "a dry run removes nothing"
    os.utime(store._root() / shapes[1].key / "template.json", (1, 1))
    templates.prune(5 << 19)
    assert [is_found(each) for each in shapes] == [True, False, True]
    templates.prune(0)
    assert templates.entries() == []


def test_the_store_never_grows_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_BYTES", 3 << 20)
    for name in "abcdef":
        save(shape(base=name), 1 << 20)
    assert sum(entry.size for entry in templates.entries()) <= 3 << 20
    assert is_found(shape(base="f")), "the one just made stays"


def test_who_has_it_open_is_not_disturbed_when_it_goes() -> None:
    save(shape())
    found = templates.find(shape())
    assert found is not None
    templates.prune(0)
    assert os.pread(found.memory, 3, 0) == b"mmm"
    found.close()


def test_one_that_could_not_be_restored_is_gone_and_not_made_again_soon() -> None:
    save(shape())
    templates.mark_broken(shape().key)
    assert not is_found(shape())
    assert templates.is_broken(shape().key)
    old = time.time() - store.BROKEN_SECONDS - 1
    os.utime(store._broken(shape().key), (old, old))
    assert not templates.is_broken(shape().key)
    templates.mark_broken(shape().key)
    templates.prune(0)
    assert not templates.is_broken(shape().key), "prune --all forgets that, too"


def test_one_that_had_been_there_for_long_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "NEW_SECONDS", 0.0)
    save(shape())
    templates.mark_broken(shape().key)
    assert not is_found(shape())
    assert not templates.is_broken(shape().key)


def test_what_was_left_half_made_is_swept_when_it_is_made_again() -> None:
    root = store._root()
    (root / f".{shape().key}.killed").mkdir()
    (root / f".{shape().key}.killed" / "memory").write_bytes(b"x")
    save(shape())
    assert [path.name for path in root.iterdir()] == [shape().key]


def test_what_another_process_is_making_is_left_alone() -> None:
    with templates.saving(shape(), "a machine", silent) as files:
        assert files is not None
        for fd in files:
            os.write(fd, b"x")
        templates.mark_broken(shape().key)
        templates.prune(0)
    assert is_found(shape())


def test_a_template_that_is_removed_meanwhile_is_not_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save(shape())
    kept = save(shape(base="other"))
    read = store._manifest

    def removed(folder: Path) -> object:
        if folder != kept:
            shutil.rmtree(folder)
        return read(folder)

    monkeypatch.setattr(store, "_manifest", removed)
    assert [entry.key for entry in templates.entries()] == [kept.name]


def test_what_a_killed_process_left_of_a_template_that_nobody_asks_for_goes_one_day() -> None:
    old, new = (store._root() / f".{name}.x" for name in ("0" * 32, "1" * 32))
    for folder in (old, new):
        folder.mkdir()
        (folder / "memory").touch()
    os.utime(old, (1, 1))
    templates.prune(1 << 30)
    assert new.exists() and not old.exists()
