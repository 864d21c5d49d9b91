"""The Python SDK: sandboxes from a program. `from corral import Sandbox` leads here.

Written once, for asyncio (`AsyncSandbox`); `Sandbox` runs the same on a thread of its own.
"""

from ..sandbox.agents import AgentStatus
from ..sandbox.files import Copied, FileInfo, Files
from ..tasks.model import Result as TaskResult
from .blocking import BlockingFiles, BlockingPorts, BlockingReview, Lines, Process, Sandbox
from .options import Options, Spec
from .ports import Port, Ports
from .process import AsyncLines, AsyncProcess, Result
from .review import Change, Review
from .sandbox import AsyncSandbox

__all__ = [
    "AgentStatus",
    "AsyncLines",
    "AsyncProcess",
    "AsyncSandbox",
    "BlockingFiles",
    "BlockingPorts",
    "BlockingReview",
    "Change",
    "Copied",
    "FileInfo",
    "Files",
    "Lines",
    "Options",
    "Port",
    "Ports",
    "Process",
    "Result",
    "Review",
    "Sandbox",
    "Spec",
    "TaskResult",
]
