"""corral runs coding agents in confined virtual machines.

    from corral import Sandbox

    with Sandbox(workspace=".") as box:
        print(box.exec(["uname", "-a"]).stdout)

`AsyncSandbox` is the same for asyncio. The errors are in `corral.errors`; docs/sdk.md has the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sdk import AsyncSandbox, Result, Sandbox, Spec

__version__ = "0.1.0"
__all__ = ["AsyncSandbox", "Result", "Sandbox", "Spec", "__version__"]

_LAZY = frozenset(("AsyncSandbox", "Result", "Sandbox", "Spec"))


def __getattr__(name: str) -> object:
    """Load the SDK, and asyncio with it, only when it is asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import sdk

    return getattr(sdk, name)


def __dir__() -> list[str]:
    return sorted((*globals(), *_LAZY))
