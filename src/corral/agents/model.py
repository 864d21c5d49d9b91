"""A recipe: how to run one agent program. What a file may say, and what corral takes from it.

A recipe is one TOML file. Those that come with corral are in recipes/, a user's own in
~/.config/corral/agents/NAME.toml; docs/adding-an-agent.md describes every key.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from ..policy import Dialect

OutputFormat = Literal["text", "claude-stream-json", "codex-json", "opencode-json", "gemini-json"]
OUTPUT_FORMATS: tuple[str, ...] = (
    *("text", "claude-stream-json", "codex-json", "opencode-json", "gemini-json"),
)


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Install(_Table, frozen=True, kw_only=True):
    """Where the program comes from when this machine has none.

    npm, pypi: `NAME@VERSION`, `NAME==VERSION`; one of the two. program: its file in the image,
    relative, with {arch} (x64 or arm64), {cpu} (x86_64 or aarch64) and {baseline} ("-baseline" on
    x86_64, "" elsewhere); "" for bin/PROGRAM. scripts: npm's install scripts run.
    needs: programs that it needs of the toolbox, each `NAME` or `NAME >= VERSION`.
    """

    npm: str = ""
    pypi: str = ""
    program: str = ""
    scripts: bool = False
    needs: tuple[str, ...] = ()


class Provider(_Table, frozen=True, kw_only=True):
    """What else is said to the program when its model is reached by a gateway of this dialect."""

    args: tuple[str, ...] = ()
    env: dict[str, str] = {}


class Held(_Table, frozen=True, kw_only=True):
    """A secret for other hosts, as [secrets.NAME] of a config.toml: its variable is its name."""

    hosts: tuple[str, ...]
    header: str = "authorization"


class Import(_Table, frozen=True, kw_only=True):
    """What --import-settings copies of the user's own files, as patterns below the home.

    leave: patterns of what is never copied though `copy` has it.
    """

    copy: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()


class Check(_Table, frozen=True, kw_only=True):
    """How a scripted model makes the agent write "checked" into corral-check.txt.

    tool, arguments: the call of a tool of the agent's. text: what the model says, in place of a
    call or at its end.
    """

    tool: str = ""
    arguments: dict[str, str] | str = ""
    text: str = ""


class RecipeTable(_Table, frozen=True, kw_only=True):
    """A recipe's file."""

    summary: Annotated[str, Meta(min_length=1, max_length=120)]
    program: str
    interactive: tuple[str, ...]
    headless: tuple[str, ...] = ()
    output: OutputFormat = "text"
    gateways: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    share_auth: Literal["", "claude"] = ""
    env: dict[str, str] = {}
    files: dict[str, str] = {}
    install: Install = Install()
    gateway: dict[Dialect, Provider] = {}
    secrets: dict[str, Held] = {}
    check: Check = Check()
    import_: Import = field(default=Import(), name="import")


class Recipe(Struct, frozen=True, kw_only=True):
    """A recipe, checked. name: as it is asked for. origin: where it is from, for people.

    own: whether it is the user's. table: what it says; see RecipeTable and its parts.
    """

    name: str
    origin: str
    own: bool
    table: RecipeTable


class Reached(Struct, frozen=True, kw_only=True):
    """The gateway by which an agent reaches its model. url: as SDKs take a base URL."""

    name: str
    dialect: Dialect
    url: str
