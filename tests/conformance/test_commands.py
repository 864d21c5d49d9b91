"""What a command in a sandbox is given, how it talks and how it ends, whatever the backend."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from corral import Sandbox
from corral.errors import (
    CommandFailedError,
    CommandNotFoundError,
    ExecError,
    ExecTimeoutError,
    NotExecutableError,
)
from tests.conformance.conftest import SECRET, Place

Shell = Callable[[str], str]


def test_the_status_is_the_commands(box: Sandbox) -> None:
    for status in (0, 1, 42, 126, 127, 137, 255):
        assert box.exec(["sh", "-c", f"exit {status}"]).status == status
    with pytest.raises(CommandFailedError) as caught:
        box.exec(["sh", "-c", "echo why >&2; exit 3"], check=True)
    assert (caught.value.status, caught.value.stderr) == (3, b"why\n")


def test_a_signal_ends_a_command_and_is_in_its_status(box: Sandbox) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1):
        with box.spawn(["sleep", "1000"]) as process:
            process.signal(number)
            assert process.wait(timeout=30) == 128 + number


def test_a_signal_reaches_the_command_or_its_whole_group(box: Sandbox) -> None:
    child = "(trap 'echo child; exit' TERM; echo up; while :; do :; done) &"
    script = f"trap 'echo trapped' TERM; {child} wait; wait"
    for group in (False, True):
        with box.spawn(["sh", "-c", script]) as process:
            assert process.stdout.read() == b"up\n"
            process.signal(signal.SIGTERM, group=group)
            if not group:
                process.signal(signal.SIGKILL)
            process.wait(timeout=30)
            if group:
                assert set(process.stdout.read_all().split()) == {b"trapped", b"child"}


def test_streams_are_apart_and_carry_every_byte(box: Sandbox) -> None:
    result = box.exec(["sh", "-c", "echo out; echo err >&2"])
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    data = bytes(range(256)) * 4096
    assert box.exec(["cat"], input=data, timeout=60).stdout_bytes == data
    assert box.exec(["wc", "-c"]).stdout == "0\n", "no input is an empty one"


def test_much_output_arrives_whole(box: Sandbox) -> None:
    script = "head -c 2000000 /dev/zero | tee /dev/stderr | tr '\\0' x"
    result = box.exec(["sh", "-c", script], timeout=90)
    assert hashlib.sha256(result.stdout_bytes).digest() == hashlib.sha256(b"x" * 2000000).digest()
    assert result.stderr_bytes == bytes(2000000)


def test_lines_come_when_they_are_written(box: Sandbox) -> None:
    with box.stream(["sh", "-c", "echo one; sleep 0.2; echo two; exec sleep 1000"]) as lines:
        assert [next(lines), next(lines)] == ["one", "two"]
    assert list(box.stream(["seq", "20000"])) == [str(n) for n in range(1, 20001)]


def test_a_reader_that_stalls_holds_the_command_back(box: Sandbox) -> None:
    box.files.write("/tmp/said", b"")
    with box.spawn(["sh", "-c", "yes | tee /tmp/said"]):
        sizes = [-1, 0]
        limit = time.monotonic() + 30
        while sizes[-1] == 0 or sizes[-1] != sizes[-2]:
            assert time.monotonic() < limit, sizes
            time.sleep(0.5)
            sizes.append(box.files.stat("/tmp/said").size)
        assert sizes[-1] < 4 << 20
    box.files.remove("/tmp/said")


def test_a_dialogue_works_by_lines(box: Sandbox) -> None:
    with box.spawn(["sh", "-c", "while read line; do echo got $line; done; echo end"]) as process:
        for word in ("one", "two"):
            process.stdin.write(f"{word}\n")
            assert process.stdout.read() == f"got {word}\n".encode()
        process.stdin.close()
        assert process.stdout.read_all() == b"end\n"
        assert process.wait() == 0


def test_a_terminal_is_one(box: Sandbox) -> None:
    with box.spawn(["sh", "-c", "tty; stty size; read x; stty size"], tty=(33, 99)) as process:
        seen = b""
        while b"33 99" not in seen:
            seen += process.stdout.read()
        assert seen.startswith(b"/dev/pts/")
        process.resize(44, 111)
        process.stdin.write("\n")
        assert b"44 111" in process.stdout.read_all()
        assert process.wait() == 0


def test_time_runs_out_for_a_command_and_its_children(box: Sandbox) -> None:
    with pytest.raises(ExecTimeoutError) as caught:
        box.exec(["sh", "-c", "echo begun; sleep 4321 & wait"], timeout=1)
    assert caught.value.stdout == b"begun\n"
    assert box.exec(["pgrep", "-f", "sleep 4321"]).status == 1


def test_what_is_left_in_the_background_keeps_nobody_waiting(box: Sandbox) -> None:
    result = box.exec(["sh", "-c", "sleep 1000 & echo done"], timeout=30)
    assert (result.status, result.stdout) == (0, "done\n")


def test_the_environment_is_what_was_given_and_nothing_of_the_host(box: Sandbox, sh: Shell) -> None:
    odd = {"ODD": "a=b\nc", "RAW": os.fsdecode(b"\xff\xfe"), "EMPTY": ""}
    script = 'printf "%s|" "$ODD" "$RAW" "${EMPTY-unset}" "$GIVEN"'
    found = box.exec(["sh", "-c", script], env=odd).stdout_bytes
    assert found == b"a=b\nc|\xff\xfe||of the spec|"
    assert SECRET not in sh("env")


def test_a_command_starts_in_the_workspace_as_the_user(place: Place, sh: Shell) -> None:
    assert sh("pwd; id -u").split() == [str(place.workspace), str(os.getuid())]
    assert place.box.exec(["pwd"], cwd="/usr/lib").stdout == "/usr/lib\n"
    with pytest.raises(ExecError, match="No such file"):
        place.box.exec(["true"], cwd="/no/where")


def test_what_cannot_be_started_says_why(place: Place) -> None:
    for name in ("no-such-program", "/no/such"):
        with pytest.raises(CommandNotFoundError):
            place.box.exec([name])
    with pytest.raises(NotExecutableError):
        place.box.exec([str(place.workspace / "here")])
    assert place.box.exec(["true"]).status == 0


def test_many_at_once_lose_nothing(box: Sandbox) -> None:
    def one(number: int) -> bool:
        text = f"{number}\n" * 3000
        return box.exec(["cat"], input=text, timeout=90).stdout == text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(8)))


def test_there_is_no_network(sh: Shell) -> None:
    devices = [line.split(":")[0].strip() for line in sh("cat /proc/net/dev").splitlines()[2:]]
    assert devices == ["lo"]
