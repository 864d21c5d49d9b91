"""Jails as values: what combinators make, what is found on the host, what bubblewrap is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from corral.errors import ConfigError
from corral.host import User
from corral.jail import combinators as c
from corral.jail.guest import render as in_guest
from corral.jail.model import Jail, Link
from corral.jail.render import ARGUMENTS_FD, host
from corral.jail.resolve import MAX_STEPS, Resolved, resolve
from corral.proc.bwrap import Bind, Memory, Seal, Symlink
from tests.support import golden


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that the user stands in, with a few things in it."""
    folder = tmp_path / "project"
    for name in ("src/deep", ".git/hooks", "empty"):
        (folder / name).mkdir(parents=True)
    for name in ("a", ".env", "src/b", "src/deep/c"):
        (folder / name).write_text(name)
    (folder / "link").symlink_to("src/deep")
    return folder


def found(
    project: Path, *combinators: c.Combinator, environ: Mapping[str, str] | None = None
) -> Resolved:
    user = User("ada", 1000, 1000, str(project.parent / "home"), group="ada")
    return resolve(c.jail(*combinators), user, str(project), environ or {})


def binds(resolved: Resolved) -> dict[str, tuple[str, str]]:
    return {
        step.target: (step.source, step.access.value)
        for step in resolved.tree
        if isinstance(step, Bind)
    }


def test_a_jail_of_nothing_has_nothing(project: Path) -> None:
    resolved = found(project)
    assert not binds(resolved)
    assert isinstance(resolved.tree[-1], Seal) and resolved.tree[-1].path == "/"
    assert not resolved.network and resolved.session and resolved.files == ()
    assert set(dict(resolved.variables)) == {"HOME", "USER", "LOGNAME", "PATH", "PWD", "CORRAL"}
    assert [each.profile for each in resolved.seccomp] == ["default"]


def test_combinators_compose_and_change_no_value(project: Path) -> None:
    before = Jail()
    both = c.compose(c.set_env("A", "1"), c.mount_cwd)
    assert both(before) == c.jail(c.set_env("A", "1"), c.mount_cwd)
    assert before == Jail()
    assert c.mount_cwd(both(before)) == both(before), "once is enough"


def test_binds_follow_links_and_are_pinned_where_they_lead(project: Path) -> None:
    resolved = found(project, c.ro_bind(f"{project}/link"), c.rw_bind(f"{project}/a", "/data/a"))
    assert binds(resolved) == {
        f"{project}/link": (f"{project}/src/deep", "--ro-bind"),
        "/data/a": (f"{project}/a", "--bind"),
    }
    assert all(step.pinned for step in resolved.tree if isinstance(step, Bind))


def test_what_is_absent_is_an_error_unless_it_is_only_tried(project: Path) -> None:
    assert not binds(found(project, c.try_ro_bind("/nonexistent"), c.try_rw_bind("/nonexistent/x")))
    for bind, instead in ((c.ro_bind, "--try-ro-bind"), (c.rw_bind, "--try-rw-bind")):
        with pytest.raises(ConfigError, match="does not exist") as caught:
            found(project, bind("/nonexistent"))
        assert f"({instead})" in (caught.value.hint or "")


def test_noescape_means_the_home_and_variables_and_a_plain_path_means_itself(
    project: Path,
) -> None:
    home = project.parent / "home"
    (home / "$X").mkdir(parents=True)
    environ = {"X": "src"}
    resolved = found(project, c.ro_bind(c.noescape("$PWD/${X}/deep"), "/d"), environ=environ)
    assert binds(resolved)["/d"][0] == f"{project}/src/deep"
    assert found(project, c.ro_bind(f"{home}/$X"), environ=environ)
    assert binds(found(project, c.readonly(c.noescape("~"))))[str(home)][0] == str(home)
    with pytest.raises(ConfigError, match=r"\$Y, which is not set"):
        found(project, c.ro_bind(c.noescape("$Y/x")))
    with pytest.raises(ConfigError, match="not an absolute path"):
        found(project, c.ro_bind("~/x"))


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("kind", ["absolute", "relative", "upwards"])
def test_no_part_of_a_path_leads_out_of_the_folder_it_is_confined_to(
    project: Path, place: str, kind: str
) -> None:
    outside = project.parent / "outside" / "m" / "l"
    outside.mkdir(parents=True)
    root = project / "root"
    there = {"first": root / "f", "middle": root / "f/m", "last": root / "f/m/l"}[place]
    there.parent.mkdir(parents=True)
    target = {"first": outside.parents[1], "middle": outside.parent, "last": outside}[place]
    text = {
        "absolute": str(target),
        "relative": os.path.relpath(target, there.parent),
        "upwards": f"{'../' * 40}{str(target).lstrip('/')}",
    }[kind]
    there.symlink_to(text)
    named = f"{root}/f/m/l"
    with pytest.raises(ConfigError, match="leads out of"):
        found(project, c.ro_bind(named, "/x", beneath=str(root)))
    with pytest.raises(ConfigError, match="leads out of"):
        found(project, c.try_ro_bind(named, "/x", beneath=str(root)))
    assert binds(found(project, c.ro_bind(named, "/x")))["/x"][0] == str(outside), "the control"


def test_a_path_may_not_leave_by_dots_nor_by_magic_links(project: Path) -> None:
    with pytest.raises(ConfigError, match="leads out of"):
        found(project, c.ro_bind(f"{project}/src/../../x", "/x", beneath=f"{project}/src"))
    fd = os.open("/etc", os.O_PATH)
    try:
        with pytest.raises(ConfigError, match="cannot be used"):
            found(project, c.ro_bind(f"/proc/{os.getpid()}/fd/{fd}", "/x"))
    finally:
        os.close(fd)


def test_links_within_the_folder_are_followed(project: Path) -> None:
    resolved = found(project, c.ro_bind(f"{project}/link/c", "/c", beneath=str(project)))
    assert binds(resolved)["/c"][0] == f"{project}/src/deep/c"


def test_parents_come_first_and_of_two_at_one_place_the_later_counts(project: Path) -> None:
    resolved = found(
        project,
        c.rw_bind(f"{project}/src/b"),
        c.ro_bind(f"{project}/src"),
        c.ro_bind("/etc/hostname", "/x"),
        c.rw_bind(f"{project}/a", "/x"),
    )
    assert binds(resolved)["/x"] == (f"{project}/a", "--bind")
    order = list(binds(resolved))
    assert order.index(f"{project}/src") < order.index(f"{project}/src/b")


def test_nothing_is_mounted_where_bubblewrap_would_make_it_on_the_host(project: Path) -> None:
    """It would follow links, or leave files, in a folder that somebody else can write to."""
    inside = c.rw_bind(str(project), "/p")
    for place in ("/p/link", "/p/link/c", "/p/absent", "/p/a/x", "/p/a"):
        with pytest.raises(ConfigError, match="cannot be mounted"):
            found(project, inside, c.ro_bind("/etc", place))
    assert found(project, inside, c.ro_bind("/etc", "/p/empty"))
    assert found(project, inside, c.ro_bind("/etc/hostname", "/p/a"))


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/1", "/dev/null"])
def test_some_places_are_the_jails_own(project: Path, target: str) -> None:
    with pytest.raises(ConfigError, match="nothing can be mounted"):
        found(project, c.ro_bind("/etc", target))
    with pytest.raises(ConfigError, match="no place in a jail"):
        c.ro_bind("/etc", "../x")


# What is denied


def shown(resolved: Resolved, folder: Path) -> set[str]:
    """What is visible right in a folder, given that it was made anew."""
    names = {step.path for step in resolved.tree if isinstance(step, Symlink | Memory)}
    return {Path(p).name for p in (*names, *binds(resolved)) if Path(p).parent == folder}


def test_a_denied_file_is_not_there_and_none_can_come(project: Path) -> None:
    for name in (".env", "absent"):
        resolved = found(project, c.mount_cwd, c.deny(f"{project}/{name}"))
        assert str(project) not in binds(resolved)
        assert Memory(str(project)) in resolved.tree and Seal(str(project)) in resolved.tree
        assert shown(resolved, project) == {"a", "src", ".git", "empty", "link", ".env"} - {name}
        assert binds(resolved)[f"{project}/a"] == (f"{project}/a", "--bind")


def test_a_denied_path_in_folders_that_are_not_there_yet(project: Path) -> None:
    resolved = found(project, c.mount_cwd, c.deny(f"{project}/src/new/secret"))
    assert shown(resolved, project / "src") == {"b", "deep"}
    assert str(project / "src") not in binds(resolved)


def test_what_is_denied_is_so_under_every_name(project: Path) -> None:
    """Through a link, through another bind of it, and through one of a folder above."""
    resolved = found(
        project,
        c.ro_bind(str(project), "/one"),
        c.rw_bind(f"{project}/src", "/two"),
        c.ro_bind(f"{project}/src/deep/c", "/three"),
        c.deny("/one/link/c"),
    )
    targets = binds(resolved)
    assert "/three" not in targets
    for folder in ("/one", "/one/src", "/one/src/deep", "/two", "/two/deep"):
        assert folder not in targets and Seal(folder) in resolved.tree
    assert not any(source.endswith("/c") for source, _access in targets.values())


def test_a_denied_link_is_gone_and_so_is_what_it_names(project: Path) -> None:
    resolved = found(project, c.mount_cwd, c.deny(f"{project}/link"))
    assert "link" not in shown(resolved, project)
    assert f"{project}/src/deep" not in binds(resolved)
    assert shown(resolved, project / "src") == {"b"}


def test_a_path_of_the_host_is_denied_wherever_the_jail_has_it(project: Path) -> None:
    """Named as the host has it: bound to another place, or by a link to the bound folder."""
    (project.parent / "proj").symlink_to(project)
    bind = c.rw_bind(str(project), "/data")
    for named in (project, project.parent / "proj"):
        for name in (".env", "absent"):
            resolved = found(project, bind, c.deny(f"{named}/{name}"))
            assert shown(resolved, Path("/data")) == {
                "a",
                "src",
                ".git",
                "empty",
                "link",
                ".env",
            } - {name}
            assert Seal("/data") in resolved.tree and not resolved.warnings
    resolved = found(project, c.mount_cwd, c.deny(f"{project.parent}/proj/src"))
    assert shown(resolved, project) == {"a", ".git", "empty", "link", ".env"}
    assert found(project, bind, c.deny(str(project))).tree[:-1] == found(project).tree[:-1]


def test_a_path_is_denied_as_the_jail_and_as_the_host_has_it(project: Path) -> None:
    """Of two folders that have the same name in different places neither is forgotten."""
    other = project.parent / "other"
    other.mkdir()
    (other / ".env").touch()
    resolved = found(
        project, c.rw_bind(str(other), str(project)), c.rw_bind(str(project), "/data"),
        c.deny(f"{project}/.env"),
    )  # fmt: skip
    assert ".env" not in shown(resolved, project) and ".env" not in shown(resolved, Path("/data"))
    assert Seal(str(project)) in resolved.tree and Seal("/data") in resolved.tree
    with pytest.raises(ConfigError, match="cannot be denied"):
        found(project, c.rw_bind(str(other), "/data"), c.deny("/data/../data/.env"))


def test_denying_what_no_mount_could_have_is_said(project: Path) -> None:
    for path in ("/elsewhere/x", f"{project.parent}/secret", "/tmp/x"):
        (warning,) = found(project, c.mount_cwd, c.deny(path)).warnings
        assert warning.startswith(f"{path} is denied")
    inside = (f"{project}/absent/x", str(project), str(project.parent))
    assert not any(found(project, c.mount_cwd, c.deny(path)).warnings for path in inside)


def test_a_path_is_denied_through_the_jails_own_links(project: Path) -> None:
    """/bin leads to usr/bin in a jail with the host's programs: a link that is in no mount."""

    def linked(before: Jail) -> Jail:
        links = (Link("/in", "over"), Link("/over", "one/src"), Link("/x", "y"), Link("/y", "x"))
        return msgspec.structs.replace(before, parts=(*before.parts, *links))

    common = (linked, c.ro_bind(str(project), "/one"))
    resolved = found(project, *common, c.deny("/in/deep/c"), c.deny("/in/absent"))
    assert shown(resolved, Path("/one/src")) == {"b", "deep"} and not resolved.warnings
    assert Seal("/one/src") in resolved.tree and "/one/src/deep/c" not in binds(resolved)
    with pytest.raises(ConfigError, match="in circles"):
        found(project, *common, c.deny("/x/a"))


def test_what_cannot_be_told_is_not_denied_in_silence(project: Path) -> None:
    for path in (f"{project}/absent/../.env", f"{project}/src/absent/../../.env"):
        with pytest.raises(ConfigError, match="cannot be denied"):
            found(project, c.mount_cwd, c.deny(path))
    resolved = found(project, c.mount_cwd, c.deny(f"{project}/src/../.env"))
    assert ".env" not in shown(resolved, project)


def test_denying_holds_against_what_is_bound_at_the_place_or_below(project: Path) -> None:
    resolved = found(project, c.deny("/d"), c.ro_bind("/etc", "/d"), c.ro_bind("/usr", "/d/e"))
    assert not binds(resolved)


def test_a_folder_of_too_many_entries_is_an_error(project: Path) -> None:
    for number in range(MAX_STEPS):
        (project / "empty" / str(number)).touch()
    with pytest.raises(ConfigError, match="are the most"):
        found(project, c.mount_cwd, c.deny(f"{project}/empty/secret"))


# Variables, accounts


def test_variables(project: Path) -> None:
    environ = {"A": "1", "SECRET": "x", "PATH": "/nowhere:/usr/games"}
    resolved = found(
        project,
        c.ro_bind("/usr"),
        *(c.fwd_env("A"), c.try_fwd_env("B"), c.set_env("C", "$A ~")),
        c.add_tools(f"{project}/src"),
        environ=environ,
    )
    variables = dict(resolved.variables)
    assert (variables["A"], variables["C"]) == ("1", "$A ~")
    assert "B" not in variables and "SECRET" not in variables
    path = variables["PATH"].split(":")
    assert path[:3] == [f"{project}/src/bin", f"{project}/src", "/usr/games"]
    with pytest.raises(ConfigError, match="B is not set") as caught:
        found(project, c.fwd_env("B"))
    assert "(--try-fwd-env)" in (caught.value.hint or "")
    for name in ("", "A=B", "A B", "1A"):
        with pytest.raises(ConfigError):
            c.set_env(name, "x")


def test_fake_accounts(project: Path) -> None:
    files = dict(found(project, c.fake_passwd).files)
    assert [line.split(":")[0] for line in files["/etc/passwd"].splitlines()] == [
        *("root", "ada", "nobody")
    ]


def test_names_and_zones_are_checked() -> None:
    for name in ("", "A", "a b", "-a", "a" * 64):
        with pytest.raises(ConfigError):
            c.set_hostname(name)
    for zone in ("/etc/shadow", "../../x"):
        with pytest.raises(ConfigError):
            c.time_zone(zone)


# Rendered


def example(project: Path) -> Resolved:
    return found(
        project,
        *(c.ro_bind(f"{project}/src"), c.mount_cwd, c.deny(f"{project}/.env")),
        *(c.tmpfs("/cache", 1 << 20), c.fake_passwd, c.set_env("TOKEN", "hunter2")),
        *(c.set_hostname("box"), c.network, c.no_new_session),
    )


def test_the_command_line_of_a_jail(project: Path, request: pytest.FixtureRequest) -> None:
    resolved = example(project)
    rendered = host(
        resolved, ("/usr/bin/bwrap",), ("make",), (b"1", b"22"), uid=1000, gid=100, root=False
    )
    lines = [word.replace(str(project), "PROJECT") for word in rendered.argv]
    parents = [f"{'/'.join(str(project).split('/')[: n + 1])}" for n in range(1, 10)]
    lines = ["ABOVE" if word in parents else word for word in lines]
    # Where the test's folder is, and which of the resolver's files there are, is this machine's.
    etc = [n for n, word in enumerate(lines) if word == "--ro-bind" and "/etc/" in lines[n + 2]]
    for position in reversed(etc):
        del lines[position : position + 3]
    while "ABOVE" in lines:
        position = lines.index("ABOVE")
        del lines[position - 1 : position + 1]
    golden.check(
        Path(__file__).parent / "golden" / "jail.txt",
        lines,
        regenerate=request.config.getoption("--regenerate-golden"),
    )


def test_no_variable_is_on_the_command_line(project: Path) -> None:
    """Every user can read command lines."""
    rendered = host(example(project), ("bwrap",), ("make",), (), uid=1000, gid=1000, root=False)
    assert not any("hunter2" in word for word in rendered.argv)
    words = dict(rendered.contents)[ARGUMENTS_FD].split(b"\0")
    assert words[words.index(b"TOKEN") + 1] == b"hunter2"
    assert words[0] == b"--clearenv"


def test_a_jail_in_a_guest_is_made_of_the_same_parts() -> None:
    made = c.jail(
        c.set_hostname("box"),
        c.tmpfs("/tmp", 1 << 20, mode=0o1777),
        c.tmpfs("/home/ada"),
        c.ro_bind("/srv/x", "/work/x"),
        c.rw_bind("/work"),
        c.ro_bind("/opt/tool"),
        c.limits(memory=1 << 30, cpu=150, pids=100),
    )
    rendered = in_guest(made, exported=("/work",), kept=("/home/ada",))
    assert rendered.hostname == "box"
    assert rendered.tree == [
        ["tmpfs", "/tmp", 0o1777, 1 << 20],
        ["folder", "/home/ada", 0o755],
        ["export", "/work"],
        ["toolbox", "/work/x"],
        ["toolbox", "/opt/tool"],
    ]
    assert rendered.limits == [
        ["memory.max", str(1 << 30)],
        ["cpu.max", "150000 100000"],
        ["pids.max", "100"],
    ]


@pytest.mark.parametrize(
    "part",
    [
        c.rw_bind("/usr"),
        c.try_ro_bind("/usr"),
        c.ro_bind("/usr", beneath="/usr"),
        c.ro_bind(c.noescape("~/x")),
        c.deny("/work/a"),
        c.network,
        c.mount_cwd,
        c.set_env("A", "b"),
        c.add_seccomp("none"),
        c.fake_passwd,
    ],
)
def test_what_a_guests_jail_cannot_be_is_refused_and_not_left_out(part: c.Combinator) -> None:
    with pytest.raises(ConfigError):
        in_guest(c.jail(part), exported=("/work",))
