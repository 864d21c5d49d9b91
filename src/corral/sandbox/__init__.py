"""One running sandbox: its start, its commands, its end."""

from .execution import Execution
from .parts import Parts, prepare
from .run_folder import sweep
from .sandbox import Sandbox
from .start import start

__all__ = ["Execution", "Parts", "Sandbox", "prepare", "start", "sweep"]
