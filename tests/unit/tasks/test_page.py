"""docs/tasks.md has the schema and the examples as they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.tasks import model, summary
from corral.tasks.commands import LANGUAGES
from corral.tasks.model import Result, TaskMessage
from corral.tasks.parse import line, task
from corral.tasks.schema import json_schema

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "tasks.md").read_text()


def test_the_schema_on_the_page_is_the_models() -> None:
    """`corral task schema > docs/tasks.schema.json` after a change."""
    assert json.loads((DOCS / "tasks.schema.json").read_text()) == json.loads(
        json.dumps(json_schema())
    )


def test_the_schema_refuses_keys_that_are_not_known() -> None:
    parts: Any = json_schema()["$defs"]
    for name in ("Run", "ExecuteCode", "Prompt", "Named", "TaskMessage", "CancelMessage"):
        assert parts[name]["additionalProperties"] is False
    assert parts["Run"]["properties"]["action"] == {"enum": ["run"]}


@pytest.mark.parametrize("text", re.findall(r"^(\{.*[^.]\})$", PAGE, re.MULTILINE))
def test_a_line_on_the_page_is_understood(text: str) -> None:
    message = line(text)
    if isinstance(message, TaskMessage):
        task(message.task)


def test_the_page_names_what_there_is() -> None:
    for language in LANGUAGES:
        assert f"`{language}`" in PAGE
    for status in msgspec.inspect.type_info(summary.Status).values:  # type: ignore[attr-defined]
        assert f"`{status}`" in PAGE
    for key in Result.__struct_fields__:
        key = key.replace("stderr_", "stdout_")
        assert f"`{key}`" in PAGE or key in ("id", "agent", "action"), key
    assert f"{model.MAX_OUTPUT >> 10} KiB" in PAGE
    assert f"{model.MAX_TEXT >> 10} KiB" in PAGE and f"{model.MAX_TASK >> 10} KiB" in PAGE
