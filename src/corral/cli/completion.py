"""`corral completion SHELL`: a script that completes corral's words."""

from __future__ import annotations

import click

EPILOG = """\b
Examples:
  eval "$(corral completion bash)"                              in ~/.bashrc
  corral completion zsh > ~/.zfunc/_corral
  corral completion fish > ~/.config/fish/completions/corral.fish
"""


@click.command("completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that completes corral's words in SHELL."""
    from click.shell_completion import get_completion_class

    from .entry import cli

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(cli, {}, "corral", "_CORRAL_COMPLETE").source())
