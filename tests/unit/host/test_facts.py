"""What corral finds out about a machine, and what it remembers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.host import Facts, Need, Program, measure
from corral.host.facts import base_python
from corral.host.limits import cgroup_cpus, count_cpus, meminfo, usable_memory
from corral.host.platform import parse_os_release
from corral.host.programs import binds_of, parse_version, version_in, virtiofsd_dialect
from corral.host.system import Answer, System
from corral.host.users import find_user, parse_identity
from tests.support import examples

from .hosts import BOOT_ID, QEMU_C_VIRTIOFSD, Host, Programs, debian_programs

MakeHost = Callable[..., Host]
QUICK = Need(kvm=False)


@pytest.fixture(autouse=True)
def an_x86_host(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = os.uname()
    x86 = os.uname_result((*tuple(machine)[:4], "x86_64"))
    monkeypatch.setattr("os.uname", lambda: x86)


def look(host: Host, ask: Programs, need: Need = QUICK, uid: int = 0) -> Facts:
    return measure(need=need, system=host.system(ask, uid=uid), cache=host.root / "facts.json")


def debian(make_host: MakeHost) -> Host:
    host = make_host("debian12")
    host.program("/usr/bin/qemu-system-x86_64", "/usr/bin/bwrap", "/usr/lib/qemu/virtiofsd")
    return host


def test_this_machine_can_be_measured() -> None:
    facts = measure()
    assert facts.user.uid == os.getuid()
    assert facts.python.is_file() and "venv" not in facts.python.parts
    assert facts.cpus >= 1 and facts.memory > 64 << 20
    assert facts.kvm.reason and facts.user_namespaces.reason


def test_debian_12_has_the_c_virtiofsd_of_qemu(make_host: MakeHost) -> None:
    facts = look(debian(make_host), debian_programs())
    assert facts.qemu == Program(("/usr/bin/qemu-system-x86_64",), "7.2.22", ("/usr",))
    assert facts.bwrap is not None and facts.bwrap.version == "0.8.0"
    assert facts.virtiofsd is not None
    assert (facts.virtiofsd.dialect, facts.virtiofsd.program.version) == ("c", "7.2.22")
    assert facts.os_release.codename == "bookworm"


def test_an_ordinary_users_c_virtiofsd_is_known_by_its_failure(make_host: MakeHost) -> None:
    """It drops its groups before it reads --version, and has QEMU's version."""
    ask = debian_programs()
    ask.answers["virtiofsd"] = Answer(1, "", "setgroups() failed with error=1:Operation not...")
    facts = look(debian(make_host), ask)
    assert facts.virtiofsd is not None
    assert (facts.virtiofsd.dialect, facts.virtiofsd.program.version) == ("c", "7.2.22")


def test_the_rust_virtiofsd_is_preferred(make_host: MakeHost) -> None:
    host = debian(make_host)
    host.program("/usr/libexec/virtiofsd")

    def ask(argv: Sequence[str], _env: Mapping[str, str]) -> Answer:
        rust = argv[0] == "/usr/libexec/virtiofsd"
        return Answer(0, "virtiofsd 1.13.2\n" if rust else QEMU_C_VIRTIOFSD, "")

    facts = measure(
        need=QUICK,
        system=System(root=host.root, environ={"USER": "u", "HOME": "/h"}, uid=0, ask=ask),
        cache=host.root / "facts.json",
    )
    assert facts.virtiofsd is not None
    assert (facts.virtiofsd.dialect, facts.virtiofsd.program.version) == ("rust", "1.13.2")


def test_nixos_programs_are_found_in_the_store(make_host: MakeHost) -> None:
    host = make_host("nixos")
    host.program("/nix/store/abc-qemu-9.1.2/bin/qemu-system-x86_64")
    profile = host.root / "run/current-system/sw/bin"
    profile.mkdir(parents=True)
    binary = "/nix/store/abc-qemu-9.1.2/bin/qemu-system-x86_64"
    (profile / "qemu-system-x86_64").symlink_to(binary)
    facts = look(host, Programs(qemu_system_x86_64="QEMU emulator version 9.1.2\n"))
    assert facts.qemu == Program((binary,), "9.1.2", ("/nix/store",))


def test_rhel_hides_qemu_in_libexec(make_host: MakeHost) -> None:
    host = make_host("fedora")
    host.program("/usr/libexec/qemu-kvm")
    facts = look(host, Programs(qemu_kvm="QEMU emulator version 9.0.0 (qemu-kvm-9.0.0-10.el9)\n"))
    assert facts.qemu is not None and facts.qemu.argv == ("/usr/libexec/qemu-kvm",)


def test_an_empty_machine_has_nothing_and_that_is_no_error(make_host: MakeHost) -> None:
    facts = look(make_host("fedora"), Programs())
    assert (facts.qemu, facts.bwrap, facts.virtiofsd) == (None, None, None)
    assert not facts.user_namespaces.ok


def test_a_second_look_asks_no_program(make_host: MakeHost) -> None:
    host, ask = debian(make_host), debian_programs()
    first = look(host, ask)
    ask.asked.clear()
    assert look(host, ask) == first
    assert ask.asked == []


def test_fresh_asks_again(make_host: MakeHost) -> None:
    host, ask = debian(make_host), debian_programs()
    look(host, ask)
    ask.asked.clear()
    look(host, ask, Need(kvm=False, fresh=True))
    assert ask.trials() == 1


def test_a_replaced_program_is_asked_again(make_host: MakeHost) -> None:
    host, ask = debian(make_host), debian_programs()
    look(host, ask)
    ask.answers["bwrap"] = "bubblewrap 0.11.0\n"
    host.put("/usr/bin/bwrap", "#! a longer file", 0o755)
    facts = look(host, ask)
    assert facts.bwrap is not None and facts.bwrap.version == "0.11.0"


def test_namespaces_are_tried_once_a_boot(make_host: MakeHost) -> None:
    host, ask = debian(make_host), debian_programs()
    look(host, ask)
    look(host, ask)
    assert ask.trials() == 1
    host.put(BOOT_ID, "boot-two\n")
    look(host, ask)
    assert ask.trials() == 2


def test_namespaces_are_tried_again_when_a_setting_changes(make_host: MakeHost) -> None:
    host, ask = debian(make_host), debian_programs()
    look(host, ask)
    host.put("/proc/sys/user/max_user_namespaces", "0\n")
    ask.answers["bwrap"] = Answer(1, "", "bwrap: No permissions to create a new namespace")
    assert not look(host, ask).user_namespaces.ok


def test_a_failure_is_not_remembered(make_host: MakeHost) -> None:
    host, ask = debian(make_host), debian_programs()
    look(host, ask)  # versions
    host.put(BOOT_ID, "boot-two\n")
    ask.answers["bwrap"] = Answer(1, "", "bwrap: no")
    assert not look(host, ask).user_namespaces.ok
    ask.answers["bwrap"] = "bubblewrap 0.8.0\n"
    assert look(host, ask).user_namespaces.ok


@pytest.mark.parametrize("damage", [b"", b"{", b'{"version": 99}', b'{"version": 1, "kvm": 3}'])
def test_a_damaged_cache_is_measured_anew(make_host: MakeHost, damage: bytes) -> None:
    host, ask = debian(make_host), debian_programs()
    (host.root / "facts.json").write_bytes(damage)
    assert look(host, ask).qemu is not None


def test_a_cache_that_cannot_be_written_is_no_error(make_host: MakeHost) -> None:
    host, ask = debian(make_host), debian_programs()
    facts = measure(need=QUICK, system=host.system(ask), cache=host.root / "none" / "facts.json")
    assert facts.qemu is not None


def test_the_private_bwrap_is_preferred_where_it_is(make_host: MakeHost) -> None:
    host = debian(make_host)
    host.program("/usr/local/libexec/corral/bwrap")
    facts = look(host, debian_programs())
    assert facts.bwrap is not None
    assert facts.bwrap.argv == ("/usr/local/libexec/corral/bwrap",)
    assert facts.bwrap.binds == ("/usr",)


def test_the_base_python_is_not_the_virtual_environments() -> None:
    assert base_python() == Path(sys._base_executable).resolve()  # type: ignore[attr-defined]  # no stub


def test_git_identity_is_asked_for_outside_of_any_repository(make_host: MakeHost) -> None:
    """A repository's config may be a guest's work; git must not even look for one."""
    host = make_host()
    host.put("/home/u/.gitconfig", "[user]\n")
    ask = Programs(git="user.name\nAda L\0user.email\nada@example.org\0")
    user = find_user(host.system(ask, uid=4_000_000), "/usr/bin/git")
    assert (user.git_name, user.git_email) == ("Ada L", "ada@example.org")
    assert ask.environments[0]["GIT_DIR"] == "/dev/null"
    assert "--global" in ask.asked[0]


def test_git_is_not_run_without_a_configuration(make_host: MakeHost) -> None:
    ask = Programs(git="user.name\nX\0")
    user = find_user(make_host().system(ask, uid=4_000_000), "/usr/bin/git")
    assert user.git_name is None and ask.asked == []


def test_the_last_git_identity_counts_and_control_characters_do_not() -> None:
    assert parse_identity("user.name\nA\0user.name\nB\0user.email\nx\ny\0") == ("B", None)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.2.22 (Debian 1:7.2+dfsg-7)", (7, 2, 22)),
        ("0.8", (0, 8)),
        ("v1.13.2-dev", (1, 13, 2)),
        ("24.04", (24, 4)),
        ("", ()),
        ("sid", ()),
    ],
)
def test_versions_compare_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


def test_the_version_is_found_in_what_programs_print() -> None:
    assert version_in("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright 2003\n") == "7.2.22"
    assert version_in("bubblewrap 0.11.0") == "0.11.0"
    assert version_in("no version here\n1.2.3") == ""


def test_dialects_are_told_apart() -> None:
    assert virtiofsd_dialect(QEMU_C_VIRTIOFSD) == "c"
    assert virtiofsd_dialect("virtiofsd 1.10.0\n") == "rust"


@pytest.mark.parametrize(
    ("binary", "binds"),
    [
        ("/usr/bin/bwrap", ("/usr",)),
        ("/nix/store/x-bwrap/bin/bwrap", ("/nix/store",)),
        ("/opt/qemu/bin/qemu-system-x86_64", ("/usr", "/opt/qemu")),
        ("/home/u/bwrap", ("/usr", "/home/u")),
    ],
)
def test_what_must_be_visible_to_run_a_program(binary: str, binds: tuple[str, ...]) -> None:
    assert binds_of(binary) == binds


@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    parse_version(text)
    parse_os_release(text)
    parse_identity(text)
    cgroup_cpus(text)
    assert meminfo(text, "MemTotal") >= 0


def test_limits_of_the_cgroup_count(make_host: MakeHost) -> None:
    host = make_host()
    assert usable_memory(host.system()) == 8 << 30
    host.put("/sys/fs/cgroup/memory.max", "1073741824\n")
    host.put("/sys/fs/cgroup/cpu.max", "50000 100000\n")
    assert usable_memory(host.system()) == 1 << 30
    assert count_cpus(host.system()) == 1
    assert cgroup_cpus("max 100000") is None
    assert cgroup_cpus("150000 100000") == 2


@pytest.mark.parametrize(
    ("uid", "usr_owner", "usable"), [(0, 0, True), (1000, 0, False), (0, 65534, False)]
)
def test_qemus_virtiofsd_serves_only_whom_usr_belongs_to(
    uid: int, usr_owner: int, usable: bool
) -> None:
    facts = examples.facts(virtiofsd=examples.C_VIRTIOFSD, usr_owner=usr_owner)
    facts = msgspec.structs.replace(facts, user=msgspec.structs.replace(facts.user, uid=uid))
    assert (facts.own_virtiofsd is not None) is usable


def test_a_folder_of_path_that_cannot_be_looked_into_has_no_program(tmp_path: Path) -> None:
    # Too long a name fails for root, too, as a forbidden folder fails for others.
    system = System(environ={"PATH": f"{tmp_path}/{'x' * 300}:/usr/bin:/bin"})
    assert system.which("sh") is not None
