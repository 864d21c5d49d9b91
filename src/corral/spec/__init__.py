"""What is wanted: configuration files, variables and options, merged, checked and frozen.

    spec = load_spec(Path.cwd(), {"machine.cpus": "2"}, os.environ)

See layers.py for the order of layers and the keys of the command line's values, trust.py for
what a project's own file may say, and model.py for the Spec.
"""

from __future__ import annotations

from .herd import SHARED, WORKSPACE
from .load import Extra, Loaded, Project, collect, load_spec, refuse_untrusted
from .masks import matcher as mask_matcher
from .model import (
    MAX_AGENTS,
    PROTECTED,
    Action,
    AgentSpec,
    Limits,
    Machine,
    Restart,
    Run,
    Share,
    Spec,
    Workspace,
    WorkspaceMode,
)
from .settings import SETTINGS, VARIABLES
from .sizes import (
    format_duration,
    format_size,
    parse_cpus,
    parse_disk,
    parse_duration,
    parse_memory,
)
from .tools import missing_program_hint

__all__ = [
    "MAX_AGENTS",
    "PROTECTED",
    "SETTINGS",
    "SHARED",
    "VARIABLES",
    "WORKSPACE",
    "Action",
    "AgentSpec",
    "Extra",
    "Limits",
    "Loaded",
    "Machine",
    "Project",
    "Restart",
    "Run",
    "Share",
    "Spec",
    "Workspace",
    "WorkspaceMode",
    "collect",
    "format_duration",
    "format_size",
    "load_spec",
    "mask_matcher",
    "missing_program_hint",
    "parse_cpus",
    "parse_disk",
    "parse_duration",
    "parse_memory",
    "refuse_untrusted",
]
