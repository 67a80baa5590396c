"""The statuses of gRPC calls that failed, and what they mean for a batch."""

from __future__ import annotations

import re
from typing import Final

from headrace.runtimes.remote.base import (
    Address,
    BatchTooLarge,
    Misconfigured,
    Refused,
    ServerAway,
    ServerBusy,
)
from headrace.runtimes.remote.transport.server_text import Meaning, Reading, read_text


class NotFound(Misconfigured):
    """The server says that it can't find something: the model, or what the values of a batch name.

    Servers use one status for both; `check_ready` tells which.
    """


#: Statuses of a call whose values the server looked at.
_OF_VALUES: Final = frozenset({"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "ALREADY_EXISTS"})

#: Statuses of calls that were cut off on the way.
_OF_THE_WAY: Final = frozenset({"UNAVAILABLE", "CANCELLED", "ABORTED", "DATA_LOSS"})

#: Texts of gRPC itself under a status that servers use too.
_CUT_OFF: Final = re.compile(
    r"Stream removed|RST_STREAM|Socket closed|GOAWAY|Connection reset|http2 header with status: 5|transport is closing"
)

#: OpenSSL's reasons that mean: the other side doesn't speak TLS.
_NOT_TLS: Final = re.compile(r"WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG|RECORD_LAYER_FAILURE")

_CERTIFICATE: Final = re.compile(r"CERTIFICATE_VERIFY_FAILED(?:: (?P<why>[^:]+))?")
_WRONG_NAME: Final = re.compile(r"Hostname Verification Check failed|is not in peer certificate|Peer name .* mismatch")

#: What gRPC puts in front of the trouble with a connection.
_WRAPPING: Final = re.compile(
    r"^failed to connect to all addresses; last error: (?:\w+: )?|^errors resolving [^:]*:\d+: |ipv[46]:[^ ]*:\d+: "
)


def failure_of(status: str, text: str, where: str, address: Address, retry_after_s: float = 0.0) -> Exception:
    """Return the error for a call that ended with a status other than OK.

    status: its name, such as `UNAVAILABLE`. where: the model and its server, for the message.
    """
    reading = read_text(text)
    line = f"{where}: {reading.text or status}"
    match status:
        case "DEADLINE_EXCEEDED":
            return ServerAway(f"{where}: no answer in time")
        case "RESOURCE_EXHAUSTED":
            if reading.meaning in (Meaning.TOO_LARGE, Meaning.OUT_OF_MEMORY):
                return BatchTooLarge(line, reading.most_rows)
            return ServerBusy(line, retry_after_s)
        case "NOT_FOUND":
            return ServerAway(line) if reading.meaning is Meaning.LOADING else NotFound(line)
        case "UNAUTHENTICATED" | "PERMISSION_DENIED":
            return Misconfigured(f"{line}; set HEADRACE_SERVER_CREDENTIALS_<NAME>")
        case "UNIMPLEMENTED":
            return Misconfigured(f"{line}; the server doesn't offer this call: is it a server of the runtime's kind?")
    if status in _OF_VALUES:
        return _of_values(reading, where, line)
    if status in _OF_THE_WAY:
        return _of_the_way(reading, where, address, retry_after_s)
    if reading.meaning is Meaning.UNKNOWN and _CUT_OFF.search(text):
        return ServerAway(line, retry_after_s)
    # A model that raises on a batch may do so for one request in it.
    return reading.failure(where) or Refused(line)


def _of_values(reading: Reading, where: str, line: str) -> Exception:
    # Such a text may begin with a request's own words, and no request may pass for a busy server.
    if reading.meaning in (Meaning.BUSY, Meaning.OUT_OF_MEMORY):
        return Refused(line)
    return reading.failure(where) or Refused(line)


def _of_the_way(reading: Reading, where: str, address: Address, retry_after_s: float) -> Exception:
    if reading.meaning is Meaning.BUSY:
        return ServerBusy(f"{where}: {reading.text}", retry_after_s)
    if reading.meaning is Meaning.ABSENT:
        return NotFound(f"{where}: {reading.text}")
    text = reading.text
    if found := _CERTIFICATE.search(text):
        why = (found["why"] or "it can't be verified").strip()
        return Misconfigured(
            f"{where}: the server's certificate is refused: {why}; renew it, or name its authority in "
            "HEADRACE_SERVER_CA_FILE"
        )
    if _WRONG_NAME.search(text):
        return Misconfigured(f"{where}: the server's certificate is for another name than {address.host}")
    if "create security handshaker" in text:
        return Misconfigured(f"{where}: HEADRACE_SERVER_CA_FILE, _CERT_FILE or _KEY_FILE holds no certificate or key")
    if address.encrypted and _NOT_TLS.search(text):
        return Misconfigured(f"{where}: the server doesn't speak TLS on that port; is it grpc://{address.authority}?")
    if "http1.x server" in text:
        return Misconfigured(
            f"{where}: the server speaks HTTP/1.1 on that port, not gRPC; is it http://{address.authority}?"
        )
    return ServerAway(f"{where}: {_WRAPPING.sub('', text) or 'the connection was lost'}", retry_after_s)
