"""Errors of HTTP calls that end without an answer."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import httpcore

from headrace.runtimes.remote.base import Address, Misconfigured, NoAnswer, ServerAway
from headrace.runtimes.remote.transport.tls import speaks_tls

#: OpenSSL's reasons that mean: the other side doesn't speak TLS.
_NOT_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}
)


def trouble_of(exc: Exception, address: Address, timeout_s: float, *, first: bool) -> ServerAway | Misconfigured:
    """Return the error of headrace for one of httpcore. first: whether the server never answered before."""
    if isinstance(exc, httpcore.TimeoutException):
        return NoAnswer(f"{address} did not answer within {timeout_s:.3g} s")
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLError):
            return _tls_trouble(cause, address)
        if isinstance(cause, socket.gaierror):
            return ServerAway(f"{address}: the name {address.host} is not known: {cause.strerror}")
    # It may have heard TLS where it was spoken to in plain text, or the other way round.
    if first and isinstance(exc, httpcore.RemoteProtocolError | httpcore.ReadError):
        if not address.encrypted and speaks_tls(address, timeout_s):
            return Misconfigured(f"{address}: the server speaks TLS on that port; write https://{address.authority}")
        if "illegal" in str(exc):
            return Misconfigured(f"{address}: the server doesn't speak HTTP/1.1 on that port; is it the one of gRPC?")
    return ServerAway(f"{address}: {_words(exc)}")


def _tls_trouble(cause: ssl.SSLError, address: Address) -> ServerAway | Misconfigured:
    plain = f"is it http://{address.authority}?"
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message
        return Misconfigured(f"{address}: its certificate is refused: {why}; renew it, or set HEADRACE_SERVER_CA_FILE")
    if isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return ServerAway(f"{address}: the server hung up on TLS; {plain}")
    if cause.reason in _NOT_TLS:
        return Misconfigured(f"{address}: the server doesn't speak TLS on that port; {plain}")
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
