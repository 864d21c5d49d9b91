"""`corral net learn`: from what was reached to a list of what to allow."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ..errors import CorralError
from ..paths import log_dir
from ..policy.learn import Proposal, Reached, propose
from ..sandbox.network import JOURNAL
from ..spec import load_spec
from ..spec.files import CONFIG_NAME, read_config, write_atomically
from ..spec.text import printable, toml_string
from .connections import amount, events_of
from .options import Wanted

WARNING = (
    "corral: learning: this command may reach every public host, and everything that it does "
    "there is recorded."
)
PORTS = (22, 80, 443)  # what a list is learned for, unless ports are given


def widened(wanted: Wanted) -> Wanted:
    """The same, with the public internet allowed."""
    overrides = {"network.ports": list(PORTS), **wanted.overrides, "network.mode": "internet"}
    return dataclasses.replace(wanted, overrides=overrides)


def show(wanted: Wanted, folder: Path, began: float, *, as_json: bool, write: bool) -> None:
    """Print the proposal for what was logged since `began` (seconds since 1970)."""
    spec = load_spec(
        folder, wanted.overrides, os.environ, config_file=wanted.config_file, force=wanted.force
    )
    path = log_dir(spec.name) / JOURNAL
    proposal = propose(reached([each for each in events_of(path) if _since(each, began)]))
    if as_json:
        click.echo(msgspec.json.encode(proposal).decode())
    else:
        click.echo(text_of(proposal), err=True)
    if write and proposal.allow:
        target = folder / CONFIG_NAME
        _write(target, proposal)
        click.echo(f"Wrote {printable(str(target))}; accept it with: corral trust", err=True)


def _since(event: dict[str, Any], began: float) -> bool:
    return float(event.get("time", 0)) >= began


def reached(events: Sequence[dict[str, Any]]) -> list[Reached]:
    """What the events of a log say was tried; each connection once."""
    found = []
    for event in events:
        verdict = event.get("verdict")
        if event.get("event") != "connection" or (verdict == "allowed" and _is_open(event)):
            continue  # its end says the same and how much
        if event.get("rule") == "gateway":
            continue
        found.append(
            Reached(
                name=str(event.get("name")),
                port=int(event.get("port", 0)),
                denied=verdict == "denied",
                reason=str(event.get("reason", "")),
                size=int(event.get("sent", 0)) + int(event.get("received", 0)),
            )
        )
    return found


def _is_open(event: dict[str, Any]) -> bool:
    return event.get("seconds") is None


def text_of(proposal: Proposal) -> str:
    """The proposal as a person reads it, which is TOML."""
    if not proposal.allow:
        lines = ["# It reached no host: no list is needed."]
    else:
        lines = ["# What this command reached:", *toml_of(proposal).splitlines()]
    for text, why in proposal.left_out:
        lines.append(f"# refused and not on the list: {text} ({why})")
    if proposal.allow:
        options = " ".join(f"--allow {each.rule}" for each in proposal.allow)
        lines.append(f"# The same as options: {options}")
    return "\n".join(printable(line, 1000) for line in lines)


def toml_of(proposal: Proposal) -> str:
    """The [network] table for a corral.toml."""
    lines = ["[network]", "allow = ["]
    for each in proposal.allow:
        times = "1 connection" if each.count == 1 else f"{each.count} connections"
        note = f"{times}, {amount(each.size)}"
        if each.covers != (each.rule,):
            note = f"{', '.join(each.covers)}: {note}"
        lines.append(f"  {toml_string(each.rule)},  # {note}")
    return "\n".join([*lines, "]", ""])


def _write(target: Path, proposal: Proposal) -> None:
    import tomllib

    try:
        # What ran could have put anything there: a link to a file of yours, a pipe.
        text = (read_config(target, follow=False) or b"").decode()
        if "network" in tomllib.loads(text):
            raise CorralError(
                f"{printable(str(target))} has a table [network] already.",
                hint="Put the entries of the list above into it.",
            )
        joined = f"{text.rstrip()}\n\n{toml_of(proposal)}" if text.strip() else toml_of(proposal)
        tomllib.loads(joined)
        write_atomically(target, joined.encode(), mode=0o644)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CorralError(f"{printable(str(target))} cannot be written: {error}.") from error
