"""JSON Schema of tasks and messages, for orchestrators."""

from __future__ import annotations

from typing import Any

import msgspec

from .model import (
    CancelMessage,
    ExecuteCode,
    Heartbeat,
    Llm,
    Named,
    Prompt,
    Result,
    Run,
    TaskMessage,
    Transcript,
)

TASKS = (ExecuteCode, Run, Prompt, Named)
INCOMING = (TaskMessage, CancelMessage)
OUTGOING = (Result, Heartbeat, Transcript, Llm)


def json_schema() -> dict[str, Any]:
    """The schema of a line (JSON Schema 2020-12), made from the model itself."""
    _roots, parts = msgspec.json.schema_components(
        [*TASKS, *INCOMING, *OUTGOING], ref_template="#/$defs/{name}"
    )
    parts["TaskMessage"]["properties"]["task"] = {"anyOf": _refs(TASKS)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "corral task",
        "description": "A line of standard input (Incoming) or output (Outgoing); a bare task is "
        "a task message without an id.",
        "anyOf": [*_refs(INCOMING), *_refs(TASKS), *_refs(OUTGOING)],
        "$defs": parts,
    }


def _refs(kinds: tuple[type[msgspec.Struct], ...]) -> list[dict[str, str]]:
    return [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds]
