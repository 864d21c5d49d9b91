"""python -m corral.intercept LISTEN SETUP VALUES WORDS: descriptors, see `process.main`."""

from __future__ import annotations

import sys

from .process import main

if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:5])))
