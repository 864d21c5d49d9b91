"""Where an agent's program is found, and the images that corral makes of packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral import agents
from corral.agents import images
from corral.agents.images import Wanted, finish, found_in, held, installed, prune, wanted
from corral.agents.preparing import find
from corral.agents.programs import Found, find_on_host, missing
from corral.errors import ConfigError, ImageError, MissingProgramError
from corral.events import silent
from corral.host.system import Answer, System


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_program_of_the_system_needs_nothing_more(user: Path) -> None:
    found = find_on_host("env", "/usr/bin", str(user), frozenset({"/srv/project"}))
    assert found == Found("/usr/bin/env")


def test_of_one_in_the_home_the_folder_is_shown(user: Path) -> None:
    package = program(user / ".npm-global/lib/node_modules/claude/cli.js")
    (user / ".npm-global/bin").mkdir()
    (user / ".npm-global/bin/claude").symlink_to("../lib/node_modules/claude/cli.js")
    found = find_on_host("claude", f"/usr/bin:{user}/.npm-global/bin", str(user), frozenset())
    assert found is not None
    assert found.path == f"{user}/.npm-global/bin/claude"
    assert any(str(package).startswith(f"{folder}/") for folder in found.tools)


def test_what_the_project_holds_and_what_no_sandbox_sees_is_passed_over(user: Path) -> None:
    project, elsewhere = user.parent / "project", user.parent / "elsewhere"
    program(project / "bin" / "claude")
    program(elsewhere / "claude")
    path, outside = f"{project}/bin:{elsewhere}", frozenset({str(project)})
    assert find_on_host("claude", path, str(user), outside) is None
    program(user / "tools/bin/claude")
    found = find_on_host("claude", f"{path}:{user}/tools/bin", str(user), outside)
    assert found == Found(f"{user}/tools/bin/claude", (f"{user}/tools",))


def test_what_is_missing_or_too_old_is_named_with_what_to_do() -> None:
    system = System(environ={}, ask=lambda _argv, _env: Answer(0, "v18.2.0\n", ""))
    missing(["node >= 18", "npm"], {"node": Found("/n"), "npm": Found("/m")}, system)
    with pytest.raises(
        MissingProgramError, match=r"needs node >= 20, and /n is 18\.2\.0"
    ) as caught:
        missing(["node >= 20"], {"node": Found("/n")}, system)
    assert caught.value.hint is not None
    with pytest.raises(MissingProgramError, match="no npm is where a sandbox sees it"):
        missing(["npm"], {"npm": None}, system)


def made(recipe: str = "claude", version: str | None = None) -> Wanted:
    """An image as if it was installed."""
    want = wanted(agents.find(recipe), version)
    program(want.folder / (want.file or f"bin/{want.program}"), "the program")
    finish(want.folder, want)
    return want


def test_an_image_is_of_one_version_and_has_its_program_in_bin(user: Path) -> None:
    want = made()
    assert want.folder.name.startswith(f"claude-{want.version}-")
    assert want.spec == f"@anthropic-ai/claude-code@{want.version}"
    found = found_in(want)
    assert Path(found.path).read_text() == "the program"
    assert found.tools == (str(want.folder),)
    assert installed(want)
    assert wanted(agents.find("claude"), "1.2.3").folder != want.folder


def test_a_damaged_image_is_none(user: Path) -> None:
    want = made()
    manifest = installed(want)
    assert manifest is not None
    assert images.is_whole(want.folder, manifest)
    (want.folder / "more").write_text("x")
    assert not images.is_whole(want.folder, manifest)
    (want.folder / manifest.program).write_text("cut")
    assert installed(want) is None
    (want.folder / images.MANIFEST).write_text("{")
    assert installed(want) is None


def test_an_image_can_be_read_whatever_the_umask_is(user: Path) -> None:
    want = wanted(agents.find("claude"))
    program(want.folder / want.file).chmod(0o700)
    (want.folder / "lib").chmod(0o700)
    (want.folder / "lib" / "data").write_text("x")
    (want.folder / "lib" / "data").chmod(0o600)
    finish(want.folder, want)
    assert (want.folder / want.file).stat().st_mode & 0o777 == 0o755
    assert (want.folder / "lib").stat().st_mode & 0o777 == 0o755
    assert (want.folder / "lib" / "data").stat().st_mode & 0o777 == 0o644


def test_a_package_without_the_program_is_an_error(user: Path) -> None:
    want = wanted(agents.find("claude"))
    want.folder.mkdir(parents=True)
    with pytest.raises(ImageError, match="has no program"):
        finish(want.folder, want)


def test_a_bin_that_a_package_made_a_link_leads_to_no_file_of_the_users(user: Path) -> None:
    want = wanted(agents.find("claude"))
    precious = program(user / "bin" / want.program, "the user's own")
    program(want.folder / want.file)
    (want.folder / "bin").symlink_to(precious.parent)
    with pytest.raises(ImageError, match="its bin is no folder"):
        finish(want.folder, want)
    assert precious.read_text() == "the user's own" and not precious.is_symlink()
    (want.folder / "bin").unlink()
    (want.folder / "bin" / want.program).mkdir(parents=True)
    with pytest.raises(ImageError, match=f"bin/{want.program} is one"):
        finish(want.folder, want)


def test_gc_leaves_what_a_sandbox_uses(user: Path) -> None:
    used, idle = made("claude"), made("codex")
    with held([str(used.folder), "/usr"]):
        assert prune(dry_run=True) > 0
        assert idle.folder.exists()
        assert prune(dry_run=False) > 0
        assert used.folder.exists()
        assert not idle.folder.exists()
    prune(dry_run=False)
    assert not used.folder.exists()


def test_the_machines_own_goes_first_until_a_version_was_asked_for(user: Path) -> None:
    recipe = agents.find("claude")
    own = program(user / "tools/bin/claude")
    environ = {"HOME": str(user), "PATH": f"{user}/tools/bin"}
    assert find(recipe, environ, "/srv", silent).path == str(own)
    want = made("claude", "1.2.3")
    images.choose("claude", "1.2.3")
    assert find(recipe, environ, "/srv", silent) == found_in(want)
    images.choose("claude", None)
    assert find(recipe, environ, "/srv", silent).path == str(own)


def test_one_that_is_in_no_registry_says_so(user: Path) -> None:
    with pytest.raises(ConfigError, match="in no registry"):
        wanted(agents.find("goose"))
    with pytest.raises(ConfigError, match="no exact version"):
        wanted(agents.find("claude"), "latest")
    (user.parent / "state" / images.CHOSEN).write_text("[]")
    with pytest.raises(ConfigError, match="damaged"):
        images.chosen()
