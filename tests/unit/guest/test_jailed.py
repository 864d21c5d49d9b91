"""The process that starts an agent's commands, run on the host over a socket, without a jail."""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

# As jail.py has it: what commands leave behind becomes this process's child.
PROGRAM = """
from corral_guest import jailed, linux
linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
jailed.main()
"""
PATH = "/usr/local/bin:/usr/bin:/bin"


class Jailed:
    """A running `jailed` and the supervisor's end of its socket."""

    def __init__(self, folder: Path) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.folder = folder
        with theirs:
            # The socket is to be descriptor 3, whatever else is open here.
            high = os.dup(theirs.fileno())
            os.set_inheritable(high, True)
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"import os; os.dup2({high}, 3); os.dup2(os.open('/dev/null', 1), 4)\n"
                    f"os.closerange(5, 200)\n{PROGRAM}",
                ],
                pass_fds=(high,),
            )
            os.close(high)
        assert self.hear() == ({"op": "up"}, [])

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        """Its next message, and what came with it."""
        fds = array.array("i")
        data, ancillary, _flags, _address = self.socket.recvmsg(4096, socket.CMSG_SPACE(16))
        for _level, _kind, payload in ancillary:
            fds.frombytes(payload)
        return json.loads(data), list(fds)

    def say(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([json.dumps(message).encode()], rights)

    def start(self, number: int, *argv: str, fds: list[int] | None = None, **rest: Any) -> None:
        null = os.open("/dev/null", os.O_RDWR)
        request = {"env": {"PATH": PATH}, "cwd": str(self.folder), "terminal": None, **rest}
        self.say(
            {"op": "exec", "id": number, "argv": argv, **request}, [null, *(fds or [null] * 3)]
        )
        os.close(null)

    def output(self, *argv: str, **rest: Any) -> tuple[str, int]:
        """What a command writes to standard output and error, and its status."""
        read, write = os.pipe()
        null = os.open("/dev/null", os.O_RDONLY)
        self.start(1, *argv, fds=[null, write, write], **rest)
        os.close(null)
        os.close(write)
        assert self.hear()[0] == {"op": "started", "id": 1}
        with open(read, "rb") as file:
            text = file.read().decode()
        ended = self.hear()[0]
        assert ended["op"] == "exited"
        return text, ended["status"]


@pytest.fixture
def jailed(tmp_path: Path) -> Iterator[Jailed]:
    made = Jailed(tmp_path)
    yield made
    made.socket.close()
    assert made.process.wait(20) == 0  # it ends with the socket


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> str:
    file = folder / name
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def refusal(jailed: Jailed, *argv: str, **rest: Any) -> tuple[int, str, str]:
    jailed.start(7, *argv, **rest)
    message, fds = jailed.hear()
    assert (message["op"], message["id"], fds) == ("failed", 7, [])
    return message["errno"], message.get("what", ""), message.get("interpreter", "")


def test_a_command_runs_with_its_arguments_environment_and_folder(jailed: Jailed) -> None:
    text, status = jailed.output(
        "sh",
        "-c",
        'echo "$1|$MODE|$PWD"; env | wc -l',
        "sh",
        "a b",
        env={"PATH": PATH, "MODE": "x"},
    )
    assert text.splitlines()[0] == f"a b|x|{jailed.folder}"
    assert status == 0


@pytest.mark.parametrize(("code", "status"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255)])
def test_the_exit_status_is_passed_on(jailed: Jailed, code: str, status: int) -> None:
    assert jailed.output("sh", "-c", code)[1] == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_end_by_a_signal_is_128_and_its_number(jailed: Jailed, number: int) -> None:
    assert jailed.output("sh", "-c", f"kill -{number:d} $$")[1] == 128 + number


def test_a_command_starts_with_no_signal_blocked_or_ignored(jailed: Jailed) -> None:
    text, _status = jailed.output("grep", "^Sig[BI]", "/proc/self/status")
    blocked, ignored = (int(line.split()[1], 16) for line in text.splitlines())
    assert blocked == 0
    # glibc's posix_spawn ignores 32 and 33, which are its own (sysdeps/unix/sysv/linux/spawni.c).
    assert ignored & ~(0b11 << 31) == 0


def test_a_command_leads_a_session_and_has_no_descriptor_but_its_three(jailed: Jailed) -> None:
    text, _status = jailed.output(
        "sh", "-c", "ls /proc/$$/fd; cut -d' ' -f 6 /proc/$$/stat; echo $$"
    )
    *fds, session, pid = text.split()
    assert fds == ["0", "1", "2"]
    assert session == pid


# What cannot be started


def test_a_command_that_is_nowhere_is_not_found(jailed: Jailed) -> None:
    assert refusal(jailed, "no-such-command") == (errno.ENOENT, "program", "")
    assert refusal(jailed, "./no-such-command") == (errno.ENOENT, "program", "")
    assert refusal(jailed, "") == (errno.ENOENT, "program", "")


def test_commands_are_looked_for_on_their_own_path(jailed: Jailed) -> None:
    folder = jailed.folder / "bin"
    folder.mkdir()
    script(folder, "mine", "#!/bin/sh\necho mine\n")
    assert refusal(jailed, "mine") == (errno.ENOENT, "program", "")
    assert jailed.output("mine", env={"PATH": f"/nowhere:{folder}"}) == ("mine\n", 0)


def test_a_later_folder_may_have_one_that_can_be_executed(jailed: Jailed) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (jailed.folder / name).mkdir()
        script(jailed.folder / name, "tool", "#!/bin/sh\necho second\n", mode)
    path = f"{jailed.folder}/first:{jailed.folder}/second"
    assert jailed.output("tool", env={"PATH": path}) == ("second\n", 0)
    only = f"{jailed.folder}/first"
    assert refusal(jailed, "tool", env={"PATH": only})[0] == errno.EACCES


def test_what_is_no_program_cannot_be_executed(jailed: Jailed) -> None:
    plain = script(jailed.folder, "plain", "echo no first line\n", 0o644)
    assert refusal(jailed, plain)[0] == errno.EACCES
    unmarked = script(jailed.folder, "unmarked", "echo no first line\n")
    assert refusal(jailed, unmarked) == (errno.ENOEXEC, "program", "")
    assert refusal(jailed, str(jailed.folder))[0] == errno.EACCES


def test_a_missing_interpreter_is_named(jailed: Jailed) -> None:
    path = script(jailed.folder, "tool", "#!/no/such/python3 -u\n")
    assert refusal(jailed, path) == (errno.ENOENT, "interpreter", "/no/such/python3")


def test_a_missing_folder_is_told_apart_from_a_missing_command(jailed: Jailed) -> None:
    assert refusal(jailed, "true", cwd="/no/such")[:2] == (errno.ENOENT, "workdir")


def test_a_nul_or_an_impossible_variable_is_an_error_and_not_the_end(jailed: Jailed) -> None:
    assert refusal(jailed, "echo", "a\0b")[0] == errno.EINVAL
    assert refusal(jailed, "echo", env={"PATH": PATH, "A=B": "x"})[0] == errno.EINVAL
    assert jailed.output("echo", "still here") == ("still here\n", 0)


# Terminals


def test_a_terminal_is_the_commands_controlling_terminal_and_has_the_size(jailed: Jailed) -> None:
    jailed.start(
        1, "sh", "-c", "stty size; tty; exec </dev/tty; echo controlled", terminal=[33, 99]
    )
    message, fds = jailed.hear()
    assert message == {"op": "started", "id": 1}
    (master,) = fds
    text = b""
    with contextlib.suppress(OSError):  # EIO: the last holder has closed it
        while data := os.read(master, 1000):
            text += data
    size, name, controlled = text.decode().split("\r\n")[:3]
    assert size == "33 99"
    assert name.startswith("/dev/pts/")
    assert controlled == "controlled"
    assert jailed.hear()[0] == {"op": "exited", "id": 1, "status": 0}
    os.close(master)


def test_a_terminal_that_is_resized_tells_its_command(jailed: Jailed) -> None:
    program = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 1 & wait; done"
    jailed.start(1, "sh", "-c", program, terminal=[24, 80])
    (master,) = jailed.hear()[1]
    assert os.read(master, 100) == b"ready\r\n"
    ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
    assert os.read(master, 100) == b"50 132\r\n"
    assert jailed.hear()[0]["op"] == "exited"
    os.close(master)


# Signals


def waiting(jailed: Jailed, number: int, code: str) -> int:
    """Start a shell that says when it is ready; returns the end from which its output is read."""
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    jailed.start(number, "sh", "-c", code, fds=[null, write, write])
    os.close(null)
    os.close(write)
    assert jailed.hear()[0]["op"] == "started"
    assert os.read(read, 100) == b"ready\n"
    return read


def test_a_signal_reaches_the_command(jailed: Jailed) -> None:
    code = "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.05; done"
    read = waiting(jailed, 1, code)
    jailed.say({"op": "signal", "id": 1, "signal": signal.SIGUSR1})
    assert jailed.hear()[0] == {"op": "exited", "id": 1, "status": 9}
    assert os.read(read, 100) == b"got it\n"
    os.close(read)


def test_a_signal_to_the_group_reaches_its_children_too(jailed: Jailed) -> None:
    read = waiting(jailed, 1, "sleep 1000 & echo ready; wait")
    jailed.say({"op": "signal", "id": 1, "signal": signal.SIGTERM, "group": True})
    assert jailed.hear()[0] == {"op": "exited", "id": 1, "status": 128 + signal.SIGTERM}
    assert os.read(read, 100) == b""  # `sleep` has ended, too: it held the pipe
    os.close(read)


def test_a_signal_to_one_that_has_ended_is_nothing(jailed: Jailed) -> None:
    assert jailed.output("true")[1] == 0
    jailed.say({"op": "signal", "id": 1, "signal": signal.SIGKILL})
    assert jailed.output("true")[1] == 0


def test_it_cannot_be_ended_by_signals_meant_for_commands(jailed: Jailed) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        jailed.process.send_signal(number)
    assert jailed.output("echo", "still here") == ("still here\n", 0)


# Reaping


def test_what_commands_leave_behind_is_reaped(jailed: Jailed) -> None:
    """Orphans become its children: none stays a zombie, none is reported as a command."""
    text, status = jailed.output("sh", "-c", "(sh -c 'exit 5' &) ; echo left")
    assert (text, status) == ("left\n", 0)
    assert jailed.output("true") == ("", 0)
    children = Path(f"/proc/{jailed.process.pid}/task/{jailed.process.pid}/children")
    for _ in range(50):  # the orphan may need a moment to end
        if not children.read_text():
            break
        jailed.output("true")
    assert children.read_text() == ""


def test_many_commands_at_once_are_told_apart(jailed: Jailed) -> None:
    for number in range(1, 9):
        jailed.start(number, "sh", "-c", f"exit {number}")
    statuses: dict[int, int] = {}
    started = set()
    while len(statuses) < 8:
        message = jailed.hear()[0]
        if message["op"] == "exited":
            assert message["id"] in started
            statuses[message["id"]] = message["status"]
        else:
            started.add(message["id"])
    assert statuses == {number: number for number in range(1, 9)}


def test_a_request_too_long_for_a_packet_comes_in_a_memory_file(jailed: Jailed) -> None:
    memory = os.memfd_create("request")
    null = os.open("/dev/null", os.O_RDWR)
    # 120,000 bytes: one argument may have 128 KiB (MAX_ARG_STRLEN in linux/binfmts.h).
    request = {
        **{"op": "exec", "id": 1, "env": {"PATH": PATH}, "cwd": "/", "terminal": None},
        "argv": ["sh", "-c", "test ${#1} = 120000 && test ${#2} = 120000", "sh"]
        + ["x" * 120_000] * 2,
    }
    os.write(memory, json.dumps(request).encode())
    jailed.say({}, [memory, null, null, null, null])
    assert jailed.hear()[0] == {"op": "started", "id": 1}
    assert jailed.hear()[0] == {"op": "exited", "id": 1, "status": 0}
    os.close(memory)
    os.close(null)


def test_it_keeps_no_descriptor_of_what_it_was_sent(jailed: Jailed) -> None:
    own = Path(f"/proc/{jailed.process.pid}/fd")
    before = len(list(own.iterdir()))
    for _ in range(10):
        jailed.output("true")
        refusal(jailed, "no-such")
        refusal(jailed, "no-such", terminal=[24, 80])
    # It answers before it closes what came with the last request.
    assert len(list(own.iterdir())) <= before + 5


def test_a_builtin_runs_in_a_child_with_a_commands_streams_and_session(jailed: Jailed) -> None:
    (jailed.folder / "f").write_bytes(b"content")
    assert jailed.output("read", "f", builtin=True) == ("content", 0)
    text, status = jailed.output("read", "none", builtin=True)
    assert (json.loads(text), status) == ({"errno": errno.ENOENT, "path": "none"}, 1)
    assert jailed.output("cat", "f") == ("content", 0)


def test_a_builtin_that_is_none_or_wants_a_terminal_is_refused(jailed: Jailed) -> None:
    for rest in ({}, {"terminal": [24, 80]}):
        found = refusal(jailed, "none" if not rest else "read", "f", builtin=True, **rest)
        assert found == (errno.EINVAL, "program", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_builtin_is_ended_by_signals_as_a_program_is(jailed: Jailed, number: int) -> None:
    """Also by one that comes before it is itself; the jail's own process ignores these."""
    read, write = os.pipe()
    jailed.start(5, "write", "f", fds=[read, write, write], builtin=True)
    jailed.say({"op": "signal", "id": 5, "signal": number})
    assert jailed.hear()[0] == {"op": "started", "id": 5}
    assert jailed.hear()[0] == {"op": "exited", "id": 5, "status": 128 + number}
    os.close(read)
    os.close(write)
