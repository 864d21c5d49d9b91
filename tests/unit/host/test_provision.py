"""Missing programs are installed after a yes, or root is told the one command to run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import HostError, MissingProgramError
from corral.events import Event, Phase
from corral.host import Facts, Need, OsRelease, System, measure
from corral.host.consent import unattended
from corral.host.packages import how_to_install, packages_for
from corral.host.platform import parse_os_release
from corral.host.provision import apt_percent, ensure_programs, missing
from corral.host.root import run_as_root, run_lines
from corral.host.system import Answer

from .hosts import OS_RELEASES, Host, Programs, debian_programs

MakeHost = Callable[..., Host]
QEMU, BWRAP = "/usr/bin/qemu-system-x86_64", "/usr/bin/bwrap"
COMMAND = (
    "As root, once: apt-get update && apt-get install -y --no-install-recommends "
    "bubblewrap qemu-system-x86"
)


def release(name: str) -> OsRelease:
    values = parse_os_release(OS_RELEASES[name])
    return OsRelease(
        id=values["ID"],
        version_id=values.get("VERSION_ID", ""),
        pretty=values["PRETTY_NAME"],
        like=tuple(values.get("ID_LIKE", "").split()),
    )


@pytest.fixture(autouse=True)
def an_x86_host(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.uname()
    x86 = os.uname_result((*tuple(machine)[:4], "x86_64"))
    monkeypatch.setattr("os.uname", lambda: x86)


class Apt:
    """Root's commands on a host of files; installing makes the programs appear."""

    def __init__(self, host: Host, *, installs: Sequence[str] = (), update: int = 0) -> None:
        self.host, self.installs, self.update = host, installs, update
        self.commands: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []

    def __call__(
        self, argv: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> int:
        self.commands.append(list(argv))
        self.environments.append(env)
        if "update" in argv:
            return self.update
        on_line("dlstatus:1:40.0:Retrieving file 1 of 2")
        on_line("pmstatus:bubblewrap:50.0:Unpacking bubblewrap (amd64)")
        self.host.program(*self.installs)
        return 0


class Situation:
    """An empty Debian and who is asking."""

    def __init__(self, host: Host, uid: int, ask: Programs, environ: dict[str, str]) -> None:
        host.program("/usr/bin/apt-get")
        self.host = host
        self.system: System = host.system(ask, uid=uid, environ=environ)
        self.facts: Facts = measure(need=Need(kvm=False), system=self.system)
        self.apt = Apt(host, installs=(QEMU, BWRAP))
        self.events: list[Event] = []
        self.questions: list[str] = []

    def ensure(self, answer: bool | None = None, *, assume_yes: bool = False) -> Facts:
        def confirm(question: str) -> bool | None:
            self.questions.append(question)
            return answer

        return ensure_programs(
            self.facts,
            ("qemu", "bwrap"),
            assume_yes=assume_yes,
            report=self.events.append,
            confirm=confirm,
            system=self.system,
            run=self.apt,
        )


@pytest.fixture
def situation(make_host: MakeHost) -> Callable[..., Situation]:
    def make(
        uid: int = 0, *, name: str = "debian12", sudo: Answer | None = None, **environ: str
    ) -> Situation:
        host = make_host(name)
        ask = debian_programs()
        if sudo is not None:
            host.program("/usr/bin/sudo")
            ask.answers["sudo"] = sudo
        return Situation(host, uid, ask, environ)

    return make


Situations = Callable[..., Situation]


def test_nothing_is_done_when_nothing_is_missing(situation: Situations) -> None:
    here = situation()
    here.host.program(QEMU, BWRAP)
    here.facts = measure(need=Need(kvm=False), system=here.system)
    assert here.ensure() is here.facts
    assert here.apt.commands == [] and here.questions == []


def test_root_is_asked_and_a_yes_installs(situation: Situations) -> None:
    here = situation()
    facts = here.ensure(True)
    assert missing(facts, ("qemu", "bwrap")) == ()
    assert "runs the virtual machine" in here.questions[0]
    assert "qemu-system-x86" in here.questions[0]
    update, install = here.apt.commands
    assert update == ["apt-get", "update"]
    assert install[0] == "apt-get" and install[-2:] == ["bubblewrap", "qemu-system-x86"]
    assert "--no-install-recommends" in install
    assert here.apt.environments[0]["DEBIAN_FRONTEND"] == "noninteractive"


def test_progress_is_reported(situation: Situations) -> None:
    here = situation()
    here.ensure(True)
    messages = [event.message for event in here.events if isinstance(event, Phase)]
    assert messages[0] == "installing bubblewrap, qemu-system-x86"
    assert messages[1].endswith("20 %") and messages[2].endswith("75 %")


def test_a_no_changes_nothing(situation: Situations) -> None:
    here = situation()
    with pytest.raises(MissingProgramError) as caught:
        here.ensure(False)
    assert caught.value.hint == COMMAND
    assert here.apt.commands == []


def test_without_a_terminal_nothing_is_installed_unasked(situation: Situations) -> None:
    here = situation()
    with pytest.raises(MissingProgramError) as caught:
        here.ensure(None)
    assert caught.value.hint is not None and "--yes" in caught.value.hint
    assert COMMAND in caught.value.hint
    assert here.apt.commands == []


def test_yes_and_ci_ask_no_question(situation: Situations) -> None:
    here = situation()
    here.ensure(assume_yes=True)
    assert here.questions == []
    assert unattended(False, {"CI": "true"}) and not unattended(False, {"CI": "false"})


def test_an_ordinary_user_is_told_the_one_command_for_root(situation: Situations) -> None:
    here = situation(uid=1000)
    with pytest.raises(MissingProgramError) as caught:
        here.ensure(assume_yes=True)
    assert "QEMU, which runs the virtual machine" in caught.value.message
    assert caught.value.hint == COMMAND


def test_an_ordinary_user_with_sudo_installs_through_it(situation: Situations) -> None:
    here = situation(uid=1000, sudo=Answer(0, "", ""), https_proxy="http://proxy:3128")
    here.ensure(True)
    assert "with sudo" in here.questions[0]
    assert here.apt.commands[1][:3] == ["/usr/bin/sudo", "-n", "env"]
    assert "https_proxy=http://proxy:3128" in here.apt.commands[1]  # sudo passes nothing on


def test_sudo_that_needs_a_password_and_no_terminal_is_no_way(
    situation: Situations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    here = situation(uid=1000, sudo=Answer(1, "", "sudo: a password is required"))
    with pytest.raises(MissingProgramError):
        here.ensure(assume_yes=True)


def test_other_distributions_are_named_packages_and_left_alone(situation: Situations) -> None:
    here = situation(name="fedora")
    with pytest.raises(MissingProgramError) as caught:
        here.ensure(assume_yes=True)
    assert caught.value.hint == "As root, once: dnf install -y bubblewrap qemu-system-x86-core"
    assert here.apt.commands == []


def test_a_broken_source_does_not_stop_the_installation(situation: Situations) -> None:
    here = situation()
    here.apt.update = 100
    assert here.ensure(True).qemu is not None


def test_packages_that_do_not_bring_the_program_are_an_error(situation: Situations) -> None:
    here = situation()
    here.apt.installs = (QEMU,)
    with pytest.raises(MissingProgramError, match="bubblewrap"):
        here.ensure(True)


def test_a_failed_command_shows_its_last_lines() -> None:
    with pytest.raises(HostError) as caught:
        run_as_root([["sh", "-c", "echo evidence; exit 3"]], [], {}, on_line=lambda _: None)
    assert "exit status 3" in caught.value.message
    assert caught.value.detail == "evidence"


def test_a_command_that_does_not_exist_is_a_host_error() -> None:
    with pytest.raises(HostError, match="did not start"):
        run_as_root([["no-such-command"]], [], {}, on_line=lambda _: None)


def test_root_commands_see_an_environment_made_from_nothing() -> None:
    lines: list[str] = []
    run_lines(["/usr/bin/env"], {"ONLY": "this"}, lines.append)
    assert "ONLY=this" in lines and not any(line.startswith("HOME=") for line in lines)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("debian12", "qemu-system-common"),
        ("debian13", "virtiofsd"),
        ("ubuntu2204", "qemu-system-common"),
        ("ubuntu2404", "virtiofsd"),
        ("fedora", "virtiofsd"),
    ],
)
def test_who_ships_virtiofsd(name: str, package: str) -> None:
    assert packages_for(("virtiofsd",), release(name), "x86_64") == (package,)


def test_every_distribution_gets_a_next_step() -> None:
    hints = {name: how_to_install(("qemu",), release(name), "x86_64") for name in OS_RELEASES}
    assert "environment.systemPackages" in hints["nixos"]
    assert hints["tumbleweed"] == "As root, once: zypper install qemu-x86"
    unknown = OsRelease(id="plan9", pretty="Plan 9")
    assert "Install QEMU" in how_to_install(("qemu",), unknown, "x86_64")
    assert packages_for(("qemu",), release("debian12"), "aarch64") == ("qemu-system-arm",)


@given(st.text())
def test_percentages_are_percentages(line: str) -> None:
    for text in (line, f"dlstatus:{line}", f"pmstatus:{line}"):
        percent = apt_percent(text)
        assert percent is None or 0 <= percent <= 100


def test_progress_lines_of_apt_are_understood_and_others_passed_over() -> None:
    assert apt_percent("pmstatus:dpkg-exec:100.0:Running dpkg") == 100
    assert apt_percent("pmstatus:libc6:amd64:50.0:Unpacking libc6 (amd64)") == 75
    assert apt_percent("dlstatus:1:0.0:Retrieving file 1 of 1") == 0
    assert apt_percent("Reading package lists...") is None
    assert apt_percent("pmstatus:libc6:amd64:nan:x") is None
