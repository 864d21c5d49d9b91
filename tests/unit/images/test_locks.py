from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from corral.errors import ImageError
from corral.images.locks import locked, need_space, new_folder, write_file

HOLDER = """
import sys
from corral.images.locks import locked
with locked("kernel"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_says_that_it_waits_and_then_has_the_lock(cache: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        waited = []

        def waiting() -> None:
            waited.append(True)
            assert holder.stdin is not None
            holder.stdin.close()

        with locked("kernel", waiting):
            assert waited == [True]
            assert holder.wait(timeout=10) == 0


def test_a_killed_holder_leaves_no_lock(cache: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        holder.wait()
        with locked("kernel", lambda: pytest.fail("it is still held")):
            pass


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, [b"old"])

    def chunks() -> object:
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, chunks())  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "tool"
    with pytest.raises(RuntimeError), new_folder(final) as staging:
        (staging / "half").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for name in ("first", "second"):
        with new_folder(final) as staging:
            (staging / name).touch()
            assert not (final / name).exists()
    assert [path.name for path in final.iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".tool.abc123").mkdir()
    (tmp_path / ".tool.def456").touch()
    with new_folder(tmp_path / "tool"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["tool"]


def test_too_little_space_is_said_with_numbers(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"needs \d+ MiB in .* MiB are free") as caught:
        need_space(tmp_path, 1 << 60, "Downloading the guest kernel")
    assert "corral gc" in (caught.value.hint or "")


def test_a_cache_that_cannot_be_written_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(tmp_path))
    (tmp_path / "locks").write_text("a file where a folder has to be")
    with pytest.raises(ImageError, match="the cache cannot be used") as caught, locked("kernel"):
        pass
    assert "CORRAL_CACHE_DIR" in (caught.value.hint or "")


def test_a_full_disk_in_the_middle_is_an_error_with_a_hint(cache: Path) -> None:
    with pytest.raises(ImageError, match="No space left") as caught, locked("kernel"):
        Path("/dev/full").write_bytes(b"x")
    assert "corral gc" in (caught.value.hint or "")
