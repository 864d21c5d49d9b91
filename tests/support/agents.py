"""A small agent of the tests' own: its program, its recipe, a user who has both."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

PROGRAM = dedent('''\
    #!/usr/bin/python3 -I
    """asker [-p PROMPT]: asks its model, calls `shell` when told to, keeps a history."""
    import json, os, subprocess, sys, urllib.request

    def ask(messages):
        body = {"model": "claude-opus-5", "max_tokens": 64, "messages": messages,
                "tools": [{"name": "shell", "input_schema": {"type": "object"}}]}
        request = urllib.request.Request(
            os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", json.dumps(body).encode(),
            {"content-type": "application/json", "x-api-key": os.environ["ANTHROPIC_API_KEY"],
             "anthropic-version": "2023-06-01"})
        return json.load(urllib.request.urlopen(request, timeout=60))

    if sys.argv[1:] == ["--version"]:
        sys.exit(print("asker 1.0") or 0)
    history = os.path.expanduser("~/.asker/history")
    with open(history, "a+") as file:
        file.write(" ".join(sys.argv[1:]) + "\\n")
        file.seek(0)
        print(json.dumps({"type": "system", "runs": len(file.readlines())}))
    messages = [{"role": "user", "content": sys.argv[-1]}]
    while True:
        message = ask(messages)
        print(json.dumps({"type": "assistant", "message": message}), flush=True)
        calls = [part for part in message["content"] if part["type"] == "tool_use"]
        if not calls:
            break
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": subprocess.run(
            call["input"]["command"], shell=True, capture_output=True, text=True).stdout}
            for call in calls]
        messages += [{"role": "assistant", "content": message["content"]},
                     {"role": "user", "content": results}]
    print(json.dumps({"type": "result", "subtype": "success", "is_error": False, "result": "ok"}))
    ''')

RECIPE = dedent("""\
    summary = "An agent for tests"
    program = "asker"
    interactive = ["asker"]
    headless = ["asker", "-p", "{prompt}"]
    output = "claude-stream-json"
    gateways = ["anthropic"]
    state = ["~/.asker"]

    [env]
    ASKER_HOME = "~/.asker"

    [files]
    "~/.asker/settings.json" = '{"theme": "dark"}'

    [import]
    copy = ["~/.asker/settings.json", "~/.asker/commands/**"]
    leave = ["~/.asker/commands/private/**"]

    [check]
    tool = "shell"
    arguments = { command = "echo checked > corral-check.txt" }
    """)


def give_agent(home: Path, config: Path, recipe: str = RECIPE) -> None:
    """The user with this home has the program and, in this configuration folder, its recipe."""
    program = home / "tools" / "bin" / "asker"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    (config / "agents").mkdir(parents=True, exist_ok=True)
    (config / "agents" / "asker.toml").write_text(recipe)
