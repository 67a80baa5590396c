"""TLS: what a client trusts and shows, and whether a port speaks it."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from headrace.runtimes.remote.base import Access, Address, Misconfigured

#: Seconds for the question whether a port speaks TLS, asked when a server hangs up on plain text.
_QUESTION_S: Final = 1.0


def client_context(access: Access, address: Address) -> ssl.SSLContext:
    """Return the certificates of an endpoint. Raises Misconfigured when their files can't be loaded."""
    try:
        context = ssl.create_default_context(cafile=access.ca_file or None)
        if access.cert_file:
            context.load_cert_chain(access.cert_file, access.key_file or None)
    except (OSError, ValueError) as exc:
        files = ", ".join(filter(None, (access.ca_file, access.cert_file, access.key_file)))
        raise Misconfigured(f"{address}: the certificates {files} can't be loaded: {exc}") from None
    return context


def speaks_tls(address: Address, timeout_s: float) -> bool:
    """Return whether a handshake succeeds there, whosever certificate it is; nothing else is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address.host, address.port), min(timeout_s, _QUESTION_S)) as plain,
            context.wrap_socket(plain, server_hostname=address.host),
        ):
            return True
    except OSError:
        return False
