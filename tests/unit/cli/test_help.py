"""Every verb explains itself, by examples; a misspelt word is answered with the nearest one."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from corral import __version__
from corral.cli import VERBS
from corral.cli.entry import cli
from tests.support.imports import imported_with

from .conftest import Typed


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Each verb by its name, and each verb below one by both."""
    for name, (module, _text) in VERBS.items():
        command: click.Command = importlib.import_module(f"corral.cli.{module}").command
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())


ALL = dict(verbs())


def help_of(*arguments: str) -> str:
    result = CliRunner().invoke(cli, [*arguments, "--help"], prog_name="corral")
    assert result.exit_code == 0, result.output
    return result.output


def examples_in(text: str) -> list[list[str]]:
    """The words of each example, without the remark after it."""
    _before, _, after = text.partition("Examples:\n")
    lines = re.match(r"(?:  .*\n)*", after)
    assert lines is not None
    found = []
    for line in lines[0].splitlines():
        command = re.split(r" {3,}| > | \| ", line.strip())[0]
        if command.startswith("eval"):
            command = command.partition("$(")[2].partition(")")[0]
        found.append(shlex.split(command))
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples_of_itself(verb: str) -> None:
    examples = examples_in(help_of(verb))
    assert examples
    assert all(words[:2] == ["corral", verb] for words in examples)


def test_the_first_help_shows_examples_and_every_verb() -> None:
    text = help_of()
    assert examples_in(text)
    for verb, (_module, line) in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(line)}", text, re.MULTILINE)


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_every_example_is_a_command_line_that_is_understood(verb: str | None) -> None:
    for words in examples_in(help_of(*([verb] if verb else []))):
        _name, command, rest = cli.resolve_command(click.Context(cli), words[1:])
        assert command is not None
        command.make_context(words[1], list(rest))


@pytest.mark.parametrize("name", ALL)
def test_every_option_says_what_it_does(name: str) -> None:
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
            assert parameter.help.endswith((".", ":", "host.")), parameter.help


@pytest.mark.parametrize("name", ALL)
def test_no_line_of_a_help_is_wider_than_a_terminal_of_100_columns(name: str) -> None:
    result = CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=100)
    assert max(len(line) for line in result.output.splitlines()) <= 100


def test_help_imports_no_verb() -> None:
    """Every import is paid for by every start."""
    heavy = {"rich", "qemu", "asyncio", "corral.cli.run", "corral.spec", "corral.host", "msgspec"}
    assert not heavy & imported_with("corral.cli.entry")


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"corral {__version__}\n"


@pytest.mark.parametrize(
    ("misspelt", "meant"), [("rnu", "run"), ("doktor", "doctor"), ("configure", "config")]
)
def test_a_misspelt_verb_is_answered_with_the_nearest(
    typed: Typed, misspelt: str, meant: str
) -> None:
    finished = typed(misspelt)
    assert finished.returncode == 2
    assert f"no command “{misspelt}”. Did you mean “{meant}”?" in finished.stderr
    assert finished.stdout == ""


def test_a_verb_like_no_other_is_only_said_to_be_none(typed: Typed) -> None:
    finished = typed("xyzzy")
    assert finished.returncode == 2
    assert "no command “xyzzy”." in finished.stderr
    assert "Did you mean" not in finished.stderr


def test_a_misspelt_option_is_answered_with_the_nearest(typed: Typed) -> None:
    finished = typed("run", "--memori", "1g", "--", "true")
    assert "--memory" in finished.stderr


def test_run_says_what_is_missing_with_the_status_of_corrals_own_failures(typed: Typed) -> None:
    """A status of 2 could be the command's."""
    for arguments in (("run",), ("run", "--no-such"), ("run", "--cpus")):
        assert typed(*arguments).returncode == 125
