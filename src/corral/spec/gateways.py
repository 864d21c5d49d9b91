"""[gateway.NAME] and [secrets.NAME] of the user's own file, and the gateways that need no table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType

from ..errors import ConfigError
from ..policy import ANTHROPIC, OPENAI, Dialect, Gateway, Key, Secret
from .keys import env_key, parse_key
from .network_settings import (
    check_secret_name,
    parse_gateway,
    parse_secret_hosts,
    secret_host,
)
from .tables.keys import GatewayTable, SecretTable
from .text import has_control, nearest, printable
from .values import Base

# https://docs.anthropic.com/en/api/overview, https://platform.openai.com/docs/api-reference; the
# variables are those that their own SDKs read.
BUILT_IN: Mapping[str, Gateway] = {
    "anthropic": Gateway(
        name="anthropic",
        dialect=ANTHROPIC,
        upstream="https://api.anthropic.com",
        key=Key(kind="env", value=("ANTHROPIC_API_KEY",)),
    ),
    "openai": Gateway(
        name="openai",
        dialect=OPENAI,
        upstream="https://api.openai.com/v1",
        key=Key(kind="env", value=("OPENAI_API_KEY",)),
    ),
}
MAX_MODELS = 256
MAX_RPM = 1_000_000
MAX_BUDGET = 1_000_000.0  # US dollars
_MAX_URL = 2048
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
"""A token (RFC 9110, 5.6.2), lower case."""
_FRAMING = (
    *("connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate"),
    *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
)


class Doors(Struct, frozen=True):
    """What the tables of the user's file say, by name."""

    gateways: Mapping[str, Gateway] = {}
    secrets: Mapping[str, Secret] = {}


def parse_gateway_table(name: str, table: GatewayTable, base: Base) -> Gateway:
    """The gateway `name`. Raises ConfigError."""
    parse_gateway(name, base)
    known = BUILT_IN.get(name)
    dialect = _given(table.dialect) or (known.dialect if known else None)
    if dialect is None:
        raise ConfigError(
            "dialect is missing.", hint=f'Say what it speaks: "{ANTHROPIC}" or "{OPENAI}".'
        )
    upstream = None if table.upstream is UNSET else parse_upstream(table.upstream)
    if upstream is None and known is None:
        raise ConfigError("upstream is missing.", hint="Say where requests go: an https URL.")
    key = None if table.key is UNSET else parse_key(table.key, base)
    if key is None and known is not None and upstream in (None, known.upstream):
        key = known.key  # and never to another upstream, unless the user says so
    return Gateway(
        name=name,
        dialect=dialect,
        upstream=upstream or _official(dialect),
        key=key,
        header=None if table.header is UNSET else parse_header(table.header),
        models=_models(table.models),
        budget_usd=_budget("budget_usd", table.budget_usd),
        agent_budget_usd=_budget("agent_budget_usd", table.agent_budget_usd),
        rpm=_rpm(table.rpm),
    )


def parse_secret_table(name: str, table: SecretTable, base: Base) -> Secret:
    """The secret `name`. Raises ConfigError."""
    check_secret_name(name)
    if not table.hosts:
        raise ConfigError("hosts is empty.", hint="Name where it may go: api.github.com, say.")
    return Secret(
        name=name,
        hosts=tuple(secret_host(rule) for rule in parse_secret_hosts(table.hosts)),
        header="authorization" if table.header is UNSET else parse_header(table.header),
        key=env_key(name) if table.key is UNSET else parse_key(table.key, base),
    )


def parse_upstream(text: str) -> str:
    """A URL without a last slash. Raises ConfigError for what no request can be made to."""
    from urllib.parse import urlsplit

    shown = f"the upstream “{printable(_without_login(text), 100)}”"
    if len(text) > _MAX_URL or has_control(text) or not text.isascii() or " " in text:
        raise ConfigError(f"{shown} is not a URL: it has a space, or is not plain ASCII.")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{shown} is not a URL: {printable(str(error))}.") from error
    wrong = None
    if (
        parts.scheme not in ("http", "https")
        or "\\" in text
        or not text.startswith(f"{parts.scheme}://")
    ):
        wrong = "it has to begin with https:// (or http://)"
    elif "@" in parts.netloc:
        wrong = "it has a login; name the key with key = {...}"
    elif not parts.hostname or "%" in parts.netloc or port == 0:
        wrong = "it has no host"
    elif "?" in text or "#" in text:
        wrong = "it has a query or a fragment"
    if wrong:
        raise ConfigError(f"{shown}: {wrong}.", hint='Write it like "https://api.example.org".')
    return text.rstrip("/")


def parse_header(text: str) -> str:
    """The name of a header in lower case. Raises ConfigError."""
    name = text.lower()
    if not _HEADER.fullmatch(name) or name in _FRAMING:
        raise ConfigError(
            f"“{printable(text, 60)}” is not a header that can carry a key.",
            hint="authorization and x-api-key are usual.",
        )
    return name


def unknown_gateway(name: str, known: Mapping[str, object]) -> ConfigError:
    """The error for a gateway that has no table and needs one."""
    close = nearest(name, [*BUILT_IN, *known])
    return ConfigError(
        f"there is no gateway “{printable(name, 63)}”.",
        hint=f"Did you mean {close}?"
        if close
        else f"Write [gateway.{name}] in your config.toml; without a table there are "
        f"{' and '.join(BUILT_IN)}.",
    )


def _official(dialect: Dialect) -> str:
    return next(gateway.upstream for gateway in BUILT_IN.values() if gateway.dialect == dialect)


def _without_login(url: str) -> str:
    """`url` without what might be a password, for messages."""
    scheme, slashes, rest = url.partition("//")
    return scheme + slashes + rest.rpartition("@")[2]


def _given(value: Dialect | UnsetType) -> Dialect | None:
    return None if value is UNSET else value


def _models(value: list[str] | UnsetType) -> tuple[str, ...]:
    if value is UNSET:
        return ()
    if not 0 < len(value) <= MAX_MODELS:
        raise ConfigError(
            f"models has {len(value)} patterns; 1 to {MAX_MODELS} are possible.",
            hint="Leave it out to allow every model.",
        )
    for pattern in value:
        if not pattern.strip() or has_control(pattern) or len(pattern) > 200:
            raise ConfigError(f"models: “{printable(pattern, 60)}” is not a pattern for models.")
    return tuple(value)


def _budget(name: str, value: int | float | UnsetType) -> float | None:
    if value is UNSET:
        return None
    if not math.isfinite(value) or not 0 < value <= MAX_BUDGET:
        raise ConfigError(
            f"{name} is out of range: more than 0 and at most {MAX_BUDGET:g} are possible.",
            hint="Leave it out for no limit.",
        )
    return float(value)


def _rpm(value: int | UnsetType) -> int | None:
    if value is UNSET:
        return None
    if not 1 <= value <= MAX_RPM:
        raise ConfigError(f"rpm is out of range: 1 to {MAX_RPM} are possible.")
    return value
