"""Model servers that say what a script says, for tests, `corral agent check` and `corral demo`.

    async with Models() as models:
        models.script = (Reply(tools=(("Bash", {"command": "true"}),)), Reply(text="Done."))
        ... an agent whose model is at models.url ...
        assert models.seen[0].headers["x-api-key"] == "..."

They speak Anthropic's Messages, OpenAI's chat completions and responses, streamed and not, the
counting of tokens and the list of models. Nothing is thought: each request is answered with what
was laid ready. As a program, `python -m corral.scripted`.
"""

from __future__ import annotations

from .model import Pace, Reply, Seen
from .server import Models

__all__ = ["Models", "Pace", "Reply", "Seen"]
