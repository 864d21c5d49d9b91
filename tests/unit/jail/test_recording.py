"""Profiles recorded, merged, compared and explained; what a command calls, told by the kernel."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import ConfigError
from corral.jail.seccomp.algebra import Call, difference, explain, merge, smallest
from corral.jail.seccomp.filters import load
from corral.jail.seccomp.library import name_of
from corral.jail.seccomp.notify import everything
from corral.jail.seccomp.profile import Profile, dump, parse
from corral.jail.seccomp.table import answer, table
from corral.jail.seccomp.target import Target
from tests.support.bpf import run
from tests.support.corral import command

HERE = Target(machine="x86_64", kernel=(6, 1))


def default() -> Profile:
    profile = load("default")
    assert profile is not None
    return profile


def allows(profile: Profile, name: str, *arguments: int) -> bool:
    return answer(table(profile, HERE), name, arguments).allows


def calls(*names: str) -> list[Call]:
    return [Call(name, ()) for name in names]


def test_the_smallest_profile_allows_what_was_seen_and_nothing_else() -> None:
    profile = smallest(
        [
            *(Call("read", (3, 4)), Call("read", (5, 6)), Call("socket", (1, 2, 3))),
            *(Call("clone", (17, 0)), Call("personality", (0xFFFFFFFF,)), Call("[999]", ())),
        ]
    )
    assert allows(profile, "read") and not allows(profile, "write")
    assert allows(profile, "socket", 1) and not allows(profile, "socket", 2)
    assert allows(profile, "clone", 17) and not allows(profile, "clone", 0x10000000)
    assert allows(profile, "personality", 0xFFFFFFFF) and not allows(profile, "personality", 8)
    assert "[999]" not in dump(profile)
    assert parse(dump(profile).encode(), "again") == profile


def test_namespaces_are_allowed_when_they_were_made() -> None:
    assert allows(smallest([Call("clone", (0x10000000,))]), "clone", 0x10000000)


def test_a_merged_profile_allows_what_either_does() -> None:
    one = smallest([*calls("read", "close"), Call("socket", (1,))])
    two = smallest([*calls("write", "close"), Call("socket", (2,))])
    both = merge([("one", one), ("two", two)])
    for name in ("read", "write", "close"):
        assert allows(both, name)
    assert allows(both, "socket", 1) and allows(both, "socket", 2)
    assert not allows(both, "socket", 10) and not allows(both, "mount")


def test_merging_with_the_default_keeps_its_conditions_unless_the_other_has_none() -> None:
    wide = parse(
        b'{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": '
        b'[{"names": ["clone", "mount"], "action": "SCMP_ACT_ALLOW"}]}',
        "wide",
    )
    both = merge([("default", default()), ("wide", wide)])
    assert allows(both, "clone", 0x10000000) and allows(both, "mount")
    assert not allows(both, "ptrace", 16) and allows(both, "ptrace", 0)
    assert answer(table(both, HERE), "clone3", ()).errno == 38
    only = merge([("default", default())])
    assert difference(default(), only, HERE) == difference(default(), default(), HERE)


def of(*rules: dict[str, object], default: str = "SCMP_ACT_ERRNO") -> Profile:
    return parse(json.dumps({"defaultAction": default, "syscalls": rules}).encode(), "test")


def rule(name: str, action: str, *conditions: tuple[str, int], **more: object) -> dict[str, object]:
    args = [{"index": 0, "op": f"SCMP_CMP_{op}", "value": value} for op, value in conditions]
    return {"names": [name], "action": f"SCMP_ACT_{action}", "args": args, **more}


def test_merging_keeps_the_answers_of_calls_that_are_allowed_with_capabilities_only() -> None:
    """Docker's default has clone3 so: glibc makes threads without it if it is absent."""
    docker = of(
        rule("read", "ALLOW"),
        rule("clone3", "ALLOW", includes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("clone3", "ERRNO", errnoRet=38, excludes={"caps": ["CAP_SYS_ADMIN"]}),
        {**rule("mount", "ERRNO", errnoRet=2), "names": ["mount", "write", "close"]},
    )
    for both in (
        merge([("docker", docker)]),
        merge([("d", docker), ("w", smallest(calls("write")))]),
    ):
        where = table(both, HERE)
        assert answer(where, "clone3", ()).errno == 38
        assert allows(both, "read") and answer(where, "close", ()).errno == 2
    assert allows(both, "write"), "of a rule for several only that name is taken"


def test_what_one_refuses_under_conditions_and_another_allows_is_allowed() -> None:
    one = of(rule("socket", "ERRNO", ("GE", 16), errnoRet=97), rule("socket", "ALLOW", ("LT", 3)))
    both = merge([("one", one), ("two", of(rule("socket", "ALLOW", ("EQ", 20))))])
    assert [allows(both, "socket", n) for n in (2, 3, 16, 20)] == [True, False, False, True]
    none = merge([("one", one), ("two", of(rule("socket", "ALLOW", ("EQ", 10))))])
    assert answer(table(none, HERE), "socket", (16,)).errno == 97
    mixed = of(rule("socket", "ALLOW", ("NE", 40)), rule("socket", "ERRNO", ("GE", 16)))
    with pytest.raises(ConfigError, match="cannot be merged: of socket"):
        merge([("mixed", mixed), ("two", of(rule("socket", "ALLOW", ("EQ", 20))))])
    assert not allows(merge([("mixed", mixed), ("one", one)]), "socket", 17)


CONDITIONS = st.tuples(
    st.sampled_from(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]), st.integers(0, 9)
)
RULES = st.builds(
    rule,
    st.just("socket"),
    st.sampled_from(["ALLOW", "ERRNO"]),
    CONDITIONS,
    errnoRet=st.just(97),
)
SOME = st.lists(
    RULES | st.just(rule("socket", "ALLOW")) | st.just(rule("socket", "ERRNO")), max_size=4
)


def allowed(profile: Profile) -> list[int]:
    where = table(profile, HERE)
    return [number for number in range(12) if answer(where, "socket", (number,)).allows]


@given(one=SOME, two=SOME)
def test_no_merged_profile_allows_less_or_more(
    one: list[dict[str, object]], two: list[dict[str, object]]
) -> None:
    first, second = of(*one), of(*two)
    try:
        both = merge([("one", first), ("two", second)])
    except ConfigError:
        return
    assert allowed(both) == sorted({*allowed(first), *allowed(second)})


DEFAULTS = st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"])


@given(one=SOME, two=SOME, default=DEFAULTS)
def test_profiles_that_let_other_things_happen_are_never_the_same(
    one: list[dict[str, object]], two: list[dict[str, object]], default: str
) -> None:
    first, second = of(*one, default=default), of(*two, default=default)
    found = difference(first, second, HERE)
    if allowed(first) != allowed(second):
        assert found.only_first or found.only_second or found.conditions
    same = difference(first, of(*reversed(one), default=default), HERE)
    assert not (same.only_first or same.only_second or same.conditions)


def test_profiles_that_allow_by_default_are_compared_by_what_they_refuse() -> None:
    everything = of(default="SCMP_ACT_ALLOW")
    some = of(rule("socket", "ERRNO", ("EQ", 40)), default="SCMP_ACT_ALLOW")
    assert difference(some, everything, HERE).conditions == ("socket",)
    named = of(rule("read", "ALLOW"), default="SCMP_ACT_ALLOW")
    assert difference(everything, named, HERE) == difference(everything, everything, HERE)
    none = of(rule("socket", "ERRNO"), default="SCMP_ACT_ALLOW")
    assert difference(none, everything, HERE).only_second == ("socket",)


def test_a_profile_that_allows_by_default_cannot_be_merged() -> None:
    with pytest.raises(ConfigError, match="allows by default"):
        merge([("open", parse(b'{"defaultAction": "SCMP_ACT_ALLOW"}', "open"))])


def test_profiles_are_compared_by_what_they_let_happen() -> None:
    one = smallest([*calls("read", "close"), Call("socket", (1,))])
    two = smallest([*calls("read", "write"), Call("socket", (2,))])
    found = difference(one, two, HERE)
    assert (found.only_first, found.only_second) == (("close",), ("write",))
    assert found.conditions == ("socket",) and found.default is None
    assert difference(one, default(), HERE).only_first == ()


def test_explaining() -> None:
    where = table(default(), HERE)
    assert explain(where, "mount") == ["refused (EPERM)"]
    assert explain(where, "read") == ["allowed"]
    assert explain(where, "no_such") == ["refused (ENOSYS): the profile does not name it"]
    assert "allowed if argument 0 == 0x1" in explain(where, "socket")
    assert explain(where, "socket")[-1].endswith("otherwise")
    both = of(rule("socket", "ALLOW", ("NE", 40)), rule("socket", "ERRNO", ("GE", 16), errnoRet=97))
    assert explain(table(both, HERE), "socket") == [
        "refused (EAFNOSUPPORT) if argument 0 >= 0x10",
        "allowed if argument 0 != 0x28",
        "refused (EPERM) otherwise",
    ]
    always = of(rule("socket", "ALLOW"), rule("socket", "ERRNO", ("EQ", 40)))
    assert explain(table(always, HERE), "socket")[-1] == "allowed otherwise"


def test_every_call_is_told_but_the_one_that_tells() -> None:
    import struct

    for machine, arch, sendmsg in (("x86_64", 0xC000003E, 46), ("aarch64", 0xC00000B7, 211)):
        program = everything(machine)
        for number, first, expected in (
            *((0, 0, 0x7FC00000), (sendmsg, 5, 0x7FC00000), (sendmsg, 977, 0x7FFF0000)),
        ):
            data = struct.pack("=IIQ6Q", number, arch, 0, first, 0, 0, 0, 0, 0)
            assert run(program, data) == expected
        assert run(program, struct.pack("=IIQ6Q", 0, 3, 0, 0, 0, 0, 0, 0, 0)) == 0x80000000


# With the kernel


def corral(folder: Path, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command(*arguments), cwd=folder, capture_output=True, text=True, timeout=60, **more
    )


def test_a_command_is_recorded_and_runs_under_its_own_profile_and_no_other(tmp_path: Path) -> None:
    script = "echo $((6 * 7)); cat < /etc/passwd > copy; (exit 3)"
    done = corral(tmp_path, "seccomp", "record", "-T", "-o", "p.json", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (3, "42\n"), done.stderr
    profile = parse((tmp_path / "p.json").read_bytes(), "p.json")
    names = {name for rule in profile.rules for name in rule.names}
    assert {"execve", "read", "write", "clone", "exit_group"} & names >= {"execve", "read"}
    assert not {"mount", "ptrace", "clone3", "io_uring_setup", "socket"} & names
    arguments = ("seccomp", "check", "-T", "--profile", "p.json", "--")
    again = corral(tmp_path, *arguments, "sh", "-c", script)
    assert (again.returncode, again.stdout) == (3, "42\n")
    assert "refused nothing" in again.stderr
    other = corral(tmp_path, *arguments, "python3", "-c", "import socket; socket.socket()")
    assert "refused (ENOSYS)" in other.stderr
    # The same in a jail, where what starts commands is under the profile, too.
    jailed = corral(tmp_path, "jail", "-T", "--seccomp", "p.json", "--", "sh", "-c", script)
    assert (jailed.returncode, jailed.stdout) == (3, "42\n"), jailed.stderr


def test_recording_more_is_added_and_nothing_is_overwritten(tmp_path: Path) -> None:
    first = corral(tmp_path, "seccomp", "record", "-T", "--", "true")
    assert first.returncode == 0, first.stderr
    again = corral(tmp_path, "seccomp", "record", "-T", "--", "true")
    assert again.returncode == 125 and "exists" in again.stderr
    script = "import socket; socket.socket(socket.AF_UNIX)"
    added = corral(tmp_path, "seccomp", "record", "-T", "--add", "--", "python3", "-c", script)
    assert added.returncode == 0, added.stderr
    profile = parse((tmp_path / "seccomp.json").read_bytes(), "s")
    assert allows(profile, "socket", 1) and not allows(profile, "socket", 2)


def test_checking_names_what_was_refused(tmp_path: Path) -> None:
    done = corral(tmp_path, "seccomp", "check", "-T", "--", "unshare", "-U", "true")
    assert done.returncode == 1
    assert "corral: unshare: refused (EPERM)" in done.stderr


def test_a_profile_that_kills_kills(tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    (tmp_path / "k.json").write_text(json.dumps(profile))
    done = corral(tmp_path, "seccomp", "check", "-T", "--profile", "k.json", "--", "uname")
    assert done.returncode == 137
    assert "uname: ends the process" in done.stderr


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    done = corral(tmp_path, "seccomp", "check", "-T", "--", "no-such-command")
    assert done.returncode == 127 and "not found" in done.stderr


def test_merge_diff_and_explain_print(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(dump(smallest(calls("read"))))
    (tmp_path / "b.json").write_text(dump(smallest(calls("write"))))
    merged = corral(tmp_path, "seccomp", "merge", "a.json", "b.json")
    assert allows(parse(merged.stdout.encode(), "m"), "write")
    different = corral(tmp_path, "seccomp", "diff", "a.json", "b.json")
    assert different.returncode == 1
    assert different.stdout.splitlines() == [
        "only a.json allows: read",
        "only b.json allows: write",
    ]
    assert corral(tmp_path, "seccomp", "diff", "a.json", "a.json").returncode == 0
    found = json.loads(corral(tmp_path, "seccomp", "diff", "--json", "a.json", "b.json").stdout)
    assert found["only_first"] == ["read"]
    told = corral(tmp_path, "seccomp", "explain", "default", "mount")
    assert told.stdout == "mount: refused (EPERM)\n"


def test_a_call_has_a_name() -> None:
    assert name_of(9999) == "[9999]"
