"""python -m corral.gateway.intercept: started by corral, with its descriptors in place."""

from __future__ import annotations

import sys

from ..descriptors import CONFIG_FD, FIRST_LISTENER, KEYS_FD, TELL_FD
from .process import main

if __name__ == "__main__":
    sys.exit(main(CONFIG_FD, KEYS_FD, TELL_FD, FIRST_LISTENER))
