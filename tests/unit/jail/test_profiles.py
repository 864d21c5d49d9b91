"""Seccomp profiles: read strictly, compiled to what they say, for either machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ConfigError
from corral.jail.seccomp.compiler import compile_table
from corral.jail.seccomp.filters import filters, load
from corral.jail.seccomp.kept import kept
from corral.jail.seccomp.library import name_of, number_of
from corral.jail.seccomp.profile import Profile, dump, parse
from corral.jail.seccomp.table import Kind, answer, table
from corral.jail.seccomp.target import Mode, Target
from corral.jail.starting import STARTING
from tests.support.bpf import ALLOW, KILL, LOG, ask_number

HERE = Target(machine=os.uname().machine, kernel=(6, 1))
OTHER = "aarch64" if HERE.machine == "x86_64" else "x86_64"
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97

# What the issue and docs/seccomp.md list, with arguments where they decide.
REFUSED: list[tuple[str, tuple[int, ...], int]] = [
    *((name, (), EPERM) for name in (
        "mount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen", "fsconfig",
        "fsmount", "fspick", "mount_setattr", "kexec_load", "kexec_file_load", "init_module",
        "finit_module", "delete_module", "bpf", "perf_event_open", "userfaultfd", "keyctl",
        "add_key", "request_key", "setns", "unshare", "open_by_handle_at", "process_vm_readv",
        "process_vm_writev", "pidfd_getfd", "kcmp", "reboot", "swapon", "sethostname", "syslog",
    )),
    *((name, (), ENOSYS) for name in (
        "io_uring_setup", "io_uring_enter", "io_uring_register", "clone3",
    )),
    ("ptrace", (16,), EPERM), ("ptrace", (0x4206,), EPERM),
    *(("clone", (flag | 17,), EPERM) for flag in (
        0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x7E020000,
    )),
    *(("socket", (family,), EAFNOSUPPORT) for family in (0, 3, 5, 9, 15, 17, 38, 40, 44, 1 << 32)),
]  # fmt: skip
ALLOWED = [
    *((name, ()) for name in ("openat", "execve", "rseq", "statx", "memfd_create", "futex_waitv")),
    *(("socket", (family,)) for family in (1, 2, 10, 16)),
    ("clone", (17,)), ("clone", (0x3D0F00,)), ("ptrace", (0,)), ("ptrace", (7,)),
    ("ptrace", (0x4205,)), ("ptrace", (0x420E,)), ("personality", (0xFFFFFFFF,)),
]  # fmt: skip


def compiled(profile: Profile, mode: Mode = "errno", target: Target = HERE) -> bytes:
    return compile_table(table(profile, target, mode), target.machine)


def default() -> Profile:
    profile = load("default")
    assert profile is not None
    return profile


def ask(program: bytes, name: str, *arguments: int) -> str | int:
    number = number_of(name)
    assert number is not None
    return ask_number(program, HERE.machine, number, arguments)


def profile_of(**fields: object) -> Profile:
    return parse(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", **fields}).encode(), "test")


def allow(*names: str, **more: object) -> dict[str, object]:
    return {"names": names, "action": "SCMP_ACT_ALLOW", **more}


@pytest.fixture(scope="module")
def program() -> bytes:
    return compiled(default())


@pytest.mark.parametrize(("name", "arguments", "errno"), REFUSED)
def test_the_default_refuses(program: bytes, name: str, arguments: list[int], errno: int) -> None:
    assert ask(program, name, *arguments) == errno


@pytest.mark.parametrize(("name", "arguments"), ALLOWED)
def test_the_default_allows(program: bytes, name: str, arguments: list[int]) -> None:
    assert ask(program, name, *arguments) == ALLOW


def test_calls_that_nobody_has_heard_of_are_absent(program: bytes) -> None:
    assert {ask_number(program, HERE.machine, number) for number in range(900, 1000)} == {ENOSYS}


def test_other_tables_end_a_process(program: bytes) -> None:
    assert ask_number(program, HERE.machine, 1, arch=0x40000003) == KILL
    if HERE.machine == "x86_64":
        assert ask_number(program, "x86_64", 0x40000001) == KILL


def test_every_name_of_the_default_is_known_or_of_another_architecture() -> None:
    unknown = {n for rule in default().rules for n in rule.names if number_of(n) is None}
    assert unknown <= {"riscv_hwprobe"}


def test_no_call_is_named_with_two_answers_at_once() -> None:
    """The strictest would hide the others."""
    always = [n for rule in default().rules if not rule.args for n in rule.names]
    sometimes = {n for rule in default().rules if rule.args for n in rule.names}
    assert len(always) == len(set(always))
    assert not sometimes & set(always)


NAMES = sorted({name for rule in default().rules for name in rule.names})
VALUES = st.one_of(
    st.integers(0, 50), st.integers(0, (1 << 64) - 1), st.sampled_from([1 << n for n in range(64)])
)


@given(name=st.sampled_from(NAMES), arguments=st.lists(VALUES, min_size=6, max_size=6))
def test_what_is_explained_is_what_the_kernel_would_do(name: str, arguments: list[int]) -> None:
    number = number_of(name)
    if number is None or number < 0:
        return
    told = answer(table(default(), HERE), name, arguments)
    done = ask_number(PROGRAM, HERE.machine, number, arguments)
    assert done == (ALLOW if told.kind is Kind.ALLOW else told.errno)


PROGRAM = compiled(default())


def test_the_default_is_compiled_for_the_other_machine() -> None:
    target = Target(machine=OTHER, kernel=(6, 1))
    other = compiled(default(), target=target)
    socket = {"x86_64": 41, "aarch64": 198}[OTHER]
    assert ask_number(other, OTHER, socket, [2]) == ALLOW
    assert ask_number(other, OTHER, socket, [40]) == EAFNOSUPPORT


def test_log_lets_through_what_would_be_refused() -> None:
    program = compiled(default(), "log")
    assert ask(program, "mount") == ask(program, "clone3") == LOG
    assert ask(program, "read") == ALLOW


def test_kill_ends_what_is_refused_and_not_what_is_only_absent() -> None:
    program = compiled(default(), "kill")
    assert ask(program, "mount") == ask(program, "ptrace", 16) == KILL
    assert ask(program, "clone3") == ENOSYS
    assert ask_number(program, HERE.machine, 999) == KILL


def test_the_floor_is_there_whatever_the_profile() -> None:
    none = filters("none", "errno", HERE)
    assert none.profile is None and none.programs == (none.floor,)
    assert ask(none.floor, "socket", 40) == EAFNOSUPPORT
    assert len(filters("default", "errno", HERE).programs) == 2


def test_io_uring_comes_with_a_profile_that_asks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "uring.json"
    file.write_text(dump(profile_of(syscalls=[allow("io_uring_setup", "read")])))
    made = filters(str(file), "errno", HERE)
    assert [ask(each, "io_uring_setup") for each in made.programs] == [ALLOW, ALLOW]
    # of some values only: which, the profile decides
    args = [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]
    file.write_text(dump(profile_of(syscalls=[allow("io_uring_setup", args=args)])))
    made = filters(str(file), "errno", HERE)
    assert [ask(each, "io_uring_setup", 8) for each in made.programs] == [ALLOW, ALLOW]
    assert [ask(each, "io_uring_setup", 9) for each in made.programs] == [ALLOW, EPERM]
    # log mode is for looking on; it opens nothing that the floor closes
    assert ask(filters("default", "log", HERE).floor, "io_uring_setup") == ENOSYS


def test_io_uring_does_not_come_with_a_profile_that_does_not_name_it(tmp_path: Path) -> None:
    """A list of what is refused means no call that passes all filters, AF_VSOCK's included."""
    file = tmp_path / "open.json"
    for rules in ([], [{"names": ["socket", "connect", "mount"], "action": "SCMP_ACT_ERRNO"}]):
        profile = profile_of(defaultAction="SCMP_ACT_ALLOW", syscalls=rules)
        file.write_text(dump(profile))
        assert ask(filters(str(file), "errno", HERE).floor, "io_uring_setup") == ENOSYS


def test_needed_calls_are_allowed_whatever_a_profile_says() -> None:
    strict = profile_of(syscalls=[{"names": ["poll"], "action": "SCMP_ACT_KILL"}])
    made = compile_table(table(strict, HERE, needed=("poll", "read")), HERE.machine)
    assert ask(made, "poll") == ask(made, "read") == ALLOW
    assert ask(made, "write") == EPERM


def test_what_starts_commands_widens_no_profile_that_lets_it() -> None:
    """Above all it must not take the conditions off clone."""
    plain, widened = (table(default(), HERE, needed=names) for names in ((), STARTING))
    assert plain == widened
    assert ask(compile_table(widened, HERE.machine), "clone", 0x10000000) == EPERM
    strict = compile_table(table(profile_of(), HERE, needed=STARTING), HERE.machine)
    assert ask(strict, "clone", 17) == ALLOW
    for flag in (0x20000, 0x10000000, 0x40000000):
        assert ask(strict, "clone", flag | 17) == EPERM
    open_ = parse(
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["clone", "kill"], '
        b'"action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]}]}',
        "open",
    )
    made = compile_table(table(open_, HERE, needed=STARTING), HERE.machine)
    assert ask(made, "kill", 9) == EPERM and ask(made, "kill", 8) == ALLOW


# Whatever a profile says

WORDS = [n + d for n in (0, 16, 40, 1 << 31, 1 << 32, 0xFFFFFFFF << 32) for d in (0, 1, 2)]
OPERATORS = [
    *("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT"),
    "SCMP_CMP_MASKED_EQ",
]
CONDITIONS = st.fixed_dictionaries({
    "index": st.integers(0, 1), "value": st.sampled_from(WORDS),
    "valueTwo": st.sampled_from(WORDS), "op": st.sampled_from(OPERATORS),
})  # fmt: skip
RULES = st.fixed_dictionaries({
    "names": st.sampled_from([["socket"], ["getpriority"], ["getpriority", "socket"]]),
    "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"]),
    "errnoRet": st.sampled_from([1, 38, 97]), "args": st.lists(CONDITIONS, max_size=3),
})  # fmt: skip
PROFILES = st.builds(
    lambda default, rules: profile_of(defaultAction=default, syscalls=rules),
    st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]),
    st.lists(RULES, max_size=5),
)
NEAR = st.sampled_from(sorted({(word + d) % (1 << 64) for word in WORDS for d in (-1, 0, 1)}))


@given(profile=PROFILES, tries=st.lists(st.tuples(NEAR, NEAR), min_size=20, max_size=40))
def test_a_filter_answers_what_its_profile_says(
    profile: Profile, tries: list[tuple[int, int]]
) -> None:
    where, program = table(profile, HERE), compiled(profile)
    for name in ("socket", "getpriority", "read"):
        for arguments in tries:
            told = answer(where, name, arguments)
            plain: str | int = {Kind.ALLOW: ALLOW, Kind.LOG: LOG}.get(told.kind, told.errno)
            assert ask(program, name, *arguments) == plain


def condition(op: str, value: int, index: int = 0) -> dict[str, object]:
    return {"index": index, "value": value, "op": f"SCMP_CMP_{op}"}


def test_no_call_is_allowed_that_no_rule_allows() -> None:
    """Of these rules libseccomp 2.5 makes programs that do: they let (0, 6) and 1 through."""
    narrow = [condition("LE", 2), condition("GT", 7, 1)]
    rules = [allow("socket", args=narrow), allow("socket", args=[condition("GE", 3)])]
    program = compiled(profile_of(syscalls=rules))
    assert ask(program, "socket", 0, 6) == EPERM
    assert ask(program, "socket", 0, 8) == ask(program, "socket", 3) == ALLOW
    rules = [
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [part]}
        for part in (condition("LT", (1 << 32) + 1), condition("LE", 0))
    ]
    program = compiled(profile_of(defaultAction="SCMP_ACT_ALLOW", syscalls=rules))
    assert [ask(program, "socket", n) for n in (0, 1, 1 << 32)] == [EPERM] * 3
    assert ask(program, "socket", (1 << 32) + 1) == ALLOW


def test_of_several_rules_that_hold_the_strictest_counts_in_whichever_order() -> None:
    refusal = {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": EAFNOSUPPORT}
    rules = [
        {**refusal, "args": [condition("GE", 16)]},
        allow("socket", args=[condition("NE", 40)]),
    ]
    for order in (rules, rules[::-1], [rules[0], allow("socket")]):
        program = compiled(profile_of(syscalls=order))
        assert [ask(program, "socket", n) for n in (2, 17, 40)] == [ALLOW, *[EAFNOSUPPORT] * 2]


# Docker's format


def test_dockers_conditions() -> None:
    profile = profile_of(
        syscalls=[
            allow("getpid", includes={"caps": ["CAP_SYS_ADMIN"]}),
            allow("gettid", excludes={"caps": ["CAP_SYS_ADMIN"]}),
            allow("getppid", includes={"minKernel": "4.8"}),
            allow("getpgrp", includes={"minKernel": "6.2"}),
            allow("getuid", includes={"arches": ["amd64", "arm64"]}),
            allow("geteuid", includes={"arches": ["s390x"]}),
            {"name": "getgid", "action": "SCMP_ACT_ALLOW"},
        ]
    )
    allowed = {entry.name for entry in table(profile, HERE).entries}
    assert allowed == {"gettid", "getppid", "getuid", "getgid"}


def test_two_conditions_on_one_argument_are_alternatives_and_on_two_hold_together() -> None:
    either = profile_of(syscalls=[allow("socket", args=[condition("EQ", n) for n in (1, 2)])])
    args = [condition("EQ", 1), condition("EQ", 2, 1)]
    both = profile_of(syscalls=[allow("socket", args=args)])
    assert [ask(compiled(either), "socket", n) for n in (1, 2, 3)] == [ALLOW, ALLOW, EPERM]
    assert [ask(compiled(both), "socket", 1, n) for n in (2, 3)] == [ALLOW, EPERM]


def test_no_profile_opens_another_table_of_calls() -> None:
    archs = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    program = compiled(profile_of(archMap=archs, syscalls=[allow("getpid")]))
    assert ask_number(program, HERE.machine, 20, arch=0x40000003) == KILL  # getpid there


def test_a_refusal_that_cannot_be_kept_is_an_error() -> None:
    profile = parse(
        b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": '
        b'[{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]}',
        "test",
    )
    with pytest.raises(ConfigError, match="no_such_call"):
        compiled(profile)


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"defaultAction": "SCMP_ACT_NOTIFY"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_TRACE"}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}',
        '{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5000}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": '
        '"SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}',
        "[" * 100000,
    ],
)  # fmt: skip
def test_what_is_no_profile_is_refused_with_a_hint_or_a_reason(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text.encode(), "test")


def test_a_profile_that_is_written_is_read_again() -> None:
    assert parse(dump(default()).encode(), "again") == default()


@pytest.mark.parametrize("name", ["/nonexistent", "/", "/dev/null"])
def test_a_file_that_holds_no_profile(name: str) -> None:
    with pytest.raises(ConfigError, match="seccomp profile"):
        load(name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError):
        load(str(tmp_path / "pipe"))


# In the cache


def test_a_compiled_filter_is_kept_and_believed_only_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRAL_CACHE_DIR", str(tmp_path))
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"12345678"

    assert kept((b"a",), make) == kept((b"a",), make) == b"12345678"
    assert len(made) == 1
    (file,) = (tmp_path / "seccomp").iterdir()
    for content in (b"", b"x" * 100, file.read_bytes()[:-1], b"y" + file.read_bytes()[1:]):
        file.write_bytes(content)
        made.clear()
        assert kept((b"a",), make) == b"12345678"
        assert made == [1]
    other = kept((b"b",), lambda: b"87654321")
    assert other == b"87654321"


def test_names_and_numbers() -> None:
    assert number_of("no_such_call") is None
    assert number_of("mseal") == 462  # younger than libseccomp 2.5
    read = number_of("read")
    assert read is not None and name_of(read) == "read"
    assert name_of(100_000) == "[100000]"
