"""The statuses of gRPC calls that failed, and what they mean for a batch."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from headrace.runtimes.remote.base import (
    MOST_BEFORE_REMEDY,
    Address,
    BatchTooLarge,
    Misconfigured,
    ModelNotReady,
    NoAnswer,
    Refused,
    ServerAway,
    ServerBusy,
    ServerFailed,
    in_line,
)
from headrace.runtimes.remote.transport.server_text import Meaning, NotFound, read_text


class Unimplemented(Misconfigured):
    """The server doesn't know the call."""


#: The limit of servers for which nobody set another.
_DEFAULT_LIMIT_BYTES: Final = 4 << 20

#: A stream that the server cancels, as TorchServe's does where others say that a message exceeds their limit.
_CANCELLED: Final = "RST_STREAM with error code 8"


class FailedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that ended with a status other than OK.

    status: its name, such as `UNAVAILABLE`. where: the model and its server, for messages. retry_after_s: as the server
    asks for.
    """

    status: str
    text: str
    where: str
    address: Address
    request_bytes: int = 0
    retry_after_s: float = 0.0

    @property
    def line(self) -> str:
        """The message of an error."""
        return f"{self.where}: {in_line(self.text) or self.status}"

    @property
    def brief(self) -> str:
        """The start of a message that ends with what to do."""
        return f"{self.where}: {in_line(self.text, MOST_BEFORE_REMEDY) or self.status}"

    def failure(self) -> Exception:
        """Return the error that the call stands for."""
        if _CANCELLED in self.text and self.request_bytes > _DEFAULT_LIMIT_BYTES:
            return BatchTooLarge(f"{self.where}: the server cancels a request of {self.request_bytes} bytes")
        return _BY_STATUS.get(self.status, _by_text)(self)


def _late(call: FailedCall) -> Exception:
    return NoAnswer(f"{call.where}: no answer in time")


def _exhausted(call: FailedCall) -> Exception:
    reading = read_text(call.text)
    if reading.meaning in (Meaning.TOO_LARGE, Meaning.OUT_OF_MEMORY):
        return BatchTooLarge(call.line, reading.most_rows)
    return ServerBusy(call.line, call.retry_after_s)


def _not_found(call: FailedCall) -> Exception:
    meaning = read_text(call.text).meaning
    if meaning is Meaning.LOADING:
        return ModelNotReady(call.line, call.retry_after_s)
    return NotFound(call.brief, of_model=meaning is Meaning.ABSENT)


def _forbidden(call: FailedCall) -> Exception:
    return Misconfigured(f"{call.brief}; set HEADRACE_SERVER_CREDENTIALS_<NAME>")


def _unimplemented(call: FailedCall) -> Exception:
    return Unimplemented(f"{call.brief}; the server doesn't offer this call: is it one of the runtime's kind?")


def _of_values(call: FailedCall) -> Exception:
    """Return the error for a status under which the server looked at the values."""
    reading = read_text(call.text)
    # Such a text may begin with a request's own words, and no request may pass for a busy server.
    if reading.meaning in (Meaning.BUSY, Meaning.OUT_OF_MEMORY):
        return Refused(call.line)
    return reading.failure(call.where) or Refused(call.line)


#: What a connection fails for until a person acts → the message. OpenSSL's reasons of the second mean: no TLS there.
_MISCONFIGURED: Final = (
    (
        re.compile(r"CERTIFICATE_VERIFY_FAILED(?:: (?P<why>[^:]+))?"),
        "the server's certificate is refused: {why}; renew it, or name its authority in HEADRACE_SERVER_CA_FILE",
    ),
    (
        re.compile(r"WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG|RECORD_LAYER_FAILURE"),
        "the server doesn't speak TLS on that port; is it grpc://{authority}?",
    ),
    (
        re.compile(r"Hostname Verification Check failed|is not in peer certificate"),
        "the server's certificate is for another name than {host}",
    ),
    (
        re.compile(r"Failed to create security handshaker"),
        "HEADRACE_SERVER_CA_FILE, _CERT_FILE or _KEY_FILE holds no certificate or key",
    ),
    (
        re.compile(r"http1\.x server"),
        "the server speaks HTTP/1.1 on that port, not gRPC; is it http://{authority}?",
    ),
)

#: What gRPC puts in front of the trouble with a connection.
_WRAPPING: Final = re.compile(
    r"failed to connect to all addresses; last error: (?:\w+: )?|errors resolving [^:]*:\d+: |ipv[46]:[^ ]*:\d+: "
)


def _of_the_way(call: FailedCall) -> Exception:
    """Return the error for a call that was cut off, or that the server did not begin."""
    meaning = read_text(call.text).meaning
    if meaning is Meaning.BUSY:
        return ServerBusy(call.line, call.retry_after_s)
    if meaning is Meaning.LOADING:
        return ModelNotReady(call.line, call.retry_after_s)
    if meaning is Meaning.ABSENT:
        return NotFound(call.brief, of_model=True)
    for pattern, message in _MISCONFIGURED:
        if found := pattern.search(call.text):
            why = (found.groupdict().get("why") or "it can't be verified").strip()
            words = message.format(why=why, authority=call.address.authority, host=call.address.host)
            return Misconfigured(f"{call.where}: {words}")
    words = in_line(_WRAPPING.sub("", call.text)) or "the connection was lost"
    return ServerAway(f"{call.where}: {words}", call.retry_after_s)


#: Texts of gRPC itself under statuses that servers use too.
_CUT_OFF: Final = re.compile(
    r"Stream removed|RST_STREAM|Socket closed|GOAWAY|Connection reset|http2 header with status: 5|transport is closing"
)


def _by_text(call: FailedCall) -> Exception:
    """Return the error for a status that servers use for several things."""
    reading = read_text(call.text)
    if reading.meaning is Meaning.UNKNOWN and _CUT_OFF.search(call.text):
        return ServerAway(call.line, call.retry_after_s)
    # A model that raises on a batch may do so for one request in it.
    return reading.failure(call.where) or ServerFailed(call.line)


_BY_STATUS: Final[dict[str, Callable[[FailedCall], Exception]]] = {
    "DEADLINE_EXCEEDED": _late,
    "RESOURCE_EXHAUSTED": _exhausted,
    "NOT_FOUND": _not_found,
    "UNAUTHENTICATED": _forbidden,
    "PERMISSION_DENIED": _forbidden,
    "UNIMPLEMENTED": _unimplemented,
    **dict.fromkeys(("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE", "ALREADY_EXISTS"), _of_values),
    **dict.fromkeys(("UNAVAILABLE", "CANCELLED", "ABORTED", "DATA_LOSS"), _of_the_way),
}
