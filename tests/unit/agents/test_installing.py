"""Installing agents, with an npm of the tests' own in the real jail."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from corral import search
from corral.agents import images, installing
from corral.agents.images import Wanted
from corral.agents.installing import Tools, ensure_image, latest
from corral.cli.entry import cli
from corral.errors import FetchError, HostError, MissingProgramError
from corral.events import Event, Phase
from corral.host import measure

NPM = """#!/bin/sh
[ "$1" = view ] && { echo 2.0.0; exit; }
for word; do case $word in --prefix=*) prefix=${word#*=};; esac; last=$word; done
[ "$last" = mine@6.6.6 ] && { printf 'no such \\033[31mversion\\n' >&2; exit 1; }
mkdir -p "$prefix/bin"
echo "$@" > "$prefix/args"
echo "$last" > "$prefix/bin/mine"
"""
RECIPE = """
summary = "Mine"
program = "mine"
interactive = ["mine"]
[install]
npm = "mine@1.0.0"
"""


@pytest.fixture
def npm(user: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with a program that does what npm would."""
    if not measure().user_namespaces.ok:
        pytest.skip("there are no user namespaces here")
    folder = user.parent / "programs"
    folder.mkdir()
    (folder / "npm").write_text(NPM)
    (folder / "npm").chmod(0o755)
    (user.parent / "config" / "agents").mkdir()
    (user.parent / "config" / "agents" / "mine.toml").write_text(RECIPE)
    tools = Tools((str(folder / "npm"),), (str(folder),))
    monkeypatch.setattr(installing, "_tools", lambda _wanted, _environ: tools)
    return folder


def want(version: str = "1.0.0", *, scripts: bool = False) -> Wanted:
    return Wanted(
        agent="mine",
        program="mine",
        kind="npm",
        package="mine",
        version=version,
        file="",
        scripts=scripts,
        needs=(),
    )


def test_it_is_made_once_whole_and_readable(npm: Path) -> None:
    events: list[Event] = []
    found = ensure_image(want(), dict(os.environ), events.append)
    assert Path(found.path).read_text() == "mine@1.0.0\n"
    assert Path(found.path).stat().st_mode & 0o777 == 0o755
    assert events == [Phase(name="agent", message="installing mine 1.0.0 from npm")]
    assert ensure_image(want(), dict(os.environ), events.append) == found
    assert len(events) == 1
    assert [path.name for path in images.images_folder().iterdir()] == [want().folder.name]


def test_no_script_of_a_package_runs_unless_the_recipe_says_so(npm: Path) -> None:
    ensure_image(want(), dict(os.environ), lambda _event: None)
    assert "--ignore-scripts" in (want().folder / "args").read_text()
    allowed = want(scripts=True)
    assert allowed.folder != want().folder
    ensure_image(allowed, dict(os.environ), lambda _event: None)
    assert "--ignore-scripts" not in (allowed.folder / "args").read_text()


def test_a_damaged_one_is_made_again(npm: Path) -> None:
    found = ensure_image(want(), dict(os.environ), lambda _event: None)
    Path(found.path).write_text("something else")
    again = ensure_image(want(), dict(os.environ), lambda _event: None)
    assert Path(again.path).read_text() == "mine@1.0.0\n"
    (want().folder / "args").unlink()
    ensure_image(want(), dict(os.environ), lambda _event: None, whole=True)
    assert (want().folder / "args").exists()


def test_two_at_once_make_one(npm: Path) -> None:
    events: list[Event] = []
    threads = [
        threading.Thread(target=ensure_image, args=(want(), dict(os.environ), events.append))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    installs = [event for event in events if "installing" in getattr(event, "message", "")]
    assert len(installs) == 1
    assert images.installed(want())


def test_a_failure_shows_the_last_lines_escaped_and_leaves_nothing(npm: Path) -> None:
    with pytest.raises(FetchError, match="ended with status 1") as caught:
        ensure_image(want("6.6.6"), dict(os.environ), lambda _event: None)
    assert caught.value.detail is not None
    assert "no such" in caught.value.detail
    assert "\x1b" not in caught.value.detail
    assert list(images.images_folder().iterdir()) == []


def test_update_takes_the_newest_and_remove_forgets_it(npm: Path) -> None:
    assert latest(want(), dict(os.environ)) == "2.0.0"
    first = CliRunner().invoke(cli, ["agent", "install", "mine"])
    assert first.output.startswith("mine 1.0.0: "), first.exception
    assert images.chosen() == {"mine": "1.0.0"}
    assert CliRunner().invoke(cli, ["agent", "update"]).output.startswith("mine 2.0.0: ")
    assert "2.0.0 is the newest" in CliRunner().invoke(cli, ["agent", "update", "mine"]).output
    assert CliRunner().invoke(cli, ["agent", "remove", "mine"]).exit_code == 0
    assert images.chosen() == {}


def test_what_is_missing_on_this_machine_is_named(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "find_need", lambda *_arguments: None)
    with pytest.raises(MissingProgramError, match="needs npm") as caught:
        ensure_image(want(), dict(os.environ), lambda _event: None)
    assert caught.value.hint is not None


def test_an_npm_that_a_project_has_on_path_installs_nothing(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = user / "project"
    (project / "bin").mkdir(parents=True)
    for name in ("npm", "node"):
        (project / "bin" / name).write_text("#!/bin/sh\n")
        (project / "bin" / name).chmod(0o755)
    monkeypatch.setattr("corral.agents.programs._USUAL", "/nowhere")
    monkeypatch.setattr(search, "SYSTEM_FOLDERS", ())
    environ = {"HOME": str(user), "PATH": f"{project}/bin"}
    monkeypatch.chdir(user)
    found = installing._tools(want(), environ)
    assert found.argv == (f"{project}/bin/npm",), "in a folder of the user's it is taken"
    monkeypatch.chdir(project)
    with pytest.raises(MissingProgramError, match="needs npm"):
        installing._tools(want(), environ)
    monkeypatch.chdir(user)
    (user / "tools").mkdir()
    (user / "tools" / "npm").symlink_to(project / "bin" / "npm")
    search.note([str(project)])
    for path in (f"{project}/bin", f"{user}/tools"):
        with pytest.raises(MissingProgramError, match="needs npm"):
            installing._tools(want(), {**environ, "PATH": path})


def test_without_user_namespaces_it_says_so(npm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    facts = measure()
    none = msgspec.structs.replace(facts.user_namespaces, ok=False, reason="they are off")
    closed = msgspec.structs.replace(facts, user_namespaces=none)
    monkeypatch.setattr(installing, "measure", lambda: closed)
    with pytest.raises(HostError, match="installed in a jail, which needs user namespaces"):
        ensure_image(want(), dict(os.environ), lambda _event: None)
