"""How programs in the sandbox find the gateways: variables, as the SDKs read them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..policy import ANTHROPIC, GATEWAY_DOMAIN, Gateway

# What stands in the sandbox for a key. It is no secret, and worth nothing anywhere: the gateway
# takes it off and adds the real one. It begins as real ones do, for programs that look at that.
PLACEHOLDERS = {"anthropic": "sk-ant-corral-placeholder", "openai": "sk-corral-placeholder"}
_VARIABLES = {
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
}


def base_url(gateway: Gateway) -> str:
    """What an SDK wants as its base URL: OpenAI's has the version in it, Anthropic's has not."""
    version = "" if gateway.dialect == ANTHROPIC else "/v1"
    return f"http://{gateway.name}.{GATEWAY_DOMAIN}{version}"


def variables(gateways: Iterable[Gateway]) -> dict[str, str]:
    """Of each gateway CORRAL_GATEWAY_NAME, its base URL; of the first of a dialect, the SDK's."""
    found: dict[str, str] = {}
    for gateway in gateways:
        url, key = _VARIABLES[gateway.dialect]
        found.setdefault(url, base_url(gateway))
        found.setdefault(key, PLACEHOLDERS[gateway.dialect])
        found[f"CORRAL_GATEWAY_{_upper(gateway.name)}"] = base_url(gateway)
    return found


def _upper(name: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in name.upper())
