"""The command line: one file a verb, which parses, calls, prints and exits.

A verb's module is imported only when it is used: importing costs every start of `corral run`.
"""

from __future__ import annotations

# verb: (module here, what `corral --help` says)
VERBS = {
    "run": ("run", "Run a command in a new sandbox on the current folder."),
    "agent": ("agent", "List, check, install and update the agents that corral knows."),
    "up": ("up", "Start a sandbox on the current folder, and keep it."),
    "exec": ("exec", "Run a command in a sandbox that is kept."),
    "shell": ("shell", "Open a shell in a sandbox that is kept."),
    "attach": ("attaching", "Open a terminal of an agent that stays when you leave it."),
    "tmux": ("tmux", "Show all agents of a sandbox side by side."),
    "replay": ("replay", "Play a recording of an agent's terminal."),
    "task": ("task", "Give an agent of a sandbox a task."),
    "diff": ("diff", "Show what a sandbox under review has changed."),
    "apply": ("apply", "Apply changes of a sandbox under review to your folder."),
    "discard": ("discard", "Throw changes of a sandbox under review away."),
    "jail": ("jail", "Run a trusted command in a jail on this machine."),
    "seccomp": ("seccomp", "Record, compare and try profiles of system calls."),
    "cp": ("cp", "Copy files between a kept sandbox and this machine."),
    "port": ("port", "Publish ports of a kept sandbox on this machine."),
    "ps": ("ps", "List the sandboxes that are kept."),
    "inspect": ("inspect", "Print all that is known of a sandbox, as JSON."),
    "logs": ("logs", "Show what happened in a sandbox."),
    "events": ("events", "Print what happened in sandboxes, as JSON lines."),
    "agents": ("agents", "Show how the agents of a sandbox are."),
    "stats": ("stats", "Show what sandboxes use of this machine."),
    "transcript": ("transcript", "Show what agents and their models said."),
    "net": ("net", "Show what a sandbox reached on the network, may reach, and needs."),
    "wait": ("wait", "Wait until a sandbox has ended."),
    "pause": ("pause", "Halt a sandbox; its memory stays."),
    "resume": ("resume", "Let a paused sandbox go on."),
    "checkpoint": ("checkpoint", "Keep a sandbox as it is now, to go back to."),
    "restore": ("restore", "Go back to a checkpoint."),
    "fork": ("fork", "Make copies of a sandbox that go on from where it is."),
    "stop": ("stop", "Stop a sandbox; it can be started again."),
    "start": ("start", "Start a stopped sandbox again."),
    "restart": ("restart", "Stop a sandbox and start it again."),
    "rm": ("rm", "Remove sandboxes that are kept."),
    "unit": ("unit", "Print a systemd unit for a sandbox that is kept."),
    "verify": ("verify", "Attack a sandbox on this host, and say what held."),
    "demo": ("demo", "Show an agent at work in a machine, and what it cannot do there"),
    "doctor": ("doctor", "Show what this host gives, what is missing, how to get it."),
    "config": ("config", "Write, show and describe the configuration."),
    "trust": ("trust", "Accept this project's corral.toml as it is now."),
    "template": ("template", "List, build and prune the saved machines that sandboxes restore."),
    "gc": ("gc", "Clear caches and anything left behind."),
    "completion": ("completion", "Print a script that completes corral's words in your shell."),
}
