"""Variables that seem to hold a credential: warned about, by name and by value, never shown."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.spec.credentials import credential_warning, holds_credential, suspect

from .conftest import User

# Made up; split so that no scanner takes this file for a leak.
ALNUM = "9fK2mQ7xR4tV8wY1zB3cD5eF6gH0jL" + "aNpSuXrTqWk"
REAL = {
    "a key of Anthropic": "sk-" + "ant-api03-" + ALNUM + "-_" + ALNUM,
    "a key of OpenRouter": "sk-" + "or-v1-" + ALNUM,
    "a key of OpenAI": "sk-" + "proj-" + ALNUM,
    "an API key": "sk-" + ALNUM,
    "a token of GitHub": "gh" + "p_" + ALNUM[:36],
    "a token of GitLab": "gl" + "pat-" + ALNUM[:20],
    "an access key of AWS": "AK" + "IAZ5QXR7PLMNVT2WYB",
    "a token of Slack": "xo" + "xb-2938471029-" + ALNUM[:24],
    "a key of Google": "AI" + "za" + ALNUM[:35],
    "a token of npm": "np" + "m_" + ALNUM[:36],
    "a token of PyPI": "py" + "pi-AgEIcHlwaS5vcmc" + ALNUM,
    "a token of Hugging Face": "h" + "f_" + ALNUM[:34],
    "a key of Stripe": "sk" + "_live_" + ALNUM[:24],
    "a private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5v",
    "a JSON web token": "ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiJhZGEifQ." + ALNUM[:43],
    "a URL with a password": "postgres://ada:" + ALNUM[:9] + "@db.example.net/prod",
}


@pytest.mark.parametrize("what", REAL)
@pytest.mark.parametrize("form", ["{}", "Bearer {}", "https://x@{}/", '{{"k": "{}"}}'])
def test_a_credential_is_known_by_what_it_is_under_any_name(what: str, form: str) -> None:
    value = form.format(REAL[what])
    found = suspect("HARMLESS", value)
    assert found is not None and found.what == what
    warning = credential_warning("HARMLESS", value) or ""
    assert what in warning and REAL[what] not in warning and ALNUM[:9] not in warning
    assert holds_credential("HARMLESS", value)


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("X", REAL["a key of Anthropic"], "--gateway anthropic"),
        ("ANTHROPIC_API_KEY", "s3cr3t-of-mine", "--gateway anthropic"),
        ("CLAUDE_CODE_OAUTH_TOKEN", "s3cr3t-of-mine", "--gateway anthropic"),
        ("OPENAI_API_KEY", REAL["an API key"], "--gateway openai"),
        ("X", REAL["a key of OpenAI"], "--gateway openai"),
        ("DEEPSEEK_API_KEY", REAL["an API key"], "--secret DEEPSEEK_API_KEY@HOST"),
        ("GITHUB_TOKEN", "hunter2", "--secret GITHUB_TOKEN@api.github.com"),
        ("X", REAL["a token of GitHub"], "--secret X@api.github.com"),
        ("NPM_TOKEN", None, "--secret NPM_TOKEN@registry.npmjs.org"),
        ("MY_PASSWORD", "hunter2", "--secret MY_PASSWORD@HOST"),
        ("X", REAL["a JSON web token"], "--secret X@HOST"),
        ("X", REAL["a private key"], None),
        ("AWS_ACCESS_KEY_ID", REAL["an access key of AWS"], None),
        ("DATABASE_URL", REAL["a URL with a password"], None),
    ],
)
def test_what_to_use_instead(name: str, value: str | None, instead: str | None) -> None:
    found = suspect(name, value)
    assert found is not None and found.instead == instead


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_TOKENS", "4096"),
        ("USE_TOKEN", "true"),
        ("API_KEY", ""),
        ("API_KEY", "placeholder"),
        ("OPENAI_API_KEY", "sk-" + "corralplaceholder" + ALNUM),
        ("OPENAI_API_KEY", "sk-your-key-here-please-and-thanks"),
        ("OPENAI_API_KEY", "sk-" + "x" * 40),
        ("OPENAI_API_KEY", "ollama"),
        ("GITHUB_TOKEN", "${GITHUB_TOKEN}"),
        ("GITHUB_TOKEN", "<token>"),
        ("GITHUB_TOKEN", "changeme"),
        ("AWS_ACCESS_KEY_ID", "AK" + "IAIOSFODNN7EXAMPLE"),
        ("SECRET_KEY", "dummy-for-tests"),
        ("KEY", "not-needed"),
        ("DATABASE_URL", "postgres://dev:devel@localhost:5432/x"),
        ("DATABASE_URL", "postgres://db.example.net/x"),
        ("IMAGE", "risk-assessment-service-and-more-words"),
        ("PACKAGE", "glibc-2.36-9.deb12u4-amd64.deb"),
        ("PATH", "/usr/bin:/bin"),
        ("KEYBOARD", "us"),
    ],
)
def test_placeholders_and_harmless_values_are_not_mistaken(name: str, value: str) -> None:
    assert credential_warning(name, value) is None


def test_a_placeholder_is_hidden_all_the_same_where_its_name_says_so() -> None:
    assert holds_credential("API_KEY", "placeholder")


def test_the_warning_of_a_sandbox_says_where_it_comes_from(user: User) -> None:
    user.environ["GIT"] = REAL["a token of GitHub"]
    user.configure(f"[run]\nenv = {{ MODE = '{REAL['an API key']}' }}")
    first, second = user.spec(overrides={"run.env": ["GIT"]}).warnings
    assert str(user.config) in first and "an API key" in first
    assert "command line (--env)" in second and "--secret GIT@api.github.com" in second
    assert ALNUM[:20] not in first + second


@pytest.mark.parametrize(
    "piece", ["eyJ-", "-eyJaaaaaaaaaaa.", "sk-ant-", "-----BEGIN A ", "a://b:", "gh", "x://"]
)
def test_a_value_made_to_keep_the_search_busy_does_not(piece: str) -> None:
    began = time.process_time()
    suspect("X", piece * (1 << 20))
    assert time.process_time() - began < 2.0


@given(st.text(max_size=300), st.text(max_size=30))
def test_any_text_is_judged(value: str, name: str) -> None:
    credential_warning(name, value)
    holds_credential(name, value)
