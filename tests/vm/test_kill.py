"""Whatever is killed, whenever: nothing is left on the host. Real machines, killed for real.

Every process of a run is a descendant of this one, also after its parents have died (see
tests/support/leftovers), so nothing can stay unseen.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from corral.proc.crash import VARIABLE
from corral.sandbox import sweep
from tests.conftest import Corral
from tests.support import leftovers
from tests.support.faults import Run, assert_nothing_left, running


def test_killed_with_its_whole_process_group_nothing_is_left(project: Path) -> None:
    with running(project, "sleep", "1000") as run:
        run.signal_all(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
        assert_nothing_left()


def test_stopped_and_then_killed_nothing_is_left(project: Path) -> None:
    with running(project, "yes") as run:
        run.process.send_signal(signal.SIGSTOP)
        run.process.send_signal(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
        assert_nothing_left()


@pytest.mark.parametrize("moment", [random.Random(n).uniform(0.05, 0.6) for n in range(15)])
def test_killed_at_any_moment_of_the_start_nothing_is_left(project: Path, moment: float) -> None:
    """What no crash point names: bubblewrap at work, Python starting."""
    run = Run(project, ("true",))
    time.sleep(moment)
    run.signal_all(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    assert leftovers.wait_until_gone(15) == []
    sweep()
    assert_nothing_left()


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004, 0.008, 0.02, 0.05])
def test_bubblewrap_killed_while_it_sets_up_nothing_is_left(project: Path, delay: float) -> None:
    run = Run(project, ("true",), environment={VARIABLE: "guest-awake"})
    run.helper("warden.py", wrapper=True)
    time.sleep(delay)
    for process in psutil.Process(run.process.pid).children():
        process.kill()
    if run.end() != -signal.SIGKILL:  # it met its crash point: the warden needs no bubblewrap
        assert [event["event"] for event in run.events][-1] == "failed"
    assert_nothing_left()


def test_the_warden_and_corral_killed_at_once_leave_a_folder_that_is_swept(
    project: Path, corral: Corral
) -> None:
    with running(project, "sleep", "1000") as run:
        warden = run.helper("warden.py")
        warden.suspend()
        run.process.kill()
        warden.kill()
        assert run.end() == -signal.SIGKILL
        assert leftovers.wait_until_gone(15) == []
        (folder,) = leftovers.folders()
        cache = project.parent / "cache"  # gc clears the cache, too: an empty one
        done = corral("gc", "--json", env={"CORRAL_CACHE_DIR": str(cache)})
        assert json.loads(done.stdout)["run_folders"] == [folder]
        assert_nothing_left()


@pytest.mark.parametrize(
    ("program", "wrapper", "message"),
    [
        ("qemu-system", False, "the virtual machine is gone: QEMU was ended by SIGKILL."),
        ("virtiofsd", True, "the file server is gone: virtiofsd (toolbox) was ended by SIGKILL."),
        ("warden.py", False, "the virtual machine is gone: the warden, which holds QEMU"),
    ],
    ids=["qemu", "virtiofsd", "warden"],
)
def test_a_helper_killed_during_a_command_is_one_clear_error(
    project: Path, program: str, wrapper: bool, message: str
) -> None:
    with running(project, "sh", "-c", "echo 1 > kept; exec sleep 1000") as run:
        run.helper(program, wrapper=wrapper).kill()
        began = time.monotonic()
        failure = run.failed()
        assert str(failure["message"]).startswith(message)
        assert "dmesg" in str(failure["hint"])
        assert time.monotonic() - began < 10
        assert_nothing_left()


def test_vhost_device_vsock_killed_during_a_command_is_one_clear_error(project: Path) -> None:
    with running(project, "sleep", "1000", options=("--carrier", "vsock")) as run:
        run.helper("vhost-device-vsock").kill()
        message = str(run.failed()["message"])
        assert message == "the vsock device is gone: vhost-device-vsock was ended by SIGKILL."
        assert_nothing_left()


@pytest.mark.parametrize(
    ("program", "carrier"),
    [("qemu-system", "serial"), ("virtiofsd", "serial"), ("vhost-device-vsock", "vsock")],
)
def test_a_helper_killed_while_the_guest_boots_is_one_clear_error(
    project: Path, program: str, carrier: str
) -> None:
    options = ("--cold", "--carrier", carrier)
    with running(project, "true", options=options, wait=False) as run:
        run.helper(program).kill()
        failure = run.failed()
        assert str(failure["message"]).startswith("the guest did not come up: "), failure
        assert "SIGKILL" in str(failure["message"])
        assert_nothing_left()


def test_the_warden_killed_while_the_guest_boots_is_one_clear_error(project: Path) -> None:
    with running(project, "true", options=("--cold",), wait=False) as run:
        run.helper("qemu-system")
        run.helper("warden.py").kill()
        assert "the warden" in str(run.failed()["message"])
        assert_nothing_left()


def test_a_command_does_not_need_bubblewrap_nor_corral_all_the_time(project: Path) -> None:
    """The outermost bubblewrap killed; corral stopped while the command writes, and continued."""
    script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done; sleep 1; echo end > result"
    with running(project, "sh", "-c", script, as_json=False, wait=False) as run:
        assert run.process.stdout is not None
        first = run.process.stdout.readline()
        (outer,) = psutil.Process(run.process.pid).children()
        outer.kill()
        run.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, run.process.pid, os.WSTOPPED)
        time.sleep(2)
        run.process.send_signal(signal.SIGCONT)
        rest = run.process.stdout.read()
        assert run.process.wait(60) == 0, run.stderr
        assert (first + rest).split() == [b"%d" % n for n in range(3000)]
        assert (project / "result").read_text() == "end\n"
        assert run.stderr == ""
        assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_guest_boots_ends_it_quietly(
    project: Path, number: signal.Signals
) -> None:
    with running(project, "true", options=("--cold",), wait=False) as run:
        run.helper("virtiofsd")
        run.process.send_signal(number)
        run.process.send_signal(number)  # nor does a second one disturb the end
        assert run.end() == 128 + number
        assert run.stderr == ""
        assert_nothing_left()


def test_a_guest_that_stopped_answering_cannot_outstay_its_time(project: Path) -> None:
    with running(project, "sleep", "1000", options=("--timeout", "3s")) as run:
        run.helper("qemu-system").suspend()
        began = time.monotonic()
        assert run.end() == 124, run.events
        assert time.monotonic() - began < 40
        warning, failure = run.events[-2:]
        assert warning["event"] == "notice" and "did not confirm" in str(warning["message"])
        assert failure["message"] == "the command ran longer than 3 seconds and was ended."
        assert_nothing_left()


def test_two_at_once_in_the_same_folder_do_not_disturb_each_other(project: Path) -> None:
    runs = [
        Run(project, ("sh", "-c", f"echo {name} > {name}; cat {name}; exit {name}"), as_json=False)
        for name in ("3", "4")
    ]
    try:
        outputs = [run.process.communicate(timeout=100)[0] for run in runs]
    except subprocess.TimeoutExpired:
        for run in runs:
            run.signal_all(signal.SIGKILL)
        raise
    assert [run.process.returncode for run in runs] == [3, 4], [run.stderr for run in runs]
    assert outputs == [b"3\n", b"4\n"]
    assert_nothing_left()
