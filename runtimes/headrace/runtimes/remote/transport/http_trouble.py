"""What it means when a call over HTTP ends without an answer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpcore

from headrace.runtimes.remote.base import Address, Misconfigured, ServerAway

#: OpenSSL's reasons that mean: the other side doesn't speak TLS.
_NOT_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)


def trouble_of(exc: Exception, address: Address, timeout_s: float, *, spoke_before: bool) -> ServerAway | Misconfigured:
    """Return the error of headrace for one of httpcore. spoke_before: whether HTTP was ever spoken there."""
    if isinstance(exc, httpcore.TimeoutException):
        return ServerAway(f"{address} did not answer within {timeout_s:.3g} s")
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Misconfigured(
                f"{address}: its certificate is refused: {cause.verify_message}; "
                "renew it, or set HEADRACE_SERVER_CA_FILE"
            )
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return _tls_trouble(cause, address)
        if isinstance(cause, socket.gaierror):
            return ServerAway(f"{address}: the name {address.host} is not known: {cause.strerror}")
    if isinstance(exc, httpcore.RemoteProtocolError) and "illegal" in str(exc) and not spoke_before:
        other = "https" if address.scheme == "http" else "http"
        return Misconfigured(
            f"{address}: the server doesn't speak HTTP/1.1 on that port; is it {other}://, or the port of gRPC?"
        )
    return ServerAway(f"{address}: {_words(exc)}")


def _tls_trouble(cause: ssl.SSLError, address: Address) -> Misconfigured:
    if cause.reason in _NOT_TLS:
        return Misconfigured(f"{address}: the server doesn't speak TLS on that port; is it http://{address.authority}?")
    reason = (cause.reason or str(cause)).replace("_", " ").lower()
    return Misconfigured(f"{address}: TLS fails: {reason}; see HEADRACE_SERVER_CERT_FILE and HEADRACE_SERVER_CA_FILE")


def _causes(exc: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = exc
    while seen is not None:
        yield seen
        # httpcore passes the cause as an argument where it doesn't chain it.
        inner = next((arg for arg in seen.args if isinstance(arg, BaseException)), None)
        seen = inner or seen.__cause__


def _words(exc: Exception) -> str:
    last = [*_causes(exc)][-1]
    if isinstance(last, OSError) and last.strerror:
        return last.strerror
    return str(last) or type(last).__name__
