"""Tasks: pieces of work for agents, given, queued, run, answered (docs/tasks.md).

parse.task({"action": "run", "argv": ["make"]})     what is wanted, checked
commands.command(task, place, ...)                  what to run for it
Tasks(...).submit(task, agent=2)                    queued; one at a time for each agent
"""

from __future__ import annotations

from .model import (
    ExecuteCode,
    Named,
    Prompt,
    Result,
    Run,
    Status,
    Summary,
    Task,
)
from .parse import line, task
from .queue import Tasks

__all__ = [
    "ExecuteCode",
    "Named",
    "Prompt",
    "Result",
    "Run",
    "Status",
    "Summary",
    "Task",
    "Tasks",
    "line",
    "task",
]
