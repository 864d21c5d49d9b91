"""TLS on both sides, by pyOpenSSL, which mitmproxy's layers drive."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from .authority import Leaf

PROTOCOLS = (b"h2", b"http/1.1")
_HTTP1 = b"http/1.1"


class Handshakes:
    """Contexts of one process. authorities: the file of certificates that servers are checked by.

    Raises SSL.Error when it cannot be read.
    """

    def __init__(self, authorities: str) -> None:
        self._server = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._server.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._server.set_verify(SSL.VERIFY_PEER)
        self._server.load_verify_locations(authorities)
        self._clients: dict[Leaf, SSL.Context] = {}

    def to_server(self, name: str, offers: list[bytes]) -> SSL.Connection:
        """A client's end that goes no further than a certificate for exactly this name allows."""
        connection = SSL.Connection(self._server)
        # pyOpenSSL has no call for this; mitmproxy does the same (addons/tlsconfig.py).
        # A partial wildcard or the subject's common name are no match (RFC 9525, 6.3).
        library: Any = SSL._lib  # type: ignore[attr-defined]  # private, see above
        parameters = library.SSL_get0_param(connection._ssl)
        library.X509_VERIFY_PARAM_set_hostflags(
            parameters,
            library.X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
            | getattr(library, "X509_CHECK_FLAG_NEVER_CHECK_SUBJECT", 0),
        )
        encoded = name.encode("ascii")
        if library.X509_VERIFY_PARAM_set1_host(parameters, encoded, len(encoded)) != 1:
            raise ValueError("the name cannot be checked")
        connection.set_tlsext_host_name(encoded)
        if offers:
            connection.set_alpn_protos(offers)
        connection.set_connect_state()
        return connection

    def to_client(self, leaf: Leaf, spoken: bytes | None) -> SSL.Connection:
        """A server's end. spoken: what the real server chose by ALPN; None: it is not there."""
        context = self._clients.get(leaf)
        if context is None:
            context = SSL.Context(SSL.TLS_SERVER_METHOD)
            context.set_min_proto_version(SSL.TLS1_2_VERSION)
            context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
            context.use_certificate(leaf.certificate)
            context.use_privatekey(leaf.key)
            context.set_alpn_select_callback(_choose)
            if len(self._clients) >= 256:
                self._clients.clear()
            self._clients[leaf] = context
        connection = SSL.Connection(context)
        connection.set_app_data(spoken)
        connection.set_accept_state()
        return connection


def _choose(connection: SSL.Connection, options: Any) -> Any:
    """The protocol that the real server speaks: so one is never translated into the other."""
    spoken = connection.get_app_data()
    if spoken:
        return spoken if spoken in options else SSL.NO_OVERLAPPING_PROTOCOLS
    if _HTTP1 in options:
        return _HTTP1
    # The server is not there: somebody must tell the client in its own words.
    return next((each for each in PROTOCOLS if each in options), SSL.NO_OVERLAPPING_PROTOCOLS)
