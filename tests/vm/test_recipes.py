"""`corral run NAME` and `corral agent check NAME` with an agent of the user's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral.agents.homes import home_folder
from corral.scripted import Models, Reply
from tests.support.agents import give_agent
from tests.support.corral import command, environment
from tests.support.gateways import KEY, configure

OTHER_KEY = "sk-ant-api03-" + "Qw8Zt5Lp2Vn7Rx4Kb9Hy3Jm6Gd1Fs" * 3
pytestmark = pytest.mark.timeout(300)


@dataclass
class User:
    """A user with an agent, a project and a gateway. path: their PATH."""

    models: Models
    home: Path
    project: Path
    state: Path

    def environ(self) -> dict[str, str]:
        """The user's environment."""
        found = environment(
            {
                "HOME": str(self.home),
                "PATH": f"{self.home}/tools/bin:{os.environ['PATH']}",
                "CORRAL_CONFIG_DIR": str(self.home / "config"),
                "CORRAL_STATE_DIR": str(self.state),
                "CORRAL_CACHE_DIR": str(cache()),
            }
        )
        return {name: value for name, value in found.items() if not name.startswith("ANTHROPIC_")}

    async def corral(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """`corral ARGUMENTS` in the project, while the models answer."""
        import asyncio

        return await asyncio.to_thread(
            subprocess.run,
            command(*arguments),
            cwd=self.project,
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=240,
            check=False,
        )

    def agent_home(self) -> Path:
        """What the agent sees as ~/.asker."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CORRAL_STATE_DIR", str(self.state))
            return home_folder("asker", str(self.project)) / "home" / ".asker"


def cache() -> Path:
    """The cache of all tests: kernels and templates are made once."""
    from corral.paths import cache_dir

    return cache_dir()


@pytest.fixture(scope="module")
async def user(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[User]:
    base = tmp_path_factory.mktemp("recipes")
    home, project, state = (base / name for name in ("home", "project", "state"))
    for folder in (home, project, state):
        folder.mkdir()
    give_agent(home, home / "config")
    async with Models() as models:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CORRAL_CONFIG_DIR", str(home / "config"))
            configure(models, base)
        yield User(models, home, project, state)


async def test_an_agent_asks_its_model_works_and_finds_its_home_again(user: User) -> None:
    call = ("shell", {"command": "echo changed > result.txt"})
    user.models.script = (Reply(tools=(call,)), Reply(text="Done."))
    settings = user.home / ".asker"
    (settings / "commands" / "private").mkdir(parents=True)
    (settings / "settings.json").write_text('{"theme": "light"}')
    (settings / "commands" / "fix.md").write_text("Fix it.")
    (settings / "commands" / "private" / "x.md").write_text("Mine.")
    (settings / "commands" / "leak.md").write_text(f"Use {OTHER_KEY}.")
    (settings / "commands" / "link.md").symlink_to("/etc/passwd")

    done = await user.corral("run", "--import-settings", "asker", "--", "-p", "fix it")

    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"type": "system", "runs": 1}
    assert lines[-1]["result"] == "ok"
    assert (user.project / "result.txt").read_text() == "changed\n"
    assert [seen.headers["x-api-key"] for seen in user.models.seen] == [KEY, KEY]
    assert KEY.encode() not in done.stdout + done.stderr
    home = user.agent_home()
    assert (home / "settings.json").read_text() == '{"theme": "light"}'
    assert sorted(path.name for path in (home / "commands").iterdir()) == ["fix.md"]
    told = done.stderr.decode()
    assert "imported for asker: ~/.asker/settings.json, ~/.asker/commands/fix.md." in told
    assert "~/.asker/commands/leak.md" in told
    assert "~/.asker/commands/link.md" in told

    again = await user.corral("run", "asker", "--", "-p", "again")

    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[0])["runs"] == 2
    assert (home / "history").read_text() == "-p fix it\n-p again\n"
    assert (home / "history").stat().st_uid == os.getuid()
    assert not (settings / "history").exists(), "the user's own folder is never shared"


async def test_a_home_with_planted_links_makes_the_host_write_nowhere_else(user: User) -> None:
    outside = user.home / "outside"
    outside.mkdir()
    plant = (
        f"import os, shutil; os.chdir(os.path.expanduser('~/.asker')); "
        f"shutil.rmtree('commands', ignore_errors=True); "
        f"[os.path.lexists(n) and os.remove(n) for n in ('settings.json',)]; "
        f"os.symlink({str(outside / 'new')!r}, 'settings.json'); "
        f"os.symlink({str(outside)!r}, 'commands')"
    )
    # The agent's own program runs in the same home: a plain command has none.
    call = ("shell", {"command": f'python3 -c "{plant}"'})
    user.models.script = (Reply(tools=(call,)), Reply(text="Done."))
    planted = await user.corral("run", "asker", "--", "-p", "plant")
    assert planted.returncode == 0, planted.stderr
    home = user.agent_home()
    assert (home / "settings.json").is_symlink() and (home / "commands").is_symlink()

    (home.parents[1] / "imported").unlink()  # as if it was the first time
    user.models.script = (Reply(text="Done."),)
    done = await user.corral("run", "--import-settings", "asker", "--", "-p", "again")

    assert done.returncode == 0, done.stderr
    assert list(outside.iterdir()) == []
    assert "a link or a file is in their way" in done.stderr.decode()
    removed = await user.corral("agent", "home", "asker", "--reset")
    assert removed.returncode == 0
    assert list(home.iterdir()) == []
    assert outside.is_dir()


async def test_check_says_what_works(user: User) -> None:
    done = await user.corral("agent", "check", "asker", "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    told = json.loads(done.stdout)
    assert {step["name"]: step["ok"] for step in told["steps"]} == dict.fromkeys(
        ["program", "starts", "model", "tool", "file", "output", "ends", "key"], True
    )
    assert not [path for path in (user.state / "logs").glob("check-*")]


async def test_check_fails_for_an_agent_that_does_not_work(user: User) -> None:
    config = user.home / "config"
    text = (config / "agents" / "asker.toml").read_text()
    (config / "agents" / "broken.toml").write_text(text.replace("echo checked", "echo wrong"))
    before = len(user.models.seen)
    done = await user.corral("agent", "check", "broken", "--json")
    assert done.returncode == 1
    steps = {step["name"]: step["ok"] for step in json.loads(done.stdout)["steps"]}
    assert steps["tool"] is True
    assert steps["file"] is False
    assert len(user.models.seen) == before, "the user's own models are not asked"


async def test_agents_of_a_herd_have_their_recipes_and_homes(user: User) -> None:
    config = user.home / "config" / "config.toml"
    before = config.read_text()
    rows = '\n[[agent]]\nrecipe = "asker"\n' * 2
    config.write_text(f'{before}\n[herd]\nagents = 2\nworkspace = "own"\n{rows}')
    call = ("shell", {"command": "pwd; echo here > herd.txt; ls ~/.asker"})
    user.models.script = (Reply(tools=(call,)), Reply(text="Done."))
    user.models.seen.clear()
    try:
        up = await user.corral("up", "herd", "-d")
        assert up.returncode == 0, up.stderr
        task = json.dumps({"action": "prompt", "prompt": "look around"})
        done = await user.corral("task", "herd", "--agent", "2", task)
        assert done.returncode == 0, (done.stdout, done.stderr)
    finally:
        config.write_text(before)
        gone = await user.corral("rm", "-f", "herd")
    assert gone.returncode == 0, gone.stderr
    assert user.models.seen[-1].results == ("/workspace\nhistory\nsettings.json\n",)
    second = user.agent_home().parents[2] / "asker.2" / "home" / ".asker"
    assert (second / "history").read_text() == "-p look around\n"
    assert not (user.project / "herd.txt").exists(), "each works on a copy of its own"
