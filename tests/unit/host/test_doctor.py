"""doctor says what this machine gives, what is missing, and mends what it can."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from corral.cli.doctor import command
from corral.errors import HostError
from corral.host import (
    Facts,
    Finding,
    KvmFinding,
    Program,
    Virtiofsd,
    apparmor,
    checks,
    doctor,
    doors,
)
from corral.host.facts import Need, measure
from corral.host.platform import AppArmor
from corral.host.system import Answer
from tests.support import examples

from .hosts import Host, Programs, debian_programs

MakeHost = Callable[..., Host]
RESTRICT = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


@pytest.fixture
def good(make_host: MakeHost) -> Facts:
    """A machine that has everything."""
    facts = measure(need=Need(kvm=False), system=make_host("debian12").system(Programs()))
    return msgspec.structs.replace(
        facts,
        arch="x86_64",
        qemu=Program(("/usr/bin/qemu-system-x86_64",), "8.2.0", ("/usr",)),
        bwrap=Program(("/usr/bin/bwrap",), "0.9.0", ("/usr",)),
        virtiofsd=Virtiofsd(Program(("/usr/libexec/virtiofsd",), "1.13.2", ("/usr",)), "rust"),
        vhost_device_vsock=Program(("/usr/bin/vhost-device-vsock",), "0.3.0", ("/usr",)),
        kvm=KvmFinding("works", "/dev/kvm runs guests on the processor."),
        user_namespaces=Finding(True, "bubblewrap can make user namespaces."),
    )


def ubuntu(make_host: MakeHost, *, works: bool = False) -> Host:
    host = make_host("ubuntu2404")
    host.program("/usr/bin/bwrap", "/usr/bin/qemu-system-x86_64")
    host.put("/sys/module/apparmor/parameters/enabled", "Y\n")
    host.put(RESTRICT, "1\n")
    return host


def refusing() -> Programs:
    """Programs of a host whose bubblewrap starts and is refused its namespaces."""

    class Refusing(Programs):
        def __call__(self, argv: Sequence[str], env: Mapping[str, str]) -> Answer:
            said = super().__call__(argv, env)
            if "--unshare-user" in argv:
                return Answer(1, "", "bwrap: setting up uid map: Permission denied")
            return said

    return Refusing(**debian_programs().answers)


def test_a_good_machine_has_no_complaint(good: Facts) -> None:
    found = [
        checks.check_qemu(good),
        checks.check_bwrap(good),
        checks.check_virtiofsd(good, can_fetch=False),
        checks.check_user_namespaces(good),
        checks.check_apparmor(good, outdated=False),
        checks.check_kvm(good),
        checks.check_vsock(good, can_fetch=False),
        checks.check_kernel("/boot/vmlinuz", can_fetch=False),
        checks.check_memory(16 << 30, 8 << 30),
        checks.check_cpus(2),
        checks.check_cache("/c", 100 << 30),
    ]
    assert {check.status for check in found} == {"ok"}
    assert not doctor.failed(found)


@pytest.mark.parametrize(
    ("version", "status"), [("6.2.0", "fail"), ("7.2.22", "ok"), ("10.0.0", "ok")]
)
def test_qemu_must_not_be_older_than_tested(good: Facts, version: str, status: str) -> None:
    qemu = Program(("/usr/bin/qemu-system-x86_64",), version, ("/usr",))
    assert checks.check_qemu(msgspec.structs.replace(good, qemu=qemu)).status == status


@pytest.mark.parametrize(
    ("version", "status"), [("0.4.1", "fail"), ("0.6.1", "ok"), ("0.8.0", "ok"), ("0.11.1", "ok")]
)
def test_bubblewrap_of_ubuntu_22_04_is_enough(good: Facts, version: str, status: str) -> None:
    bwrap = Program(("/usr/bin/bwrap",), version, ("/usr",))
    assert checks.check_bwrap(msgspec.structs.replace(good, bwrap=bwrap)).status == status


def test_missing_programs_fail_and_can_be_installed(good: Facts) -> None:
    check = checks.check_qemu(msgspec.structs.replace(good, qemu=None))
    assert check.status == "fail"
    assert check.hint is not None and "apt-get install" in check.hint
    assert check.fix is not None and check.fix.programs == ("qemu",)


def test_no_kvm_is_a_warning_that_says_why(good: Facts) -> None:
    for state in ("absent", "denied", "emulates", "error"):
        kvm = KvmFinding(state, "the reason.")
        check = checks.check_kvm(msgspec.structs.replace(good, kvm=kvm))
        assert check.status == "warn" and check.finding == "the reason"
        assert check.hint is not None and "TCG" in check.hint
    denied = msgspec.structs.replace(good, kvm=KvmFinding("denied", "no."))
    assert "usermod -aG kvm" in (checks.check_kvm(denied).hint or "")


def test_no_virtiofsd_is_a_warning_unless_it_can_be_fetched(good: Facts) -> None:
    lacking = msgspec.structs.replace(good, virtiofsd=None)
    assert checks.check_virtiofsd(lacking, can_fetch=False).status == "warn"
    assert checks.check_virtiofsd(lacking, can_fetch=True).status == "ok"


def test_qemus_virtiofsd_is_a_warning_for_those_it_cannot_serve(good: Facts) -> None:
    own = Virtiofsd(Program(("/usr/lib/qemu/virtiofsd",), "6.2.0", ("/usr",)), "c")
    for uid, status in ((0, "ok"), (1000, "warn")):
        user = msgspec.structs.replace(good.user, uid=uid)
        facts = msgspec.structs.replace(good, virtiofsd=own, user=user)
        assert checks.check_virtiofsd(facts, can_fetch=False).status == status


def test_the_kernels_own_vsock_is_not_taken_for_one_that_corral_uses(good: Facts) -> None:
    facts = msgspec.structs.replace(good, vhost_device_vsock=None)
    assert checks.check_vsock(facts, can_fetch=False).status == "warn"


def test_checkpoints_need_newer_programs_unless_they_can_be_fetched(good: Facts) -> None:
    old = msgspec.structs.replace(good, qemu=examples.QEMU, virtiofsd=examples.RUST_VIRTIOFSD)
    assert checks.check_checkpoints(old, can_fetch=True).status == "ok"
    check = checks.check_checkpoints(old, can_fetch=False)
    assert check.status == "warn" and check.hint is not None and "QEMU 10" in check.hint
    program = msgspec.structs.replace(examples.QEMU, version="10.1.2")
    new = msgspec.structs.replace(old, qemu=program)
    assert checks.check_checkpoints(new, can_fetch=False).status == "ok"


def test_no_kernel_to_be_had_fails() -> None:
    assert checks.check_kernel(None, can_fetch=True).status == "ok"
    check = checks.check_kernel(None, can_fetch=False)
    assert check.status == "fail" and "machine.kernel" in (check.hint or "")


def test_the_hosts_kernel_counts_only_with_its_modules(make_host: MakeHost) -> None:
    host = make_host()
    host.put("/proc/sys/kernel/osrelease", "6.1.0-28-amd64\n")
    host.put("/boot/vmlinuz-6.1.0-28-amd64")
    assert doctor.readable_kernel(host.system()) is None
    host.put("/lib/modules/6.1.0-28-amd64/modules.dep")
    assert doctor.readable_kernel(host.system()) == "/boot/vmlinuz-6.1.0-28-amd64"


def test_what_gateways_and_secrets_need_is_told(make_host: MakeHost) -> None:
    assert doors.check_network().status == "ok"
    lacking = doors.check_secrets(lambda _package: None)
    assert lacking.status == "warn" and "[intercept]" in (lacking.hint or "")
    assert doors.check_keyring(lambda _package: None).status == "ok"
    for check in (doors.check_secrets, doors.check_keyring):
        assert check(lambda _package: "1.2.3").finding.endswith(" 1.2.3")
    assert doors.installed_version("msgspec")
    assert doors.installed_version("no-such-package-here") is None


def test_certificates_are_looked_for_where_distributions_keep_them(make_host: MakeHost) -> None:
    host = make_host()
    assert doors.bundle(host.system()) is None
    assert doors.check_certificates(None).status == "warn"
    host.put("/etc/pki/tls/certs/ca-bundle.crt")
    found = doors.bundle(host.system())
    assert found == "/etc/pki/tls/certs/ca-bundle.crt"
    assert doors.check_certificates(found).status == "ok"


def test_little_memory_and_disk_are_told() -> None:
    assert checks.check_memory(1 << 30, 512 << 20).status == "fail"
    assert checks.check_memory(2 << 30, 1 << 30).status == "warn"
    assert checks.check_cache("/c", 100 << 20).status == "fail"
    assert checks.check_cache("/c", 1 << 30).status == "warn"


def test_an_unusable_runtime_dir_is_a_warning() -> None:
    assert checks.check_runtime_dir("/run/user/0", "/tmp/corral-1000").status == "warn"
    assert checks.check_runtime_dir("/run/user/1000", "/run/user/1000/corral").status == "ok"
    assert checks.check_runtime_dir(None, "/tmp/corral-1000").status == "ok"


def test_an_old_python_fails() -> None:
    assert checks.check_python((3, 10, 12), "/usr/bin/python3").status == "fail"


def test_apparmor_that_refuses_fails_and_can_be_mended(make_host: MakeHost) -> None:
    system = ubuntu(make_host).system(refusing(), uid=1000)
    _facts, found = doctor.examine(system)
    by_name = {check.name: check for check in found}
    assert by_name["apparmor"].status == by_name["user namespaces"].status == "fail"
    assert by_name["apparmor"].fix is not None
    assert doctor.failed(found)


def test_a_copy_of_bubblewrap_that_is_outdated_is_told(make_host: MakeHost) -> None:
    host = ubuntu(make_host)
    host.put("/usr/local/libexec/corral/bwrap", "older", 0o755)
    system = host.system(debian_programs())
    assert apparmor.outdated(system)
    check = checks.check_apparmor(measure(need=Need(kvm=False), system=system), outdated=True)
    assert check.status == "warn" and check.fix is not None


def test_the_profile_is_installed_by_root_after_a_yes(make_host: MakeHost) -> None:
    system = ubuntu(make_host).system(refusing())
    facts, found = doctor.examine(system)
    ran: list[list[str]] = []

    def run(argv: Sequence[str], env: object, on_line: object) -> int:
        ran.append(list(argv))
        return 0

    done = doctor.apply_fixes(
        facts,
        [check for check in found if check.name == "apparmor"],
        assume_yes=False,
        report=lambda _: None,
        confirm=lambda question: "corral-bwrap" in question,
        system=system,
        run=run,
    )
    assert done
    assert ran[-1] == ["apparmor_parser", "--replace", "/etc/apparmor.d/corral-bwrap"]
    assert ran[0][-2:] == ["/usr/bin/bwrap", "/usr/local/libexec/corral/bwrap.dpkg-new"]
    assert str(apparmor.SHIPPED_PROFILE) in ran[2]


@pytest.mark.parametrize("answer", [False, None])
def test_without_a_yes_apparmor_is_left_alone(make_host: MakeHost, answer: bool | None) -> None:
    system = ubuntu(make_host).system(refusing())

    def run(*_: object) -> int:
        raise AssertionError("nothing may be run")

    def attempt() -> bool:
        return doctor.install_profile(
            assume_yes=False,
            report=lambda _: None,
            confirm=lambda _: answer,
            system=system,
            run=run,
        )

    if answer is None:
        with pytest.raises(HostError, match="nobody can be asked") as caught:
            attempt()
        assert caught.value.hint is not None and "apparmor_parser" in caught.value.hint
    else:
        assert attempt() is False


def test_an_ordinary_user_is_told_what_root_must_run(make_host: MakeHost) -> None:
    with pytest.raises(HostError, match="only be installed by root") as caught:
        doctor.install_profile(
            assume_yes=True,
            report=lambda _: None,
            confirm=lambda _: True,
            system=ubuntu(make_host).system(refusing(), uid=1000),
        )
    assert caught.value.hint is not None and caught.value.hint.startswith("As root: install ")


def test_the_profile_clashes_with_no_distributions(make_host: MakeHost) -> None:
    """Ubuntu 25.04's bwrap-userns-restrict is named bwrap and attached to /usr/bin/bwrap."""
    text = apparmor.SHIPPED_PROFILE.read_text()
    rules = [line for line in text.splitlines() if not line.startswith("#")]
    assert "profile corral-bwrap /usr/local/libexec/corral/bwrap flags=(unconfined) {" in rules
    assert "  userns," in rules
    assert "/usr/bin/bwrap" not in "\n".join(rules)


def test_apparmor_that_does_not_restrict_is_fine(good: Facts) -> None:
    quiet = msgspec.structs.replace(good, apparmor=AppArmor(True, False, False))
    assert checks.check_apparmor(quiet, outdated=False).status == "ok"


def test_every_failure_says_what_to_do_next(good: Facts) -> None:
    bare = msgspec.structs.replace(
        good,
        qemu=None,
        bwrap=None,
        virtiofsd=None,
        vhost_device_vsock=None,
        kvm=KvmFinding("error", "x"),
    )
    found = [
        checks.check_qemu(bare),
        checks.check_bwrap(bare),
        checks.check_virtiofsd(bare, can_fetch=False),
        checks.check_vsock(bare, can_fetch=False),
        checks.check_kvm(bare),
        checks.check_kernel(None, can_fetch=False),
        checks.check_memory(1, 1),
        checks.check_cache("/c", 1),
    ]
    assert all(check.hint for check in found)


def test_the_command_prints_json(monkeypatch: pytest.MonkeyPatch, good: Facts) -> None:
    found = [checks.check_qemu(good), checks.check_cpus(2)]
    monkeypatch.setattr(doctor, "examine", lambda: (good, found))
    result = CliRunner().invoke(command, ["--json"])
    answer = json.loads(result.output)
    assert result.exit_code == 0 and answer["ok"] is True
    assert [check["name"] for check in answer["checks"]] == ["qemu", "cpus"]


def test_the_command_fails_when_something_is_missing(
    monkeypatch: pytest.MonkeyPatch, good: Facts
) -> None:
    found = [checks.check_qemu(msgspec.structs.replace(good, qemu=None))]
    monkeypatch.setattr(doctor, "examine", lambda: (good, found))
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert "missing" in result.output
    assert "apt-get update && apt-get install" in result.output  # in one piece, for copying


def test_an_unwritable_cache_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_host: MakeHost
) -> None:
    system = make_host().system(Programs())
    facts = measure(need=Need(kvm=False), system=system)
    monkeypatch.setenv("CORRAL_CACHE_DIR", "/proc/no-folder-can-be-made-here")
    found = {check.name: check for check in doctor.judge(facts, system)}
    assert found["cache folder"].status == "fail" and found["cache folder"].hint
