"""The command line: one file a verb, which parses, calls, prints and exits.

A verb's module is imported only when it is used: importing costs every start of `corral run`.
"""

from __future__ import annotations

# verb: (module here, what `corral --help` says)
VERBS = {
    "run": ("run", "Run a command in a new sandbox on the current folder."),
    "doctor": ("doctor", "Show what this host gives, what is missing, how to get it."),
    "config": ("config", "Write, show and describe the configuration."),
    "trust": ("trust", "Accept this project's corral.toml as it is now."),
    "gc": ("gc", "Clear caches and anything left behind."),
    "completion": ("completion", "Print a script that completes corral's words in your shell."),
}
