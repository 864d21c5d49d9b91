"""One running sandbox: its plan, its start, its commands, its end."""

from ..channel import Execution
from .agents import AgentStatus
from .parts import Parts, prepare
from .planning import host_facts, make_plan
from .run_folder import sweep
from .sandbox import Sandbox
from .start import start
from .template import template_for
from .usage import Usage

__all__ = [
    "AgentStatus",
    "Execution",
    "Parts",
    "Sandbox",
    "Usage",
    "host_facts",
    "make_plan",
    "prepare",
    "start",
    "sweep",
    "template_for",
]
