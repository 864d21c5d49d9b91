"""The interceptor: TLS to hosts of a secret ends here, and a placeholder becomes the secret.

A process of its own. What is in `messages`, `placeholders` and `trust` its parent uses, too; the
rest needs the extra `intercept` (mitmproxy) and is imported in that process only.
"""
