"""Terminals of agents: what a program writes is taken apart here, and never passed on as it is.

    Emulator.feed(bytes)      what may be shown of it, and what the program is answered
    Screen                    the screen as it is now: as text, or drawn anew for who joins
    cast                      recordings (asciicast v2): written as things happen, read to be played

No module here talks to a terminal or to a sandbox.
"""

MAIN = "main"  # the session of an agent that is meant when none is named
SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash; exec sh")
