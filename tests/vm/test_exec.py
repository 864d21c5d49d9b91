"""What a command in a sandbox is given, and how it starts, talks and ends. One sandbox for all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from corral.channel import Stream
from corral.errors import (
    CommandNotFoundError,
    ExecError,
    NotExecutableError,
    StreamResetError,
)
from corral.sandbox import Execution, Sandbox
from tests.support.memory import peak
from tests.support.sandboxes import (
    guest_root,
    lines,
    python,
    run,
    sandbox_on,
    shell,
    succeeded,
)

MIB = 1 << 20


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exec")


@pytest_asyncio.fixture(scope="module")
async def sandbox(workspace: Path) -> AsyncIterator[Sandbox]:
    async with sandbox_on(workspace) as running:
        yield running


async def start(sandbox: Sandbox, script: str) -> Execution:
    return await sandbox.exec(["sh", "-c", script])


async def read_all(stream: Stream | None) -> bytes:
    assert stream is not None
    data = bytearray()
    while piece := await stream.read():
        data += piece
    return bytes(data)


async def read_line(stream: Stream | None) -> bytes:
    assert stream is not None
    line = b""
    while not line.endswith(b"\n"):
        piece = await stream.read(1)
        assert piece, f"it ended after {line!r}"
        line += piece
    return line


async def ended(execution: Execution) -> int:
    """Its status, its output thrown away."""
    status, *_ = await asyncio.gather(
        execution.wait(), read_all(execution.stdout), read_all(execution.stderr)
    )
    return status


# Output


async def test_stdout_and_stderr_are_two_streams(sandbox: Sandbox) -> None:
    result = await shell(sandbox, "echo out; echo err >&2; echo more")
    assert (result.stdout, result.stderr, result.status) == ("out\nmore\n", "err\n", 0)


async def test_output_is_heard_when_it_is_written_not_when_the_command_ends(
    sandbox: Sandbox,
) -> None:
    execution = await start(sandbox, "echo first; read answer; echo $answer")
    assert await read_line(execution.stdout) == b"first\n"
    await execution.stdin.write(b"second\n")
    assert await read_line(execution.stdout) == b"second\n"
    assert await ended(execution) == 0


async def test_much_output_arrives_whole(sandbox: Sandbox) -> None:
    execution = await sandbox.exec(["sh", "-c", f"yes 0123456 | head -c {8 * MIB}"])
    data, status = await asyncio.gather(read_all(execution.stdout), ended_without_stdout(execution))
    expected = hashlib.sha256(b"0123456\n" * MIB).hexdigest()
    assert (status, len(data), hashlib.sha256(data).hexdigest()) == (0, 8 * MIB, expected)


async def ended_without_stdout(execution: Execution) -> int:
    await read_all(execution.stderr)
    return await execution.wait()


async def resident(sandbox: Sandbox) -> tuple[int, int]:
    """Peak memory in bytes: of the guest's supervisor, and of this process."""
    code = "print([l.split()[1] for l in open('/proc/1/status') if l.startswith('VmHWM')][0])"
    return int(succeeded(await guest_root(sandbox, code))) << 10, peak()


async def test_a_reader_that_stalls_stops_the_command_and_memory_stays_bounded(
    sandbox: Sandbox,
) -> None:
    size = 64 * MIB
    guest_before, host_before = await resident(sandbox)
    execution = await start(sandbox, f"head -c {size} /dev/zero; echo done >&2")
    finished = asyncio.ensure_future(read_line(execution.stderr))
    done, _ = await asyncio.wait((finished,), timeout=3)
    assert not done, "the command wrote more than anybody read"
    assert (await shell(sandbox, "echo others go on")).stdout == "others go on\n"
    total = 0
    while piece := await execution.stdout.read():
        total += len(piece)
    assert (total, await finished, await ended(execution)) == (size, b"done\n", 0)
    guest_after, host_after = await resident(sandbox)
    assert guest_after - guest_before < 4 * MIB
    assert host_after - host_before < 16 * MIB


async def test_a_command_whose_reader_is_gone_meets_a_closed_pipe(sandbox: Sandbox) -> None:
    execution = await sandbox.exec(["yes"])
    assert await execution.stdout.read(2) == b"y\n"
    execution.stdout.reset("enough")
    assert await read_all(execution.stderr) == b""
    assert await execution.wait() == 128 + signal.SIGPIPE


async def test_what_is_left_in_the_background_keeps_nobody_waiting(sandbox: Sandbox) -> None:
    held = await shell(sandbox, "sleep 1000 & echo started", timeout=20)
    assert (held.stdout, held.status) == ("started\n", 0)
    talking = await shell(sandbox, "yes & sleep 0.3; exit 5", timeout=20)
    assert talking.status == 5
    await shell(sandbox, "pkill -KILL -x yes; pkill -KILL -x sleep")


# Input


async def test_input_is_passed_on_to_its_end(sandbox: Sandbox) -> None:
    data = os.urandom(3 * MIB)
    result = await run(sandbox, "sha256sum", input=data)
    assert result.stdout.split()[0] == hashlib.sha256(data).hexdigest()


async def test_no_input_is_an_empty_input(sandbox: Sandbox) -> None:
    assert (await run(sandbox, "wc", "-c")).stdout == "0\n"


async def test_a_command_that_reads_no_more_ends_its_input(sandbox: Sandbox) -> None:
    execution = await sandbox.exec(["head", "-n", "1"])

    async def yes() -> None:
        while True:
            await execution.stdin.write(b"y\n" * 5000)

    with pytest.raises(StreamResetError):
        async with asyncio.timeout(30):
            await yes()
    assert await read_all(execution.stdout) == b"y\n"
    assert await ended(execution) == 0


async def test_a_command_that_does_not_read_holds_back_its_writer(sandbox: Sandbox) -> None:
    execution = await sandbox.exec(["sleep", "1000"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(execution.stdin.write(bytes(4 * MIB)), 2)
    await execution.signal(signal.SIGKILL)
    assert await ended(execution) == 137


# The end


@pytest.mark.parametrize("status", [0, 1, 2, 42, 124, 125, 126, 127, 128, 137, 255])
async def test_the_exit_status_is_the_commands(sandbox: Sandbox, status: int) -> None:
    assert (await shell(sandbox, f"exit {status}")).status == status


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1", "USR2", "QUIT", "KILL", "SEGV"])
async def test_a_command_that_a_signal_ended_has_status_128_and_its_number(
    sandbox: Sandbox, name: str
) -> None:
    number = getattr(signal, f"SIG{name}")
    execution = await sandbox.exec(["sleep", "1000"])
    await execution.signal(number)
    assert await ended(execution) == 128 + number


async def test_a_signal_reaches_the_command_alone_or_its_whole_group(sandbox: Sandbox) -> None:
    child = "python3 -c 'import signal, sys; print(\"up\", flush=True); signal.pause()'"
    for group in (False, True):
        execution = await start(sandbox, f"trap 'echo trapped' TERM; {child}; echo child ended $?")
        assert await read_line(execution.stdout) == b"up\n"
        await execution.signal(signal.SIGTERM, group=group)
        if not group:  # the shell waits for its child, and hears of it afterwards
            await shell(sandbox, "pkill -KILL python3")
        output = await read_all(execution.stdout)
        assert b"trapped" in output
        assert (b"child ended 143" in output) is group
        assert await ended(execution) == 0


async def test_no_signal_is_blocked_or_ignored_at_the_start(sandbox: Sandbox) -> None:
    found = lines(await run(sandbox, "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"))
    internal = 0b11 << 31  # signals 32 and 33 are glibc's own; its posix_spawn ignores them
    assert [int(line.split()[1], 16) & ~internal for line in found] == [0, 0]


async def test_only_the_standard_streams_are_open(sandbox: Sandbox) -> None:
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    assert (await python(sandbox, code)).stdout == "[0, 1, 2, 3]\n", "3 is the listing itself"


# What cannot be started


async def test_a_program_that_is_not_there_is_not_found(sandbox: Sandbox) -> None:
    for name in ("no-such-program", "/no/such", "./no-such", "/etc/passwd/x", ""):
        with pytest.raises(CommandNotFoundError, match="not found") as caught:
            await sandbox.exec([name])
        assert caught.value.exit_status == 127


async def test_a_file_that_cannot_be_executed_is_named_with_the_reason(
    sandbox: Sandbox, workspace: Path
) -> None:
    plain = workspace / "plain"
    plain.write_text("#!/bin/sh\necho hello\n")
    plain.chmod(0o644)
    for name, reason in (("./plain", "Permission denied"), ("/usr", "Permission denied")):
        with pytest.raises(NotExecutableError, match=reason) as caught:
            await sandbox.exec([name])
        assert caught.value.exit_status == 126
    plain.chmod(0o755)
    assert (await run(sandbox, "./plain")).stdout == "hello\n"


async def test_a_script_without_an_interpreter_line_is_no_program(
    sandbox: Sandbox, workspace: Path
) -> None:
    """As execve(2) and docker have it; only shells take it for a shell script."""
    script = workspace / "bare"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    with pytest.raises(NotExecutableError, match="Exec format error") as caught:
        await sandbox.exec(["./bare"])
    assert caught.value.hint is not None
    assert "#!/bin/sh" in caught.value.hint


async def test_an_interpreter_that_is_missing_is_named(sandbox: Sandbox, workspace: Path) -> None:
    script = workspace / "foreign"
    script.write_text("#!/opt/none/bin/lua -x\n")
    script.chmod(0o755)
    with pytest.raises(CommandNotFoundError, match="/opt/none/bin/lua") as caught:
        await sandbox.exec(["./foreign"])
    assert caught.value.exit_status == 127


async def test_a_working_folder_that_is_not_there_is_said_to_be_missing(sandbox: Sandbox) -> None:
    for folder, reason in (("/no/where", "No such file"), ("/etc/passwd", "Not a directory")):
        with pytest.raises(ExecError, match=reason) as caught:
            await sandbox.exec(["true"], workdir=folder)
        assert (caught.value.exit_status, folder in caught.value.message) == (125, True)
    assert (await run(sandbox, "pwd", workdir="/usr/lib")).stdout == "/usr/lib\n"


# Arguments and environment


async def test_arguments_are_passed_on_byte_by_byte(sandbox: Sandbox) -> None:
    arguments = [
        "",
        "a b",
        "new\nline",
        "\x01\t",
        "ü\N{SNOWMAN}\U0001f40e",
        os.fsdecode(b"\xff\xfe-"),
        '"$x`',
    ]
    result = await python(sandbox, "import sys; print(sys.argv[1:])")
    assert result.stdout == "[]\n"
    code = "import os, sys; print(b'|'.join(map(os.fsencode, sys.argv[1:])).hex())"
    result = await run(sandbox, "python3", "-c", code, *arguments)
    assert bytes.fromhex(result.stdout) == b"|".join(map(os.fsencode, arguments))


async def test_variables_are_passed_on_byte_by_byte(sandbox: Sandbox) -> None:
    values = {"EMPTY": "", "LINES_": "a\nb", "RAW": os.fsdecode(b"\xff\x80"), "U": "\U0001f40e=x"}
    code = "import os; print({k: os.environb[k] for k in (b'EMPTY', b'LINES_', b'RAW', b'U')})"
    result = await run(sandbox, "python3", "-c", code, environment=values)
    expected = {os.fsencode(name): os.fsencode(value) for name, value in values.items()}
    assert result.stdout == f"{expected}\n"


async def test_a_program_is_looked_up_on_the_commands_own_path(
    sandbox: Sandbox, workspace: Path
) -> None:
    folder = workspace / "bin"
    folder.mkdir()
    for name in ("mine", "ls"):
        (folder / name).write_text("#!/bin/sh\necho mine\n")
    (folder / "mine").chmod(0o755)
    (folder / "ls").chmod(0o644)  # not executable: the search goes on
    path = {"PATH": f"{folder}:/usr/bin"}
    assert (await run(sandbox, "mine", environment=path)).stdout == "mine\n"
    assert (await run(sandbox, "ls", "/usr/bin/env", environment=path)).stdout == "/usr/bin/env\n"
    with pytest.raises(CommandNotFoundError):
        await run(sandbox, "mine")


async def test_long_command_lines_work_up_to_the_kernels_limits(sandbox: Sandbox) -> None:
    arguments = [f"{number:04}" + "x" * 96 for number in range(5000)]  # half a megabyte
    result = await run(sandbox, "sh", "-c", 'echo $# "${5000}"', "sh", *arguments)
    assert result.stdout == f"5000 {arguments[-1]}\n"
    raw = os.fsdecode(b"\xff" * 100_000)  # each byte is six characters on its way
    assert (await run(sandbox, "sh", "-c", "echo ${#1}", "sh", raw)).stdout == "100000\n"


async def test_a_command_line_that_is_too_long_is_said_to_be(sandbox: Sandbox) -> None:
    with pytest.raises(NotExecutableError, match="Argument list too long"):
        await sandbox.exec(["echo", "x" * 200_000])  # one argument: 128 KiB (execve(2))
    with pytest.raises(ExecError, match="too long") as caught:
        await sandbox.exec(["echo", *("x" * 1000 for _ in range(3000))])
    assert caught.value.hint is not None
    with pytest.raises(ExecError, match="NUL"):
        await sandbox.exec(["echo", "a\0b"])
    assert (await run(sandbox, "echo", "still here")).stdout == "still here\n"


# Who and where


async def test_the_command_is_the_user_in_the_users_home(sandbox: Sandbox, workspace: Path) -> None:
    user = sandbox.plan.agents[0]
    names = dict(user.environment)
    result = lines(await shell(sandbox, 'id -u; id -un; id -gn; echo ~; echo "$USER"; pwd'))
    uid, name, group, home, variable, folder = result
    assert int(uid) == os.getuid()
    assert name == variable == names["USER"]
    assert group
    assert home == names["HOME"]
    assert folder == str(workspace)


async def test_files_made_in_the_workspace_belong_to_the_user(
    sandbox: Sandbox, workspace: Path
) -> None:
    succeeded(await shell(sandbox, "mkdir made; echo hi > made/file; chmod 751 made"))
    made = (workspace / "made").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (os.getuid(), os.getgid(), 0o751)
    assert (workspace / "made" / "file").stat().st_mode & 0o777 == 0o644


async def test_scratch_folders_and_the_home_can_be_written_and_run_from(sandbox: Sandbox) -> None:
    script = """
    for folder in /tmp /var/tmp /dev/shm "$HOME"; do
        printf '#!/bin/sh\\necho ran in %s\\n' "$folder" > "$folder/script" || exit 1
        chmod +x "$folder/script" && "$folder/script" || exit 2
    done
    """
    assert len(lines(await shell(sandbox, script))) == 4


# Many


async def test_commands_run_side_by_side_without_mixing_their_streams(sandbox: Sandbox) -> None:
    async def one(number: int) -> bool:
        text = f"{number}\n" * 2000
        result = await run(sandbox, "cat", input=text.encode(), timeout=90)
        return result.stdout == text

    assert all(await asyncio.gather(*(one(number) for number in range(12))))


def host_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def guest_descriptors(sandbox: Sandbox) -> dict[str, int]:
    """How many are open in the supervisor, and in each jail's first Python."""
    code = """if True:
    import os
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            command = open(f'/proc/{pid}/cmdline', 'rb').read()
            if b'init.pyc' in command and int(pid) != os.getpid():
                print(pid, len(os.listdir(f'/proc/{pid}/fd')))
        except OSError:
            pass
    """
    return {
        pid: int(n) for pid, n in (line.split() for line in lines(await guest_root(sandbox, code)))
    }


async def test_ended_commands_leave_no_stream_and_no_descriptor(sandbox: Sandbox) -> None:
    async def every_way() -> None:
        assert (await run(sandbox, "true")).status == 0
        with pytest.raises(CommandNotFoundError):
            await sandbox.exec(["no-such-program"])
        given_up = await sandbox.exec(["cat"])
        for stream in (given_up.stdin, given_up.stdout, given_up.stderr):
            assert stream is not None
            stream.reset()
        await given_up.wait()
        with_terminal = await sandbox.exec(["tty"], terminal=(24, 80))
        assert (await read_all(with_terminal.stdout)).startswith(b"/dev/pts/")
        await with_terminal.wait()

    await every_way()
    guest, host = await guest_descriptors(sandbox), host_descriptors()
    assert len(guest) >= 2
    for _ in range(8):
        await every_way()
    assert await guest_descriptors(sandbox) == guest
    assert host_descriptors() == host
    # Each stream's last frames cross: one more round trip, and neither side knows of any.
    await sandbox.sync()
    assert sandbox.open_streams == 0


async def test_a_start_that_is_cancelled_does_no_harm(sandbox: Sandbox) -> None:
    for delay in (0, 0.001, 0.02, 0.1):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(sandbox.exec(["sleep", "0.2"]), delay)
    assert (await run(sandbox, "echo", "well")).stdout == "well\n"


async def test_waiting_can_be_given_up_and_taken_up_again(sandbox: Sandbox) -> None:
    execution = await start(sandbox, "read line; exit 9")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(execution.wait(), 0.1)
    await execution.stdin.end()
    assert await ended(execution) == 9


# Terminals (more in test_terminal.py)


async def test_a_terminal_has_its_size_and_is_the_commands_own(sandbox: Sandbox) -> None:
    execution = await sandbox.exec(
        ["sh", "-c", "stty size; tty; : > /dev/tty; read line; stty size; cat"], terminal=(33, 99)
    )
    assert await read_line(execution.stdout) == b"33 99\r\n"
    assert (await read_line(execution.stdout)).startswith(b"/dev/pts/")
    await execution.resize(44, 111)
    await execution.stdin.write(b"go\n")
    assert await read_line(execution.stdout) == b"go\r\n", "what is typed is shown"
    assert await read_line(execution.stdout) == b"44 111\r\n"
    await execution.stdin.write(b"no newline")
    await execution.stdin.end()  # the terminal types its end-of-file character
    rest, status = await asyncio.gather(read_all(execution.stdout), execution.wait())
    assert (rest.count(b"no newline"), status) == (2, 0)


async def test_a_terminal_whose_reader_is_gone_hangs_up(sandbox: Sandbox) -> None:
    execution = await sandbox.exec(["sleep", "1000"], terminal=(24, 80))
    execution.stdout.reset("the window was closed")
    assert await execution.wait() == 128 + signal.SIGHUP


# The end of a command with everything that it has started

DAEMON = """
import os, sys, time
if not os.fork():
    os.setsid()
    if not os.fork():  # no child of the command's any more, in a session of its own
        os.closerange(0, 3)
        time.sleep(600)
    os._exit(0)
os.wait()
print("up", flush=True)
time.sleep(float(sys.argv[1]))
"""
GROUPS = """
import os
for folder in sorted(os.listdir("/sys/fs/cgroup/agent-1")):
    if folder.startswith("exec-"):
        print(open(f"/sys/fs/cgroup/agent-1/{folder}/cgroup.procs").read().split())
"""
SLEEPERS = "ps -eo args | grep -c '[t]ime.sleep'"


@pytest.mark.parametrize("seconds", ["600", "0"], ids=["running", "ended itself"])
async def test_the_end_of_a_command_reaches_its_daemons(sandbox: Sandbox, seconds: str) -> None:
    other = await sandbox.exec(["sleep", "600"])
    execution = await sandbox.exec(["python3", "-c", DAEMON, seconds])
    assert await execution.stdout.read() == b"up\n"
    if seconds == "0":
        assert await execution.wait() == 0
    assert (await shell(sandbox, SLEEPERS)).stdout.strip() != "0"
    await execution.end()
    assert await execution.wait() == (0 if seconds == "0" else 128 + signal.SIGKILL)
    assert (await shell(sandbox, SLEEPERS)).stdout.strip() == "0"
    # Another command is not touched; its group is the only one.
    (left,) = lines(await guest_root(sandbox, GROUPS))
    assert left.count(",") == 0 and left != "[]"
    await other.end()
    assert await other.wait() == 128 + signal.SIGKILL
    assert lines(await guest_root(sandbox, GROUPS)) == []
    await other.end()  # again: nothing happens


async def test_a_control_group_goes_with_what_a_command_left_behind(sandbox: Sandbox) -> None:
    assert (await python(sandbox, DAEMON.replace("sys.argv[1]", "0"))).status == 0
    assert len(lines(await guest_root(sandbox, GROUPS))) == 1
    succeeded(await shell(sandbox, "kill $(pgrep -f '[t]ime.sleep')"))
    async with asyncio.timeout(60):
        while lines(await guest_root(sandbox, GROUPS)):  # each takes its time under emulation
            pass
    # A built-in command and one with a terminal have had theirs, too.
    terminal = await sandbox.exec(["true"], terminal=(24, 80))
    await terminal.wait()
    assert lines(await guest_root(sandbox, GROUPS)) == []


async def test_the_end_of_a_command_outside_every_jail(sandbox: Sandbox) -> None:
    execution = await sandbox.exec(["/usr/bin/python3", "-c", "import time; time.sleep(600)"],
                                   agent=0)  # fmt: skip
    await execution.end()
    assert await execution.wait() == 128 + signal.SIGKILL


# The jail itself; last, for it takes the jail along


async def test_a_command_can_end_all_of_its_jail_but_not_hang_it(sandbox: Sandbox) -> None:
    survivor = await sandbox.exec(["sleep", "1000"])
    assert (await shell(sandbox, "kill -TERM -1; echo alive")).stdout == "alive\n"
    assert await ended(survivor) == 143, "as with kill(2): everyone but the caller"
    assert (await shell(sandbox, "echo and well")).stdout == "and well\n"
    other = await sandbox.exec(["sleep", "1000"])
    await sandbox.kill()
    assert await ended(other) == 137
    with pytest.raises(ExecError, match="the jail has ended"):
        await sandbox.exec(["true"])
