"""`corral gc`: clear caches and anything left behind."""

from __future__ import annotations

import click

EPILOG = """\b
Examples:
  corral gc --dry-run    what would go, and how much that is
  corral gc              remove it
"""


@click.command("gc", epilog=EPILOG)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(dry_run: bool, as_json: bool) -> None:
    """Remove abandoned run folders, kept logs, and everything in the cache folder.

    And what a command that was killed has left of a sandbox: half a copy of a workspace, a memory
    that copies were to go on from. No command shows that.

    What running sandboxes use stays usable: they hold their files open, and the programs of agents
    that they use are left. The next start builds anew what it needs; guest kernels and tools are
    downloaded again.
    """
    from .. import paths
    from ..agents import images
    from ..images.locks import LOCKS, clear_cache
    from ..keeper import leftovers
    from ..sandbox import sweep

    # Programs of agents that sandboxes use are opened by name, again and again: those stay.
    cleared = images.prune(dry_run=dry_run, keep=_tools_of_kept())
    keep = {images.images_folder().name, LOCKS}
    cleared += clear_cache(paths.cache_dir(), dry_run=dry_run, keep=keep)
    folders = [str(path) for path in sweep(kept=True, dry_run=dry_run)]
    left = [str(path) for path in leftovers.clear(dry_run=dry_run)]
    if as_json:
        import json

        answer = {
            "run_folders": folders,
            "left_behind": left,
            "cache_bytes": cleared,
            "dry_run": dry_run,
        }
        click.echo(json.dumps(answer))
        return
    freed, removed = ("would free", "would remove") if dry_run else ("freed", "removed")
    click.echo(f"{freed} {cleared / 1e6:.1f} MB in {paths.cache_dir()}")
    for folder in folders:
        click.echo(f"{removed} {folder}, left behind by a sandbox that is gone")
    for folder in left:
        click.echo(f"{removed} {folder}, left behind by a command that was ended")


def _tools_of_kept() -> set[str]:
    """Folders of programs of all sandboxes that are kept, running or not."""
    from ..errors import HostError
    from ..keeper.store import Record, names

    found: set[str] = set()
    for name in names():
        try:
            spec = Record(name).request().spec
        except HostError:  # of another version of corral: it cannot be started either
            continue
        found |= {*spec.run.tools, *(tool for agent in spec.agents for tool in agent.tools)}
    return found
