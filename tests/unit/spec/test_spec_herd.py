"""Several agents: how many, what each has of its own, what a project's file may not say of them."""

from __future__ import annotations

import pytest

from corral.errors import ConfigError, UntrustedConfigError
from corral.spec import MAX_AGENTS
from corral.spec.herd_settings import BRANCH
from corral.spec.model import AgentSpec

from .conftest import User

TABLES = """
[herd]
memory = "1GiB"
pids = 100
io_write = "20MiB/s"
home = "64MiB"
restart = "on-failure"

[[agent]]
recipe = "claude"
branch = "parser"
memory = "2GiB"

[[agent]]
workspace = "together"
tools = ["~/.nvm"]
env = { MODE = "ci" }
allow = ["@python"]
cpu = "50%"
io_read = "1MiB"
io_write = 65536
restart = "never"
"""


def test_without_a_word_there_is_one_agent_as_ever(user: User) -> None:
    spec = user.spec()
    assert spec.agents == (AgentSpec(),)
    assert not spec.several and not spec.reviewed and spec.snapshots == ()


def test_a_table_overrides_what_holds_for_all(user: User) -> None:
    nvm = user.folder(".nvm")
    user.configure(TABLES)
    one, two = user.spec().agents
    assert (one.number, one.recipe, one.branch, one.workspace) == (1, "claude", "parser", "own")
    assert (one.limits.memory, one.limits.pids, one.home) == (2 << 30, 100, 64 << 20)
    assert (one.restart, one.network, one.gateways) == ("on-failure", None, None)
    assert (two.number, two.recipe, two.workspace) == (2, None, "together")
    assert (two.limits.memory, two.limits.cpu, two.restart) == (1 << 30, 50, "never")
    assert (one.limits.io_read, one.limits.io_write) == (None, 20 << 20)
    assert (two.limits.io_read, two.limits.io_write) == (1 << 20, 64 << 10)
    assert two.tools == (str(nvm),) and two.env == (("MODE", "ci"),)
    assert two.network is not None and two.network.mode == "allow"
    assert "pypi.org" in [rule.host for rule in two.network.allow]


def test_there_are_as_many_as_was_said_or_as_there_are_tables(user: User) -> None:
    user.folder(".nvm")
    user.configure(TABLES)
    assert len(user.spec().agents) == 2
    more = user.spec(overrides={"herd.agents": "4"}).agents
    assert [agent.number for agent in more] == [1, 2, 3, 4]
    assert more[3].limits.pids == 100 and more[3].recipe is None
    fewer = user.spec(overrides={"herd.agents": 1})
    assert len(fewer.agents) == 1 and "only the first 1" in fewer.warnings[0]


def test_a_run_has_one_agent_whatever_files_say(user: User) -> None:
    user.folder(".nvm")
    user.configure(TABLES + "\n[workspace]\nread_only = false")
    (agent,) = user.spec(alone=True).agents
    assert (agent.recipe, agent.workspace, agent.branch) == (None, "together", None)
    assert agent.limits.pids == 100, "what holds for each holds for it, too"


@pytest.mark.parametrize("count", [0, MAX_AGENTS + 1, -1, "many", True])
def test_so_many_agents_there_cannot_be(user: User, count: object) -> None:
    with pytest.raises(ConfigError):
        user.spec(overrides={"herd.agents": count})


@pytest.mark.parametrize(
    "text",
    [
        "[[agent]]\nmemory = '1MiB'",
        "[[agent]]\nio_read = '1KiB'",
        "[herd]\nio_write = 'fast'",
        "[[agent]]\nrecipe = '../x'",
        "[[agent]]\nbranch = '-x'",
        "[[agent]]\nworkspace = 'mine'",
        "[[agent]]\nrestart = 'sometimes'",
        "[[agent]]\nnet = 'all'",
        "[[agent]]\nnothing = 1",
        "[agent]\nmemory = '1GiB'",
        "[[agent]]\ngateways = ['anthropic']",
        "[[agent]]\ntools = ['/nowhere']",
        "[[agent]]\nbranch = 'x'\n[[agent]]\nbranch = 'x'",
        "[herd]\nshared = '/nowhere'",
        "[herd]\nagents = 2\n[[share]]\nsource = '~/data'\ntarget = '/workspace/x'",
        "[herd]\nshared = '~/data'\n[[share]]\nsource = '~/src/o'\ntarget = '/shared'",
    ],
)
def test_what_makes_no_sense_is_refused(user: User, text: str) -> None:
    user.folder("data")
    user.folder("src/o")
    user.configure(text)
    with pytest.raises(ConfigError):
        user.spec()


@pytest.mark.parametrize("name", ["a..b", "a//b", "a.lock", "a/.b", "a/", "/a", "a b", "a~1", "@{"])
def test_a_name_that_git_does_not_take_is_no_branch(name: str) -> None:
    assert not BRANCH.fullmatch(name)


def test_who_works_on_what(user: User) -> None:
    """own: a snapshot each. together: the folder, or under review the first one's snapshot."""
    own = user.spec(overrides={"herd.agents": 3})
    assert own.snapshots == (1, 2, 3) and own.reviewed
    folder = user.spec(overrides={"herd.agents": 3, "herd.workspace": "together"})
    assert folder.snapshots == () and not folder.reviewed
    review = {"herd.agents": 3, "herd.workspace": "turns", "workspace.review": True}
    assert user.spec(overrides=review).snapshots == (1,)
    read_only = user.spec(overrides={"herd.agents": 3, "workspace.read_only": True})
    assert read_only.snapshots == (), "nothing can be written: nothing has to be held back"
    user.configure("[[agent]]\n[[agent]]\nworkspace = 'together'\n[workspace]\nreview = true")
    assert user.spec().snapshots == (1, 2)


def test_a_branch_of_one_who_has_no_copy_is_warned_about(user: User) -> None:
    user.configure("[[agent]]\nworkspace = 'together'\nbranch = 'x'")
    assert "agent 1 has no copy" in user.spec().warnings[0]


def test_the_shared_folder_is_read_only(user: User) -> None:
    data = user.folder("data")
    (share,) = user.spec(overrides={"herd.shared": "~/data"}).shares
    assert (share.source, share.target, share.writable) == (str(data), "/shared", False)


def test_a_credential_in_a_table_is_warned_about_and_not_shown(user: User) -> None:
    user.configure("[[agent]]\nenv = { GITHUB_TOKEN = 'hunter2' }")
    (warning,) = user.spec().warnings
    assert "GITHUB_TOKEN" in warning and "hunter2" not in warning


# A project's own file

USERS = """
[herd]
agents = 4
memory = "1GiB"
io_write = "20MiB"
restart = "on-failure"
workspace = "turns"
[run]
tools = ["~/.nvm"]
[network]
allow = ["pypi.org", "a.test:8443"]
"""


@pytest.mark.parametrize(
    "text",
    [
        "[herd]\nagents = 2",
        "[herd]\nmemory = '512MiB'\npids = 50\nhome = '1MiB'",
        "[herd]\nio_read = '1MiB'\nio_write = '10MiB'",
        "[[agent]]\nio_read = '1MiB'\nio_write = '20MiB'",
        "[herd]\nworkspace = 'own'\nrestart = 'never'",
        "[[agent]]\nmemory = '512MiB'\nbranch = 'x'\nnet = 'none'",
        "[[agent]]\nworkspace = 'own'\n[[agent]]\n[[agent]]",
        "[[agent]]\nallow = ['pypi.org']\ntools = ['~/.nvm']\ngateways = []",
        "[[agent]]\nallow = []",
    ],
)
def test_a_project_may_tighten(user: User, text: str) -> None:
    user.folder(".nvm")
    user.configure(USERS)
    user.write_project(text)
    user.spec()


@pytest.mark.parametrize(
    "text",
    [
        "[herd]\nagents = 5",
        "[herd]\nmemory = '2GiB'",
        "[herd]\nio_write = '21MiB'",
        "[[agent]]\nio_write = '21MiB'",
        "[herd]\nworkspace = 'together'",
        "[herd]\nrestart = 'always'",
        "[herd]\nshared = '~/data'",
        "[[agent]]\nrecipe = 'claude'",
        "[[agent]]\nmemory = '2GiB'",
        "[[agent]]\nrestart = 'always'",
        "[[agent]]\nworkspace = 'together'",
        "[[agent]]\nenv = { LD_PRELOAD = 'x' }",
        "[[agent]]\ntools = ['~/data']",
        "[[agent]]\nnet = 'internet'",
        "[[agent]]\nallow = ['evil.test']",
        "[[agent]]\nallow = ['a.test']",
        "[[agent]]\n[[agent]]\nallow = ['pypi.org', 'evil.test']",
    ],
)
def test_a_project_may_not_widen(user: User, text: str) -> None:
    user.folder(".nvm")
    user.folder("data")
    user.configure(USERS)
    user.write_project(text)
    with pytest.raises(UntrustedConfigError):
        user.spec()


def test_without_settings_of_the_user_a_project_may_not_have_several(user: User) -> None:
    for text in ("[herd]\nagents = 2", "[[agent]]\n[[agent]]", "[[agent]]\nallow = ['a.test']"):
        user.write_project(text)
        with pytest.raises(UntrustedConfigError):
            user.spec()
    user.write_project("[[agent]]\npids = 100")
    assert user.spec().agents[0].limits.pids == 100


@pytest.mark.parametrize(
    ("text", "widens"),
    [
        ("[herd]\nmemory = '1GiB'", False),
        ("[herd]\nmemory = '1536MiB'", True),
        ("[herd]\npids = 2049", True),
        ("[herd]\nhome = '600MiB'", True),
        ("[[agent]]\npids = 4000", True),
        ("[[agent]]\ntmp = '512MiB'\nmemory = '1GiB'", False),
        ("[[agent]]\nmemory = '2GiB'", True),
        ("[herd]\ncpu = '400%'", False),
    ],
)
def test_a_project_may_not_widen_what_several_have_unsaid(
    user: User, text: str, widens: bool
) -> None:
    """Of several none is without a limit of memory and processes, also where nobody said one."""
    user.configure("[herd]\nagents = 3\n[machine]\nmemory = '2GiB'")
    user.write_project(text)
    if not widens:
        user.spec()
        return
    with pytest.raises(UntrustedConfigError):
        user.spec()


def test_tables_of_a_project_never_take_the_place_of_the_users(user: User) -> None:
    """One that says less would take away a limit."""
    user.configure("[[agent]]\nmemory = '1GiB'")
    user.write_project("[[agent]]\npids = 100")
    with pytest.raises(UntrustedConfigError, match="in place of yours"):
        user.spec()
