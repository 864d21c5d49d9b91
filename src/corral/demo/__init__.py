"""A demonstration: an agent in a machine works, tries to break out, and what it could is told.

No account is needed: its model is scripted (corral.scripted). What the agent is told to do is the
script's; what came of it is computed from what the agent sent back to its model, from the logs of
gateway and network, and from what is on the host.
"""

from __future__ import annotations

from .model import Attempt, Judged, Outcome, Step, Work
from .run import Wanted, demonstrate

__all__ = ["Attempt", "Judged", "Outcome", "Step", "Wanted", "Work", "demonstrate"]
