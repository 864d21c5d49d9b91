"""Placeholders: what a sandbox holds in place of a secret. Pure, but for the random part."""

from __future__ import annotations

import secrets
import string

# A shorter one could be any word of an answer, and its placeholder could be guessed.
SHORTEST, LONGEST = 12, 4096
_ALPHABET = string.ascii_letters + string.digits
_RANDOM = 12  # characters at the least that are random, where there is room
_MARK = "corralplaceholder"

# How tokens of known services begin: programs look at that before they use one. From the
# services' own pages, as gathered in gitleaks' rules (config/gitleaks.toml, version 8.18).
PREFIXES = (
    *("github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "glpat-", "glptt-", "gldt-"),
    *("sk-ant-api03-", "sk-ant-", "sk-proj-", "sk-or-v1-", "sk-", "xai-", "gsk_", "hf_", "r8_"),
    *("npm_", "pypi-", "rubygems_", "dckr_pat_", "xoxb-", "xoxp-", "xapp-", "AKIA", "ASIA"),
    *("sk_live_", "sk_test_", "rk_live_", "pk_live_", "SG.", "dop_v1_", "lin_api_", "ntn_"),
    *("secret_", "shpat_", "sntrys_", "tskey-", "pul-", "AIza", "ATATT3", "figd_", "phx_"),
)


def fault(secret: str) -> str | None:
    """Why a text cannot be used as a secret in a header; None when it can. Does not repeat it."""
    if not SHORTEST <= len(secret) <= LONGEST:
        return f"it has {len(secret)} characters; {SHORTEST} to {LONGEST} can be used"
    if not all("!" <= character <= "~" for character in secret):
        return "it has characters that no header may have, such as spaces or control characters"
    return None


def make(secret: str) -> str:
    """A placeholder for a secret: as long, with the same well-known prefix, random otherwise.

    As long, so that an answer in which it stands again for the secret keeps its length.
    """
    prefix = max((p for p in PREFIXES if secret.startswith(p)), key=len, default="")
    room = len(secret) - len(prefix)
    if room < _RANDOM:  # a secret that is nearly all prefix
        prefix, room = "", len(secret)
    mark = _MARK if room >= len(_MARK) + _RANDOM else ""
    rest = room - len(mark)
    return prefix + mark + "".join(secrets.choice(_ALPHABET) for _ in range(rest))


def fitted(placeholder: str, length: int) -> str:
    """The placeholder in `length` characters: cut, or filled up.

    It has another length than the secret only in a copy of a sandbox, when the secret has
    changed since the placeholder was made.
    """
    return placeholder[:length].ljust(length, "x")
