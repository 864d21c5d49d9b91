"""What looks like a credential: the name of a variable, or what is in it.

The formats are those that their issuers document so that they can be told:

- GitHub: docs.github.com, "About authentication to GitHub", token formats
- GitLab: docs.gitlab.com, "GitLab token overview", token prefixes
- AWS: IAM User Guide, "Understanding unique ID prefixes"
- Slack: docs.slack.dev, "Tokens"
- npm: github.blog, "Announcing npm's new access token format"
- PyPI: pypi.org/help, "How can I use API tokens"
- JWT: RFC 7519, 3.1; private keys: RFC 7468, 10 and 11, and openssh's PROTOCOL.key

and for the others (Anthropic, OpenAI, Google, Hugging Face, Stripe) gitleaks' config/gitleaks.toml,
which also has the idea of what is only a placeholder.
"""

from __future__ import annotations

import re

from msgspec import Struct

from ..errors import ConfigError


class Suspect(Struct, frozen=True):
    """Why it looks like one. what: "a token of GitHub", say. instead: what to use, or None."""

    what: str
    instead: str | None


class _Format(Struct, frozen=True):
    what: str
    pattern: re.Pattern[str]
    host: str | None = None
    gateway: str | None = None


def _format(what: str, pattern: str, host: str | None = None, gateway: str = "") -> _Format:
    # Not in the middle of a word; what follows is for the pattern to say.
    return _Format(what, re.compile(rf"(?<![A-Za-z0-9]){pattern}"), host, gateway or None)


_FORMATS = (
    _format("a key of Anthropic", r"sk-ant-[A-Za-z0-9_-]{20,300}", gateway="anthropic"),
    _format("a key of OpenRouter", r"sk-or-[A-Za-z0-9_-]{20,300}", "openrouter.ai"),
    _format(
        "a key of OpenAI", r"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,300}", gateway="openai"
    ),
    _format("an API key", r"sk-[A-Za-z0-9]{20,300}", "HOST"),  # OpenAI's, too, and of many others
    _format("a token of GitHub", r"gh[oprsu]_[A-Za-z0-9]{36,255}", "api.github.com"),
    _format("a token of GitHub", r"github_pat_[A-Za-z0-9_]{22,255}", "api.github.com"),
    _format(
        "a token of GitLab",
        r"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|wt|soat|ffct)-[A-Za-z0-9_.-]{20,300}",
        "gitlab.com",
    ),
    _format("an access key of AWS", r"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    _format("a token of Slack", r"x(?:ox[abeoprs]|app)-[A-Za-z0-9-]{10,300}", "slack.com"),
    _format("a key of Google", r"AIza[A-Za-z0-9_-]{35}", "*.googleapis.com"),
    _format("a token of Google", r"ya29\.[A-Za-z0-9_-]{20,2000}", "*.googleapis.com"),
    _format("a token of npm", r"npm_[A-Za-z0-9]{36}", "registry.npmjs.org"),
    _format("a token of PyPI", r"pypi-[A-Za-z0-9_-]{50,500}", "upload.pypi.org"),
    _format("a token of Hugging Face", r"hf_[A-Za-z0-9]{30,100}", "huggingface.co"),
    _format("a key of Stripe", r"[rs]k_live_[A-Za-z0-9]{10,300}", "api.stripe.com"),
    _format("a private key", r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    _format(
        "a JSON web token",
        r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,100}",
        "HOST",
    ),
    _format(
        "a URL with a password",
        r"[a-z][a-z0-9+.-]{1,30}://[^\s/:@]{0,100}:[^\s/@]{3,200}@(?!localhost|127\.|\[::1\])",
    ),
)
_LOOKED_AT = 16 * 1024  # characters; the patterns are bounded, too: a project may set variables

_NAME_PART = re.compile(
    r"(?:.*(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)|(?:API|ACCESS|PRIVATE|SSH)?KEY"
    r"|PAT)S?"
)
_NAMES = {
    "ANTHROPIC_API_KEY": "anthropic",
    "ANTHROPIC_AUTH_TOKEN": "anthropic",
    "CLAUDE_CODE_OAUTH_TOKEN": "anthropic",
    "OPENAI_API_KEY": "openai",
}
_HOSTS = {
    "GITHUB": "api.github.com",
    "GH": "api.github.com",
    "GITLAB": "gitlab.com",
    "NPM": "registry.npmjs.org",
    "NODE": "registry.npmjs.org",
    "HF": "huggingface.co",
    "HUGGINGFACE": "huggingface.co",
    "SLACK": "slack.com",
    "STRIPE": "api.stripe.com",
}

# What stands where a credential would: words that say so, names of variables, one character again
# and again, numbers and switches (MAX_TOKENS=4096).
_PLACEHOLDER = re.compile(
    r"placeholder|change[-_ ]?(?:me|it)|example|dummy|redacted|replace[-_ ]?me|xxxx|\*\*\*|\.\.\."
    r"|insert[-_ ]|your[-_ ]|[-_ ]here\b|not[-_ ](?:set|needed|used|a[-_ ])|abcdefghijklmnop"
    r"|00000000|11111111|12345678",
    re.IGNORECASE,
)
_NO_SECRET = re.compile(
    r"\s*|true|false|yes|no|on|off|none|null|nil|test|fake|unused|ollama|-?[0-9]{1,7}(?:\.[0-9]+)?"
    r"|\$\w+|\$?\{\{?[^{}]*\}?\}|<[^<>]*>|%\w+%|(.)\1*",
    re.IGNORECASE,
)


def suspect(name: str, value: str | None) -> Suspect | None:
    """Whether a variable seems to hold a credential. value: None where it is not known.

    Neither the name nor the value is in the answer, but for the name in `instead`.
    """
    found = None if value is None else _of_value(value)
    if found is not None:
        return Suspect(found.what, _instead(name, found))
    if not looks_like_credential(name) or (value is not None and _is_placeholder(value)):
        return None
    return Suspect("a credential", _instead(name, None))


def credential_warning(name: str, value: str, origin: str = "") -> str | None:
    """What to say about a variable that is passed into a sandbox, None for a harmless one.

    The value is not in it. origin: " (from ...)".
    """
    found = suspect(name, value)
    if found is None:
        return None
    text = (
        f"{name}{origin} looks like {found.what}; everything that runs in the sandbox can read it."
    )
    return text if found.instead is None else f"{text} To keep it outside: {found.instead}"


def is_credential(text: str) -> bool:
    """Whether this text has the form of one."""
    return _of_value(text) is not None


def refuse_credential(text: str, what: str) -> None:
    """ConfigError, without the text, when it is a credential where `what` should be."""
    found = _of_value(text)
    if found is not None:
        raise ConfigError(
            f"{found.what} is where {what} should be.",
            hint="Name where it is found, a variable say; a key itself is never written here. It "
            "may be in your shell's history now.",
        )


def looks_like_credential(name: str) -> bool:
    """Whether an environment variable of this name usually holds a credential."""
    return any(_NAME_PART.fullmatch(part) for part in name.upper().split("_"))


def holds_credential(name: str, value: str) -> bool:
    """Whether the value must not be shown: for the cautious, so a placeholder counts, too."""
    return looks_like_credential(name) or suspect(name, value) is not None


def _of_value(value: str) -> _Format | None:
    text = value[:_LOOKED_AT]
    for each in _FORMATS:
        for match in each.pattern.finditer(text):
            if not _PLACEHOLDER.search(match[0]) and len(set(match[0])) > 8:
                return each
    return None


def _is_placeholder(value: str) -> bool:
    if len(value) > 200:
        return False
    return bool(_PLACEHOLDER.search(value) or _NO_SECRET.fullmatch(value.strip()))


def _instead(name: str, found: _Format | None) -> str | None:
    gateway = _NAMES.get(name.upper()) or (found.gateway if found else None)
    if gateway:
        return f"--gateway {gateway}"
    if found is not None and found.host is None:
        return None  # it is no header of a request
    host = "HOST" if found is None or found.host is None else found.host
    if host == "HOST":
        host = _HOSTS.get(name.upper().split("_")[0], host)
    return f"--secret {name}@{host}"
