"""A jail on the host, attacked from inside and from beside: what is not named is not there.

These need no machine: they run `corral jail`, as the user runs it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.security.attacks import PRELUDE, refused
from tests.security.calls import ALLOWED, REFUSED, TRIES
from tests.support.corral import command, launch
from tests.support.leftovers import wait_until_gone

PYTHON = "/usr/bin/python3"


def jailed(
    folder: Path, *arguments: str, options: Sequence[str] = (), **more: object
) -> subprocess.CompletedProcess[str]:
    words = command("jail", "-T", *options, "--", *arguments)
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, **more)  # type: ignore[call-overload,no-any-return]


def outcome_of(folder: Path, code: str, *options: str) -> dict[str, str]:
    done = jailed(folder, PYTHON, "-c", PRELUDE + code + "\nreport()", options=options)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "file").write_text("mine")
    (tmp_path / "secret").write_text("hunter2")
    return folder


def test_what_is_not_named_is_not_there(project: Path) -> None:
    home = Path.home()
    paths = [
        str(project.parent / "secret"),
        *("/etc/shadow", "/etc/hostname", "/root/.ssh", "/var/log", "/sys", "/run", "/boot"),
        *(f"{home}/.ssh", f"{home}/.config", f"/proc/{os.getpid()}"),
    ]
    code = f"for path in {paths!r}: attempt(path, os.stat, path)"
    refused(outcome_of(project, code), "ENOENT", "EACCES")
    listed = outcome_of(project, "outcome['root'] = ' '.join(sorted(os.listdir('/')))")
    assert set(listed["root"].split()) <= {
        *("bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "nix", "opt", "proc"),
        *("root", "sbin", "tmp", "usr", "gnu", project.parts[1]),
    }


def test_no_variable_of_the_users_is_there(project: Path) -> None:
    done = jailed(project, "env", env={**os.environ, "TOKEN": "hunter2", "LD_PRELOAD": "/x.so"})
    assert "hunter2" not in done.stdout and "LD_PRELOAD" not in done.stdout


def test_what_is_read_only_stays_so(project: Path) -> None:
    code = """
def write(path):
    with open(path, "w") as file:
        file.write("x")
for path in ("file", "new", "/usr/new", "/usr/bin/env", "/etc/passwd", "/new"):
    attempt("write " + path, write, path)
for flags in (32, 32 | 4096, 32 | 4096 | 6):
    attempt(f"remount {flags}", mount, "none", os.getcwd(), None, flags)
attempt("unmount", lambda: check(libc.umount2(os.getcwd().encode(), 2)))
attempt("chmod", os.chmod, "file", 0o777)
attempt("unlink", os.unlink, "file")
"""
    for profile in ("default", "none"):
        outcome = outcome_of(project, code, "--ro", "--seccomp", profile)
        assert len(outcome) == 12
        refused(outcome, "EROFS", "EPERM", "EACCES", "EINVAL")
    assert (project / "file").read_text() == "mine"
    assert outcome_of(project, code)["write file"] == "done", "the control: without --ro"


def test_no_capability_and_no_privilege_comes_with_it(project: Path) -> None:
    done = jailed(project, "cat", "/proc/self/status")
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_kernels_settings_are_read_only(project: Path) -> None:
    """They are root's files: a jail that root starts could name a program for the kernel to run."""
    names = ("kernel/core_pattern", "fs/suid_dumpable", "vm/overcommit_memory", "fs/file-max")
    code = f"""
for name in {names!r}:
    attempt(name, os.open, "/proc/sys/" + name, os.O_WRONLY)
attempt("sysrq", os.open, "/proc/sysrq-trigger", os.O_WRONLY)
attempt("remount", mount, "none", "/proc/sys", None, 32 | 4096)
attempt("unmount", lambda: check(libc.umount2(b"/proc/sys", 2)))
"""
    for profile in ("default", "none"):
        found = outcome_of(project, code, "--seccomp", profile)
        assert found.pop("sysrq") in ("EROFS", "EACCES", "ENOENT")  # not every kernel has it
        refused(found, "EROFS", "EPERM", "EACCES")
    if os.getuid() == 0:  # the control: without a jail nothing but the owner counts
        os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


def test_the_hosts_network_and_sockets_are_not_there(project: Path) -> None:
    name = f"\0corral-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(name)
        local.listen()
        code = f"""
attempt("loopback", lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 5))
def abstract():
    socket.socket(socket.AF_UNIX).connect({name!r})
attempt("abstract", abstract)
attempt("vsock", socket.socket, 40, socket.SOCK_STREAM)
"""
        found = outcome_of(project, code)
        refused(found, "ECONNREFUSED", "EAFNOSUPPORT")
        assert len(found) == 3
        # What --network gives, as its documentation says.
        shared = outcome_of(project, code, "--network")
        assert (shared["loopback"], shared["abstract"]) == ("done", "done")
        assert shared["vsock"] == "EAFNOSUPPORT"


def test_no_process_outside_is_seen_or_reached(project: Path) -> None:
    code = f"""
import signal
outcome["pids"] = str(max(int(p) for p in os.listdir("/proc") if p.isdigit()) < 20)
attempt("kill", os.kill, {os.getpid()}, 0)
attempt("keyring", syscall, 250, 0, -3, 0)
"""
    found = outcome_of(project, code)
    assert found.pop("pids") == "True"
    refused(found, "ESRCH", "EPERM")


# Denied paths, and races


def test_a_denied_file_that_is_made_later_does_not_count(project: Path) -> None:
    code = (
        "import os, sys\nprint('up', flush=True); sys.stdin.readline()\n"
        "for name in ('.env', 'file'):\n"
        "    try:\n        print(name, open(name).read(), flush=True)\n"
        "    except OSError as error:\n        print(name, error.errno, flush=True)\n"
        "try:\n    open('.env', 'w')\nexcept OSError as error:\n    print('made', error.errno)\n"
    )
    for before in (False, True):
        if before:
            (project / ".env").write_text("old")
        options = ("jail", "-T", "--deny", ".env", "--", PYTHON, "-c", code)
        process = launch(project, options)
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        # As an editor saves: another file, renamed over the name.
        (project / "temporary").write_text("hunter2")
        (project / "temporary").rename(project / ".env")
        out, err = process.communicate(b"\n", timeout=30)
        assert out.decode().splitlines() == [".env 2", "file mine", "made 30"], err


def test_a_denied_file_is_denied_by_the_name_that_the_host_has_for_it(project: Path) -> None:
    """Though its folder is at another place in the jail, or was named by a link."""
    (project / ".env").write_text("hunter2")
    (project.parent / "proj").symlink_to(project)
    code = "for path in ('/data/.env', '.env'): attempt(path, open, path)"
    bind = ("--rw-bind", f"{project}:/data")
    for named in (project, project.parent / "proj"):
        found = outcome_of(project, code, *bind, "--deny", f"{named}/.env")
        assert found == {"/data/.env": "ENOENT", ".env": "ENOENT"}
    elsewhere = jailed(project, "true", options=("--deny", "/elsewhere/.env"))
    assert "/elsewhere/.env is denied, and no mount" in elsewhere.stderr
    assert set(outcome_of(project, code, *bind).values()) == {"done"}, "the control"


def test_links_that_are_swapped_while_jails_start_never_show_what_they_name(project: Path) -> None:
    """Somebody who can write in the project turns a folder of it into a link and back."""
    inner, aside = project / "inner", project / "aside"
    inner.mkdir()
    (inner / "content").write_text("inner")
    secret = project.parent / "private"
    secret.mkdir()
    (secret / "content").write_text("hunter2")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            inner.rename(aside)
            inner.symlink_to(secret)
            time.sleep(0.0005)
            inner.unlink()
            aside.rename(inner)
            time.sleep(0.0005)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        shown = []
        for _ in range(12):
            options = ("--no-cwd", "--beneath", str(project), "--ro-bind", f"{inner}:/shown")
            done = jailed(project, "cat", "/shown/content", options=options)
            shown.append((done.returncode, done.stdout))
    finally:
        over.set()
        thread.join()
    assert not any("hunter2" in text for _status, text in shown)
    assert all(status in (0, 1, 125) for status, _text in shown), shown


def test_links_of_the_project_lead_nowhere_else(project: Path) -> None:
    (project / "out").symlink_to(project.parent / "secret")
    (project / "up").symlink_to("../secret")
    code = "for name in ('out', 'up', '../secret'): attempt(name, open, name)"
    refused(outcome_of(project, code), "ENOENT")


# Terminal, and the end


def test_a_terminal_cannot_be_typed_into(project: Path) -> None:
    code = """
import fcntl, os, pty, termios
master, slave = pty.openpty()
for fd in (0, 1, 2, slave):
    for command in (0x5412, 0x541C):
        attempt(f"{fd} {command:#x}", fcntl.ioctl, fd, command, b"x")
attempt("console", os.open, "/dev/tty", os.O_RDWR)
"""
    for options in ((), ("--seccomp", "none"), ("--no-new-session",)):
        refused(outcome_of(project, code, *options), "EPERM", "ENXIO")


def test_nothing_of_a_jail_outlives_its_command(project: Path) -> None:
    script = "setsid sleep 1000 & (sleep 1000 &) ; sleep 0.2; exit 7"
    assert jailed(project, "sh", "-c", script).returncode == 7
    assert wait_until_gone(10) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_of_a_jail_outlives_corral(project: Path, number: int) -> None:
    script = "trap '' TERM; echo up; sleep 1000 & wait; sleep 1000"
    process = launch(project, ("jail", "-T", "--timeout", "20s", "--", "sh", "-c", script))
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.send_signal(number)
    if number == signal.SIGTERM:  # it is the command's, which ignores it
        process.kill()
    process.communicate(timeout=30)
    assert wait_until_gone(10) == []


# System calls


def test_the_default_profile_refuses_each_call_that_it_says(project: Path) -> None:
    done = jailed(project, PYTHON, "-c", TRIES)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found[name] for name in REFUSED} == REFUSED
    assert len(REFUSED) >= 40


def test_the_same_calls_are_not_refused_without_a_profile(project: Path) -> None:
    """Else the test above would prove nothing: they fail for other reasons, or not at all."""
    done = subprocess.run([sys.executable, "-c", TRIES], capture_output=True, text=True, check=True)
    outside = json.loads(done.stdout)
    same = {name for name in REFUSED if outside[name] == REFUSED[name]}
    if os.getuid() == 0:
        assert len(same) <= 12, same


@pytest.mark.parametrize("tool", ALLOWED)
def test_a_tool_runs_under_the_default_profile(project: Path, tool: str) -> None:
    program, script = ALLOWED[tool]
    if not Path(program).exists():
        pytest.skip(f"{program} is not installed")
    done = jailed(project, "sh", "-ec", script, options=("--set-env", "TMPDIR=/tmp"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "works" in done.stdout
