"""The keys, in the one process that has them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import sha256

import msgspec

from .dialects import Refusal
from .found import Found
from .redact import Secrets

WAIT = 120.0  # seconds that a request waits for a key; a password manager may ask its user
_EARLY = 120.0  # seconds before its end at which the next key is asked for
_PATIENCE = 10.0  # seconds between two questions for the same key
_FORMER = 8  # keys that are still looked for in answers after they were replaced
_MAX_LINE = 1 << 18

Ask = Callable[[dict[str, str]], None]


class Keys:
    """Keys by the name of their gateway, as they come in by the pipe.

    ask: has keys found again; name -> SHA-256 of the one that does not work, or "".
    """

    def __init__(self, names: Iterable[str], ask: Ask, tell: Callable[[str], None]) -> None:
        self._ask = ask
        self._tell = tell
        self._found: dict[str, Found] = {}
        self._asked: dict[str, float] = {}
        self._came = {name: asyncio.Event() for name in names}
        self._former: deque[str] = deque(maxlen=_FORMER)
        self.secrets = Secrets(())

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take what comes, until there is no more."""
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # it was cut off in the middle of another, say
                continue
            if not line:
                return
            try:
                self.take(msgspec.json.decode(line, type=Found))
            except msgspec.MsgspecError:
                continue

    def take(self, found: Found) -> None:
        """A key, or why there is none, for who waits."""
        if found.name not in self._came:
            return
        before = self._found.get(found.name)
        if before is not None and before.key is not None and before.key != found.key:
            self._former.append(before.key)
        if found.key is None and (before is None or before.problem != found.problem):
            self._tell(f"{found.name}: {found.problem}")
        if found.key is None and before is not None and before.key is not None and _holds(before):
            return  # the old one is better than none
        self._found[found.name] = found
        keys = [each.key for each in self._found.values() if each.key is not None]
        self.secrets = Secrets((*keys, *self._former))
        came, self._came[found.name] = self._came[found.name], asyncio.Event()
        came.set()

    async def get(self, name: str) -> Found:
        """The key of a gateway, asked for anew when it is about to end. Raises Refusal."""
        found = self._found.get(name)
        if found is not None and found.expires is not None:
            left = found.expires - time.time()
            if left < _EARLY:
                self._ask_for(name, "")
            if left <= 0:
                found = await self._next(name)
        elif found is not None and found.key is None:
            self._ask_for(name, "")  # it may be there by now
        if found is None:
            found = await self._next(name)
        if found.key is None:
            text = f"the key of the gateway {name} cannot be had: {found.problem}"
            raise Refusal(401, text, code="invalid_api_key")
        return found

    async def another(self, name: str, rejected: str) -> Found | None:
        """A key in place of one that was refused, if there is one."""
        found = self._found.get(name)
        if found is not None and found.key is not None and found.key != rejected:
            return found
        if not self._ask_for(name, sha256(rejected.encode()).hexdigest()):
            return None
        try:
            found = await self._next(name)
        except Refusal:
            return None
        return found if found.key not in (None, rejected) else None

    def _ask_for(self, name: str, rejected: str) -> bool:
        now = time.monotonic()
        if now - self._asked.get(name, -_PATIENCE) < _PATIENCE:
            return False
        self._asked[name] = now
        self._ask({name: rejected})
        return True

    async def _next(self, name: str) -> Found:
        try:
            async with asyncio.timeout(WAIT):
                await self._came[name].wait()
        except TimeoutError:
            text = f"the key of the gateway {name} is still looked for."
            raise Refusal(503, text, retry_after=5.0) from None
        return self._found[name]


def _holds(found: Found) -> bool:
    return found.expires is None or found.expires > time.time()
