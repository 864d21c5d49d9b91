"""Agents' homes, which guests write, and packages, which strangers write, against the host."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

import pytest

from corral import agents
from corral.agents import Recipe, images, installing
from corral.agents.homes import Home, ensure_home, home_folder, reset_home, seed
from corral.agents.images import Wanted, finish
from corral.agents.importing import Outcome, copy_settings
from corral.errors import CorralError, HostError, ImageError
from corral.host import measure
from tests.support.agents import give_agent

TOKEN = "sk-ant-api03-" + "Qw8Zt5Lp2Vn7Rx4Kb9Hy3Jm6Gd1Fs" * 3
PROJECT = "/srv/project"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that nothing may reach; the user has an agent, and folders of corral's own."""
    for name in ("config", "state", "cache", "home", "outside"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"CORRAL_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    give_agent(tmp_path / "home", tmp_path / "config")
    (tmp_path / "outside" / "secret").write_text(TOKEN)
    return tmp_path / "outside"


def asker() -> tuple[Recipe, Home, Path]:
    """The recipe, its home, and what a guest sees of that."""
    recipe = agents.find("asker")
    home = ensure_home(recipe, PROJECT)
    return recipe, home, Path(home.places[0][0])


def imported(recipe: Recipe, home: Home) -> Outcome:
    return copy_settings(recipe, home, PROJECT, dict(os.environ))


def test_planted_links_in_a_home_make_the_host_write_nowhere_else(outside: Path) -> None:
    recipe, home, seen = asker()
    own = outside.parent / "home" / ".asker" / "commands"
    own.mkdir(parents=True)
    (own / "fix.md").write_text("Fix it.")
    (own.parent / "settings.json").write_text("{}")
    (seen / "settings.json").symlink_to(outside / "new")  # to nothing yet
    (seen / "commands").symlink_to(outside)

    assert seed(recipe, home, PROJECT) == []  # what is there, even a link to nothing, stays
    outcome = imported(recipe, home)

    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert outcome.copied == []
    assert len(outcome.left) == 2


def test_links_that_are_swapped_meanwhile_lead_no_write_out_of_a_home(outside: Path) -> None:
    recipe, home, seen = asker()
    own = outside.parent / "home" / ".asker" / "commands"
    own.mkdir(parents=True)
    for number in range(40):
        (own / f"{number}.md").write_text("Fix it.")
    (seen / "commands").mkdir()
    (seen / "link").symlink_to(outside)
    names = [os.fsencode(seen / name) for name in ("commands", "link")]
    stop, swaps = threading.Event(), 0
    libc = ctypes.CDLL(None)

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            swaps += libc.renameat2(-100, names[0], -100, names[1], 2) == 0  # RENAME_EXCHANGE

    thread = threading.Thread(target=swap)
    thread.start()
    written, kept = 0, 0
    try:
        for _ in range(60):
            outcome = imported(recipe, home)
            written += len(outcome.copied)
            kept += sum("in their way" in why for _path, why in outcome.left)
    finally:
        stop.set()
        thread.join()
    assert swaps and written and kept, "both were met: the folder and the link in its place"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_link_in_place_of_a_home_is_refused_and_a_reset_follows_none(outside: Path) -> None:
    recipe, home, seen = asker()
    (seen / "link").symlink_to(outside)
    assert reset_home(home.folder)
    assert (outside / "secret").exists()
    home = ensure_home(recipe, PROJECT)
    Path(home.places[0][0]).rmdir()
    Path(home.places[0][0]).symlink_to(outside)
    with pytest.raises(HostError, match="a link or a file where a folder belongs"):
        ensure_home(recipe, PROJECT)
    folder = home_folder("other", PROJECT)
    folder.symlink_to(outside)
    with pytest.raises(HostError, match="not a folder"):
        reset_home(folder)
    assert (outside / "secret").exists()


def test_no_credential_and_nothing_behind_a_link_is_imported(outside: Path) -> None:
    recipe, home, seen = asker()
    own = outside.parent / "home" / ".asker"
    commands = own / "commands"
    commands.mkdir(parents=True)
    (own / "settings.json").write_text('{"apiKey": "2f9c7d1e8b6a4053f1e2d3c4b5a69788"}')
    (commands / "plain.md").write_text("Fix it.")
    (commands / "token.md").write_text("x" * 20_000 + f" {TOKEN}")
    (commands / "binary.md").write_bytes(b"\xff\xfe" + TOKEN.encode("utf-16-le"))
    (commands / "secret.md").symlink_to(outside / "secret")
    (commands / "folder").symlink_to(outside)
    os.mkfifo(commands / "pipe.md")

    outcome = imported(recipe, home)

    assert outcome.copied == ["~/.asker/commands/plain.md"]
    assert {path.rpartition("/")[2] for path, _why in outcome.left} == {
        *("settings.json", "token.md", "binary.md", "secret.md", "folder", "pipe.md"),
    }
    assert [path.name for path in (seen / "commands").iterdir()] == ["plain.md"]
    assert not any(TOKEN in path + why for path, why in outcome.left)


def package(**changes: object) -> Wanted:
    parts: dict[str, object] = {
        **{"agent": "asker", "program": "asker", "kind": "npm", "package": "asker"},
        **{"version": "1.0.0", "file": "lib/asker", "scripts": False, "needs": ()},
    }
    return Wanted(**{**parts, **changes})  # type: ignore[arg-type]  # as named above


def test_a_package_whose_program_is_a_link_out_is_no_image(outside: Path) -> None:
    folder = outside.parent / "image"
    (folder / "lib").mkdir(parents=True)
    secret = outside / "secret"
    secret.chmod(0o600)
    (folder / "lib" / "asker").symlink_to(secret)
    (folder / "more").symlink_to(outside)
    with pytest.raises(ImageError, match="no program"):
        finish(folder, package())
    (folder / "lib" / "asker").unlink()
    (folder / "lib" / "asker").write_text("#!/bin/sh\n")
    finish(folder, package())  # the control: the same without that link
    assert secret.stat().st_mode & 0o777 == 0o600, "nothing behind a link is opened up"
    assert images.manifest_of(folder) is not None


TRIED = """
for path in "$1"/secret "$2"/.asker "$2"/.ssh /etc/shadow "$3"/config "$3"/state; do
    test -e "$path" && echo "sees $path"
done
echo in > "$4/written" && echo wrote
(echo out > "$2/planted") 2>/dev/null
(echo out > /usr/planted) 2>/dev/null && echo "wrote /usr"
env | grep -c SECRET
exit 7
"""


def test_what_installs_sees_no_home_and_writes_its_image_only(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not measure().user_namespaces.ok:
        pytest.skip("there are no user namespaces here")
    base = outside.parent
    monkeypatch.setenv("A_SECRET", TOKEN)
    (base / "home" / ".asker").mkdir()
    (base / "home" / ".npmrc").write_text("fund=false\n")
    folder = base / "made"
    folder.mkdir()
    wanted = package()
    argv = ("/bin/sh", "-c", TRIED, "x", str(outside), str(base / "home"), str(base))
    with pytest.raises(CorralError) as caught:
        installing._in_jail(
            (*argv, str(wanted.folder)),
            installing.Tools(argv=(), extra=()),
            wanted,
            folder,
            dict(os.environ),
        )
    assert caught.value.detail is not None
    assert caught.value.detail.split() == ["wrote", "0"]
    assert (folder / "written").read_text() == "in\n"
    assert not (base / "home" / "planted").exists()
