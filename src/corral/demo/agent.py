"""The demonstration's agent: this file runs in the sandbox. Standard library only.

    python3 agent.py "Fix the failing test."

A loop as every coding agent has it: it asks a model over Anthropic's Messages API, carries out the
commands that the model calls for, and sends back what they said, until the model calls for none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from typing import Any

MAX_TURNS = 40
MAX_OUTPUT = 20_000  # characters of one command's output that are sent back
COMMAND_SECONDS = 60
TOOL = {
    "name": "Bash",
    "description": "Runs a command with bash, and says what it printed.",
    "input_schema": {
        "type": "object",
        "properties": {"command": {"type": "string"}},
        "required": ["command"],
    },
}


def ask(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One request to the model: the blocks of its answer."""
    body = {
        "model": "claude-opus-5",
        "max_tokens": 4096,
        "system": "You are a coding agent.",
        "tools": [TOOL],
        "messages": messages,
    }
    request = urllib.request.Request(  # noqa: S310 # the address of its model
        os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages",
        json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "anthropic-version": "2023-06-01",
            "x-api-key": os.environ["ANTHROPIC_API_KEY"],
        },
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
        content: list[dict[str, Any]] = json.load(answer)["content"]
        return content


def carried_out(command: str) -> str:
    """What a command printed, errors too."""
    try:
        done = subprocess.run(  # noqa: S602 # what agents do
            command,
            shell=True,
            executable="/bin/bash",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"still running after {COMMAND_SECONDS} s, and ended"
    return done.stdout.decode(errors="replace")[:MAX_OUTPUT]


def work(prompt: str) -> None:
    """Ask, carry out, answer, until nothing is called for any more."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    for _turn in range(MAX_TURNS):
        content = ask(messages)
        messages.append({"role": "assistant", "content": content})
        for block in content:
            if block["type"] == "text":
                print(block["text"], flush=True)
        calls = [block for block in content if block["type"] == "tool_use"]
        if not calls:
            return
        results = [
            {
                "type": "tool_result",
                "tool_use_id": call["id"],
                "content": carried_out(call["input"]["command"]),
            }
            for call in calls
        ]
        messages.append({"role": "user", "content": results})


if __name__ == "__main__":
    work(sys.argv[1])
