"""`corral template`: the saved machines that sandboxes start from."""

from __future__ import annotations

import os
from typing import Any

import click

from .herd_options import herd_options
from .options import current_folder, sandbox_options, wanted

EPILOG = """\b
Examples:
  corral template list
  corral template build --memory 8g    before it is needed, as in a machine's image
  corral template prune                the least recently used, down to 2 GiB
  corral template prune --all
"""


@click.group("template", epilog=EPILOG)
def command() -> None:
    """List, build and prune templates: machines that were booted once and saved.

    A sandbox starts by restoring one that fits it. The first start of a shape makes it; nothing
    of a project or a user is in it.
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(as_json: bool) -> None:
    """Show every template, the one used last first."""
    import dataclasses
    import datetime
    import json

    from ..templates import entries

    found = entries()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in found], indent=2))
        return
    if not found:
        click.echo("There is no template yet; the first sandbox makes one.")
        return
    click.echo(f"{'KEY':<14}{'SIZE':>9}  {'LAST USED':<18}MACHINE")
    for entry in found:
        used = datetime.datetime.fromtimestamp(entry.used).astimezone()
        when = f"{used:%Y-%m-%d %H:%M}" if entry.used else "-"
        machine = entry.summary if entry.usable else "damaged; removed by the next prune"
        click.echo(f"{entry.key[:12]:<14}{entry.size / 1e6:>6.0f} MB  {when:<18}{machine}")


@command.command("build")
@herd_options
@sandbox_options
def build(**options: Any) -> None:
    """Make the template for a sandbox on the current folder, unless it is there.

    Takes the options of `corral run`; those that shape the machine matter.
    """
    import asyncio

    from ..sandbox import host_facts, make_plan, prepare, template_for
    from .progress import Progress
    from .session import wanted_spec

    choice, environ, progress = wanted(options), dict(os.environ), Progress()
    try:
        spec = wanted_spec(choice, current_folder(), environ, progress)
        facts = host_facts(progress, assume_yes=choice.assume_yes)
        plan = make_plan(spec, facts, environ)
        parts = prepare(plan, facts, progress)
        template = asyncio.run(template_for(plan, parts, progress))
    finally:
        progress.stop()
    if template is None:
        click.echo("This sandbox is booted: there is no template for it.")
    else:
        template.close()
        click.echo(f"{template.key[:12]} is ready.")


@command.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove every template.")
@click.option("--keep", metavar="SIZE", default="2g", help="How much to keep; default: 2g.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prune_templates(everything: bool, keep: str, dry_run: bool, as_json: bool) -> None:
    """Remove damaged templates and the least recently used.

    Sandboxes that were started from them go on; the next start makes a new one.
    """
    import dataclasses
    import json

    from ..spec.sizes import parse_disk
    from ..templates import prune

    removed = prune(0 if everything else parse_disk(keep), dry_run=dry_run)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in removed], indent=2))
        return
    done = "would remove" if dry_run else "removed"
    for entry in removed:
        click.echo(f"{done} {entry.key[:12]} ({entry.summary})")
    freed = sum(entry.size for entry in removed)
    click.echo(f"{'would free' if dry_run else 'freed'} {freed / 1e6:.0f} MB")
