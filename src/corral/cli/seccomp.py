"""`corral seccomp`: profiles of system calls, recorded, compared, explained, tried."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from .options import stream_options

EPILOG = """\b
Examples:
  corral seccomp record -o ci.json -- make test     what it calls, as a profile
  corral seccomp check --profile ci.json -- make    does it run under that?
  corral seccomp check -- npm test                  under the default
  corral seccomp diff default ci.json
  corral seccomp merge ci.json deploy.json > both.json
  corral seccomp explain default mount clone
"""


@click.group("seccomp", epilog=EPILOG)
def command() -> None:
    """Record, compare, explain and try profiles of system calls (docs/seccomp.md).

    A profile is `default`, or a file in Docker's format.
    """


_RUNS = {"allow_interspersed_args": False}
_profile = click.option(
    "--profile", metavar="PROFILE", default="default", help="default (if not given), or a file."
)


@command.command("record", context_settings=_RUNS)
@click.argument("cmd", nargs=-1, required=True, metavar="CMD [ARG]...")
@click.option(
    "-o", "--output", metavar="FILE", default="seccomp.json", help="Default: seccomp.json."
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")
@click.option("--add", is_flag=True, help="Add to a profile that exists.")
@stream_options
def record(cmd: tuple[str, ...], output: str, force: bool, add: bool, **streams: Any) -> None:
    """Run CMD on this machine, in no jail, and write the smallest profile for it.

    Record what it does on all its ways, errors included, with --add. Exits with CMD's status.
    """
    from . import watching

    sys.exit(watching.record(cmd, Path(output), force=force, add=add, **streams))


@command.command("check", context_settings=_RUNS)
@click.argument("cmd", nargs=-1, required=True, metavar="CMD [ARG]...")
@_profile
@stream_options
def check(cmd: tuple[str, ...], profile: str, **streams: Any) -> None:
    """Run CMD on this machine under a profile, in no jail, and say what that refused.

    Exits with CMD's status.
    """
    from . import watching

    sys.exit(watching.check(cmd, _named(profile), **streams))


@command.command("merge")
@click.argument("profiles", nargs=-1, required=True, metavar="PROFILE...")
def merge(profiles: tuple[str, ...]) -> None:
    """Print the profile that allows what any of these does."""
    from ..jail.seccomp.algebra import merge as merged
    from ..jail.seccomp.profile import dump
    from .watching import loaded

    click.echo(dump(merged([(name, loaded(_named(name))) for name in profiles])), nl=False)


@command.command("diff")
@click.argument("first", metavar="PROFILE")
@click.argument("second", metavar="PROFILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(first: str, second: str, as_json: bool) -> None:
    """Say which calls only one of two profiles allows. Exits with 1 if there are such."""
    import msgspec

    from ..jail.seccomp.algebra import difference
    from .watching import here, loaded

    found = difference(loaded(_named(first)), loaded(_named(second)), here())
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        for label, names in (
            (f"only {first} allows", found.only_first),
            (f"only {second} allows", found.only_second),
            ("under other conditions", found.conditions),
        ):
            if names:
                click.echo(f"{label}: {' '.join(names)}")
        if found.default:
            click.echo(
                f"other calls: {found.default[0]} by {first}, {found.default[1]} by {second}"
            )
    same = not (found.only_first or found.only_second or found.conditions or found.default)
    sys.exit(0 if same else 1)


@command.command("explain")
@click.argument("profile", metavar="PROFILE")
@click.argument("calls", nargs=-1, metavar="[CALL]...")
def explain(profile: str, calls: tuple[str, ...]) -> None:
    """Say what a profile does about calls; without any, about all that it names."""
    from ..jail.seccomp.algebra import describe
    from ..jail.seccomp.algebra import explain as explained
    from ..jail.seccomp.table import table
    from ..spec.text import printable
    from .watching import here, loaded

    where = table(loaded(_named(profile)), here())
    names = calls or tuple(dict.fromkeys(sorted(entry.name for entry in where.entries)))
    for name in names:
        for line in explained(where, name):
            click.echo(f"{printable(name, 60)}: {line}")
    if not calls:
        click.echo(f"every other call: {describe(where.default)}")


def _named(profile: str) -> str:
    """`default` as it is, a file's path in full."""
    return profile if profile in ("default", "none") else os.path.abspath(profile)  # noqa: PTH100
