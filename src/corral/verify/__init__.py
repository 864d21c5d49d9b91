"""`corral verify`: the threat model, executable. Probes attack a sandbox on the user's own host.

See docs/verify.md; docs/threat-model.md names the probes of each guarantee.
"""

from .guarantees import GUARANTEES
from .model import Guarantee, Probe, Result, Verdict, by_guarantee, exit_status, worst
from .registry import all_probes, select
from .run import Wanted, verify

__all__ = [
    "GUARANTEES",
    "Guarantee",
    "Probe",
    "Result",
    "Verdict",
    "Wanted",
    "all_probes",
    "by_guarantee",
    "exit_status",
    "select",
    "verify",
    "worst",
]
