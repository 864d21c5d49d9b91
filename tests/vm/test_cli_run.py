"""`corral run` as a user meets it: a command among other commands of a shell, and what it is shown.

A machine of its own for every test costs seconds under emulation, so one run answers many
questions where it can.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Corral
from tests.support.corral import command, environment, launch, left_behind

MIB = 1 << 20


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


# What the command sees


REPORT = r"""
import json, os, subprocess, sys

def attempt(action):
    try:
        return action() or "done"
    except OSError as error:
        return os.strerror(error.errno)

def text(path):
    return open(path).read()

def out(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()

home = os.path.expanduser("~")
print(json.dumps({
    "name": os.uname().nodename,
    "cwd": os.getcwd(),
    "home": home,
    "home_entries": sorted(os.listdir(home)),
    "env": {name: value for name, value in os.environ.items() if name != "RAW"},
    "bytes": [os.environb[b"RAW"].hex(), *(os.fsencode(a).hex() for a in sys.argv[2:])],
    "read share": text(sys.argv[1] + "/in"),
    "write to it": attempt(lambda: open(sys.argv[1] + "/new", "w").close()),
    "writable share": attempt(lambda: open("/data/new", "w").close()),
    "masked file": text(".env"),
    "masked folder": os.listdir("secrets"),
    "nested": {name: text(f"sub/{name}") for name in ("a.pem", "a.txt")},
    "write masked": attempt(lambda: open(".env", "w").close()),
    "tool": out("greet"),
    "git name": out("git", "config", "user.name"),
    "git status": out("git", "status", "--short", "--branch"),
    "git commit": out("git", "commit", "--allow-empty", "-q", "-m", "inside"),
    "git config": attempt(lambda: open(".git/config", "a").close()),
    "git hooks": attempt(lambda: open(".git/hooks/post-commit", "w").close()),
}))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a project, a tool, and folders to share."""
    base = tmp_path_factory.mktemp("place")
    home, project = base / "home", base / "home" / "src" / "project"
    project.mkdir(parents=True)
    for name in ("read", "write", "bystander"):
        (base / name).mkdir()
    (base / "read" / "in").write_text("shared")
    (project / ".env").write_text("PASSWORD=1")
    for name in ("secrets/key", "sub/a.pem", "sub/a.txt"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("content")
    git(project, "init", "-q", "-b", "main")
    (home / ".gitconfig").write_text("[user]\n\tname = Ada L\n\temail = ada@example.org\n")
    (home / ".netrc").write_text("machine example.org password 1")
    write_program(home / ".nvm" / "bin" / "greet", "#!/bin/sh\necho hello from a tool\n")
    return base


@pytest.fixture(scope="module")
def seen(place: Path) -> dict[str, Any]:
    home = place / "home"
    options = [
        *("--name", "looking-glass", "--share", str(place / "read")),
        *("--share", f"{place / 'write'}:/data:rw", "--tool", str(home / ".nvm")),
        *("--mask", ".env", "--mask", "secrets/", "--mask", "sub/*.pem"),
        *("-e", "PLAIN=a=b", "-e", "PASSED", "-e", "EMPTY=", "-e", os.fsdecode(b"RAW=\xff\n")),
    ]
    arguments = [str(place / "read"), os.fsdecode(b"\xfe--\n"), "", "--help"]
    done = subprocess.run(
        command("run", *options, "--", "python3", "-c", REPORT, *arguments),
        cwd=home / "src" / "project",
        env=environment(
            {
                "HOME": str(home),
                "PATH": f"{home}/.nvm/bin:{os.environ['PATH']}",
                "PASSED": "on",
                "NOT_PASSED": "1",
            }
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_sandbox_has_the_name_it_was_given(seen: dict[str, Any]) -> None:
    assert seen["name"] == "looking-glass"


def test_it_starts_in_the_workspace_at_its_own_path(seen: dict[str, Any], place: Path) -> None:
    assert seen["cwd"] == str(place / "home" / "src" / "project")


def test_the_home_is_there_with_nothing_of_the_users(seen: dict[str, Any], place: Path) -> None:
    assert seen["home"] == str(place / "home")
    assert seen["home_entries"] == [".nvm", "src"], "the way to the workspace and the tool"


def test_variables_are_those_that_were_named(seen: dict[str, Any]) -> None:
    found = seen["env"]
    assert (found["PLAIN"], found["PASSED"], found["EMPTY"]) == ("a=b", "on", "")
    assert "NOT_PASSED" not in found
    assert "TERM" not in found, "there is no terminal"


def test_arguments_and_variables_are_bytes(seen: dict[str, Any]) -> None:
    assert seen["bytes"] == [b"\xff\n".hex(), b"\xfe--\n".hex(), "", b"--help".hex()]


def test_a_share_is_read_only_unless_it_is_said_to_be_writable(
    seen: dict[str, Any], place: Path
) -> None:
    assert seen["read share"] == "shared"
    assert seen["write to it"] == "Read-only file system"
    assert seen["writable share"] == "done"
    assert (place / "write" / "new").stat().st_uid == os.getuid()


def test_masked_files_are_empty_and_masked_folders_too(seen: dict[str, Any], place: Path) -> None:
    assert seen["masked file"] == ""
    assert seen["masked folder"] == []
    assert seen["nested"] == {"a.pem": "", "a.txt": "content"}
    assert seen["write masked"] != "done"
    assert (place / "home" / "src" / "project" / ".env").read_text() == "PASSWORD=1"


def test_a_tool_of_the_home_runs(seen: dict[str, Any]) -> None:
    assert seen["tool"] == "hello from a tool"


def test_git_knows_the_user_and_takes_the_workspace_as_safe(seen: dict[str, Any]) -> None:
    assert seen["git name"] == "Ada L"
    assert seen["git status"].startswith("## No commits yet on main")
    assert seen["git commit"] == ""


def test_what_the_hosts_git_obeys_cannot_be_changed(seen: dict[str, Any]) -> None:
    assert seen["git config"] == "Read-only file system"
    assert seen["git hooks"] == "Read-only file system"


def test_root_may_change_the_system_and_it_is_gone_afterwards(
    corral: Corral, project: Path
) -> None:
    (project / "kept").write_text("kept")
    script = """
    id -un; echo ~
    for file in /usr/bin/new-program /etc/new-file /opt/new-file; do
        printf '#!/bin/sh\\necho new\\n' > $file && chmod +x $file || exit 1
    done
    new-program
    rm /usr/bin/env && ! /usr/bin/env true 2> /dev/null && echo removed
    mv /usr/share/doc /usr/share/papers && echo renamed
    echo changed > kept || echo refused
    """
    done = corral("run", "--user", "root", "--ro", "--", "bash", "-c", script)
    home = os.path.expanduser("~") if os.getuid() == 0 else "/root"  # noqa: PTH111
    assert done.stdout.split() == ["root", home, "new", "removed", "renamed", "refused"], (
        done.stderr
    )
    assert "Read-only file system" in done.stderr
    assert (project / "kept").read_text() == "kept"
    assert Path("/usr/bin/env").exists()
    assert Path("/usr/share/doc").is_dir()
    assert not Path("/usr/bin/new-program").exists()


def test_a_linked_worktree_of_a_subfolder_works_and_unprotect_opens_its_config(
    corral: Corral, tmp_path: Path
) -> None:
    main, linked = tmp_path / "main", tmp_path / "linked"
    main.mkdir()
    git(main, "init", "-q", "-b", "main")
    git(main, "commit", "-q", "--allow-empty", "-m", "first")
    git(main, "worktree", "add", "-q", str(linked))
    script = """
    git commit -q --allow-empty -m inside && git log --format=%s
    git config core.fsmonitor /tmp/evil || echo refused
    """
    identity = [
        x
        for n in ("AUTHOR", "COMMITTER")
        for x in ("-e", f"GIT_{n}_NAME=x", "-e", f"GIT_{n}_EMAIL=x@y")
    ]
    done = corral("run", *identity, "--", "sh", "-c", script, cwd=linked)
    assert done.stdout.split() == ["inside", "first", "refused"], done.stderr
    assert "evil" not in (main / ".git" / "config").read_text()
    log = subprocess.run(["git", "log", "--format=%s"], cwd=linked, capture_output=True, text=True)
    assert log.stdout.split() == ["inside", "first"], "the commit is there on the host"


def test_a_subfolder_is_a_workspace_of_its_own_and_unprotect_opens_what_it_names(
    corral: Corral, project: Path
) -> None:
    inner = project / "inner"
    (inner / "deep").mkdir(parents=True)
    (project / "above").write_text("above")
    git(inner, "init", "-q")
    script = "pwd; cat ../../above; cd ..; git config core.editor vi && git config core.editor"
    done = corral(
        *("run", "--unprotect", ".git/config", "--workdir", "deep", "--", "sh", "-c", script),
        cwd=inner,
    )
    assert done.stdout.split() == [str(inner / "deep"), "vi"], done.stderr
    assert "above" in done.stderr, "what is above the workspace is not there"
    assert "editor = vi" in (inner / ".git" / "config").read_text()


def test_a_program_that_is_only_in_the_home_is_named(corral: Corral, place: Path) -> None:
    home = place / "home"
    path = {"HOME": str(home), "PATH": f"{home}/.nvm/bin:{os.environ['PATH']}"}
    done = corral("run", "--", "greet", env=path, cwd=home / "src" / "project")
    assert done.returncode == 127
    assert "greet: not found" in done.stderr
    assert "greet is in ~/.nvm: add --tool ~/.nvm" in done.stderr


def test_a_variable_that_is_not_set_cannot_be_passed_on(corral: Corral) -> None:
    done = corral("run", "-e", "NO_SUCH_VARIABLE", "--", "true")
    assert done.returncode == 125
    assert "NO_SUCH_VARIABLE" in done.stderr
    assert "not set" in done.stderr


def test_a_working_folder_that_is_missing_is_corrals_own_failure(corral: Corral) -> None:
    done = corral("run", "--workdir", "/no/where", "--", "true")
    assert done.returncode == 125
    assert "/no/where" in done.stderr
    assert "Traceback" not in done.stderr


# Streams


def shell(folder: Path, script: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a shell script in which $corral is `corral run`."""
    corral = f'corral() {{ "{sys.executable}" -m corral run "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", corral + script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=100,
        check=False,
        **options,
    )


def test_it_takes_its_place_in_a_pipeline(project: Path) -> None:
    """Endless input ends with the command, and an endless command with its reader."""
    done = shell(project, 'yes | corral -- head -n 1; echo "${PIPESTATUS[@]}"')
    assert done.stdout.split() == [b"y", b"141", b"0"], done.stderr
    done = shell(project, 'corral -- yes | head -n 1; echo "${PIPESTATUS[@]}"')
    assert done.stdout.split() == [b"y", b"141", b"0"], done.stderr


def test_input_may_be_a_file_and_standard_input_may_be_closed(project: Path) -> None:
    (project / "input").write_bytes(bytes(MIB))
    done = shell(project, "corral -- wc -c < input; corral -- wc -c <&-")
    assert done.stdout.split() == [str(MIB).encode(), b"0"], done.stderr


def test_without_input_nothing_is_read_and_the_command_sees_its_end(project: Path) -> None:
    done = shell(project, "(echo kept; sleep 1) | { corral -I -- wc -c; head -n 1; }")
    assert done.stdout.split() == [b"0", b"kept"], done.stderr


def test_output_can_be_closed_or_a_full_disk(project: Path) -> None:
    done = shell(project, "corral -- sh -c 'echo err >&2; yes | head -c 1000000' > /dev/full")
    assert done.returncode == 125
    assert b"err\n" in done.stderr
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def peak_memory(pid: int) -> int:
    """Bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) << 10


def test_a_reader_that_stalls_costs_no_memory_and_cannot_outlast_the_time_limit(
    project: Path,
) -> None:
    script = f"head -c {12 * MIB} /dev/zero; echo done >&2; exec yes"
    with launch(project, ["run", "--timeout", "15s", "--", "sh", "-c", script]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"\0"
        before = peak_memory(process.pid)
        left = 12 * MIB - 1
        while left:
            left -= len(process.stdout.read(min(left, 65536)))
        assert process.stderr.readline() == b"done\n"
        time.sleep(1)  # the command fills every buffer on the way, and would fill more
        assert peak_memory(process.pid) - before < 8 * MIB
        # From here on nobody reads.
        assert process.wait(timeout=60) == 124
        assert b"longer than 15 seconds" in process.stderr.read()
        process.stdout.close()
    assert left_behind() == []


def test_a_current_folder_that_was_removed_is_said_to_be(project: Path) -> None:
    done = shell(project, "mkdir gone && cd gone && rmdir ../gone && corral -- true")
    assert done.returncode == 125
    assert b"the current folder cannot be used" in done.stderr


# The end


def test_a_time_limit_ends_the_whole_tree(corral: Corral, project: Path) -> None:
    script = """
    (trap '' TERM HUP; setsid sleep 1000) &
    trap 'echo goodbye; date > ended' TERM
    while true; do sleep 0.1; done
    """
    done = corral("run", "--timeout", "3s", "--debug", "--", "sh", "-c", script)
    assert done.returncode == 124
    assert "longer than 3 seconds" in done.stderr
    assert "goodbye" in done.stdout, "its output is heard to the end"
    assert (project / "ended").read_text(), "what it wrote is kept"
    kept = re.search(r"logs are kept in (\S+)", done.stderr)
    assert kept is not None
    folder = Path(kept[1])
    assert {"console.log", "QEMU.log"} <= {file.name for file in folder.iterdir()}
    # It clears the cache, too: an empty one, as others use theirs.
    own = environment({"CORRAL_CACHE_DIR": str(project.parent / "cache")})
    swept = subprocess.run(command("gc"), env=own, capture_output=True, check=False)
    assert swept.returncode == 0
    assert left_behind() == []


def test_signals_reach_the_command(project: Path) -> None:
    script = """
    for name in INT HUP USR1 USR2 QUIT; do trap "echo $name" $name; done
    trap 'echo TERM; exit 9' TERM
    echo up; while true; do sleep 0.05; done
    """
    with launch(project, ["run", "--", "sh", "-c", script]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        for name in ("INT", "HUP", "USR1", "USR2", "QUIT", "TERM"):
            process.send_signal(getattr(signal, f"SIG{name}"))
            assert process.stdout.readline() == f"{name}\n".encode()
        assert process.wait(timeout=30) == 9
    assert left_behind() == []


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_signal_during_the_start_ends_it_and_leaves_nothing(project: Path, name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    with launch(project, ["run", "--json", "--", "true"], stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "phase" and event["name"] == "boot":
                break
        process.send_signal(number)
        process.send_signal(number)  # once more, as impatient people do
        assert b"started" not in process.stdout.read()
        assert process.wait(timeout=30) == 128 + number
    assert left_behind() == []


def test_three_interrupts_end_a_command_that_ignores_them(project: Path) -> None:
    script = "trap '' INT; echo up; sleep 1000"
    with launch(project, ["run", "--", "sh", "-c", script]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)  # signals of one number do not queue
        assert process.wait(timeout=30) == 130
    assert left_behind() == []


# Events


def test_events_are_lines_of_json_and_carry_everything(corral: Corral) -> None:
    script = "echo out; echo err >&2; head -c 100000 /dev/zero; exit 3"
    done = corral("run", "--json", "--console", "--", "sh", "-c", script)
    assert done.returncode == 3, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "phase"
    assert kinds.index("started") < kinds.index("output") < kinds.index("exited")
    started = events[kinds.index("started")]
    assert (started["sandbox"], started["carrier"]) == ("project", "serial")
    assert started["accel"] in ("kvm", "tcg")
    assert started["seconds"] > 0
    output: dict[str, bytes] = {"stdout": b"", "stderr": b""}
    for event in events:
        if event["event"] == "output":
            output[event["stream"]] += base64.b64decode(event["data"])
    assert output == {"stdout": b"out\n" + bytes(100000), "stderr": b"err\n"}
    assert events[-1]["event"] == "exited"
    assert events[-1]["status"] == 3


def test_a_failure_is_an_event_too(corral: Corral) -> None:
    done = corral("run", "--json", "--", "no-such-program")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["status"], done.returncode) == ("failed", 127, 127)
    assert "not found" in last["message"]
    assert last["hint"]
    assert done.stderr == ""


def test_the_console_is_shown_on_standard_error(project: Path) -> None:
    with launch(project, ["run", "--console", "--", "echo", "hi"]) as process:
        out, err = process.communicate(timeout=90)
    assert out == b"hi\n"
    assert b"Linux version" in err
