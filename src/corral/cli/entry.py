"""The entry point: finds the verb, shows errors, sets the exit status."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import click

from .. import __version__
from ..errors import CorralError
from . import VERBS, output

INTERRUPTED = 130  # 128 + SIGINT
NOBODY_READS = 141  # 128 + SIGPIPE
DEBUG = "corral.debug"  # in a context's meta: whether --debug was given
DEBUG_VARIABLE = "CORRAL_DEBUG"  # set and not empty, it shows tracebacks of every verb

EXAMPLES = """\b
Examples:
  corral run -- make test              run a command on this folder
  corral run -t bash                   look around inside
  corral run --share ~/data --memory 8g -- python train.py
  corral doctor                        what this machine can give
"""


class Verbs(click.Group):
    """The verbs of VERBS, each imported when it is called. called: the one that was, once it is."""

    called: str | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb, or None when there is none of that name."""
        if name not in VERBS:
            return None
        module = importlib.import_module(f".{VERBS[name][0]}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of verbs, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_module, text) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb for one that is misspelt."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, 1)
            hint = f" Did you mean “{near[0]}”?" if near else ""
            ctx.fail(f"There is no command “{args[0]}”.{hint}")
        name, command, rest = super().resolve_command(ctx, args)
        self.called = name
        return name, command, rest

    def invoke(self, ctx: click.Context) -> object:
        """As click does; what else goes wrong is a fault in corral, and told as such."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output is gone: nothing more to say, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(NOBODY_READS) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort, CorralError):
            raise
        except Exception as error:
            if ctx.meta.get(DEBUG) or os.environ.get(DEBUG_VARIABLE):
                raise
            raise CorralError(
                f"internal error: {type(error).__name__}: {error}",
                hint="This is a fault in corral. Run it again with "
                f"{DEBUG_VARIABLE}=1 in the environment, and report what that prints.",
            ) from error


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXAMPLES,
)
@click.version_option(__version__, message="%(prog)s %(version)s", prog_name="corral")
def cli() -> None:
    """Run coding agents, or any command, in a confined virtual machine."""


def main() -> NoReturn:
    """Run the command line; never returns."""
    _open_standard_streams()
    output.guard()
    try:
        status = cli.main(prog_name="corral", standalone_mode=False)
    except click.exceptions.Exit as stop:
        status = stop.exit_code
    except click.Abort:
        status = INTERRUPTED
    except click.UsageError as error:
        _say(error.show)
        # What is wrong about these must not look like the status of the command it was to run.
        of_a_command = cli.called in ("run", "exec", "shell", "attach", "jail")
        status = CorralError.exit_status if of_a_command else error.exit_code
    except click.ClickException as error:
        _say(error.show)
        status = error.exit_code
    except CorralError as error:
        _say(show, error)
        status = error.exit_status
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def _open_standard_streams() -> None:
    """Open what the caller has closed (`corral ... <&-`): its number must not become a socket's."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _say(say: Callable[..., None], *what: CorralError) -> None:
    """Where standard error cannot be written the status has to do, now and at exit."""
    try:
        say(*what)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def show(error: CorralError) -> None:
    """Print an error on standard error: what happened, the evidence, what to do next."""
    from ..spec.text import harmless

    bold = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    mark = "\x1b[1;31merror:\x1b[0m" if bold else "error:"
    # Parts of a message may be a guest's words: what follows a newline must not look like ours.
    lines = [error.message.replace("\n", "\n  | ")]
    if error.detail:
        lines += [f"  | {line}" for line in error.detail.splitlines()]
    if error.hint:
        lines.append(f"  {error.hint}")
    print(f"corral: {mark} {harmless(chr(10).join(lines))}", file=sys.stderr, flush=True)
