"""The certificate of the port that gateways ask."""

import ssl
from pathlib import Path

from routecore.errors import RouteError

Pair = tuple[bytes, bytes]
"""A key and its chain of certificates, in PEM."""


def checked_pair(certificate: str | None, key: str | None) -> Pair | None:
    """Both files, read and checked; None where neither is named.

    Raises:
        RouteError: One is missing, cannot be read, is no PEM, or is not the other's.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise RouteError("tls_certificate and tls_key: expected both or neither")
    chain, secret = _read("tls_certificate", certificate), _read("tls_key", key)
    try:
        # A password would be asked for on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise RouteError(
                f"tls_certificate {certificate!r} and tls_key {key!r} do not belong together"
            ) from None
        raise RouteError(
            f"tls_certificate {certificate!r}, tls_key {key!r}: expected PEM, the key without "
            "a password"
        ) from None
    return secret, chain


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RouteError(f"{name} {path!r}: {error.strerror}") from None
