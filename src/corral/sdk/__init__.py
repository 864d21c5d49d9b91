"""The Python SDK: sandboxes from a program. `from corral import Sandbox` leads here.

Written once, for asyncio (`AsyncSandbox`); `Sandbox` runs the same on a thread of its own.
"""

from ..sandbox.files import Copied, FileInfo, Files
from .blocking import BlockingFiles, Lines, Process, Sandbox
from .options import Options, Spec
from .process import AsyncLines, AsyncProcess, Result
from .sandbox import AsyncSandbox

__all__ = [
    "AsyncLines",
    "AsyncProcess",
    "AsyncSandbox",
    "BlockingFiles",
    "Copied",
    "FileInfo",
    "Files",
    "Lines",
    "Options",
    "Process",
    "Result",
    "Sandbox",
    "Spec",
]
