"""Answers of HTTP servers, and what they mean for a batch when they are no success."""

from __future__ import annotations

import datetime as dt
import html
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import msgspec

from headrace.contracts.errors import quoted
from headrace.runtimes.remote.base import (
    MOST_BEFORE_REMEDY,
    BadAnswer,
    BatchTooLarge,
    Misconfigured,
    ModelNotReady,
    Refused,
    ServerAway,
    ServerBusy,
    ServerFailed,
    in_line,
)
from headrace.runtimes.remote.encoding.json_values import read_document
from headrace.runtimes.remote.encoding.raw import Buffer
from headrace.runtimes.remote.transport.server_text import MOST_SEARCHED, Meaning, NoModelServer, NotFound, read_text

#: Where JSON errors have their text: the protocols' own, TorchServe's, FastAPI's.
_TEXT_FIELDS: Final = ("error", "message", "detail", "reason")

#: Of a page or text that is no JSON: enough to recognise the proxy that wrote it.
_MOST_PAGE_CHARACTERS: Final = 200

#: nginx's and Go's words for plain text on a port of TLS.
_TLS_WANTED: Final = re.compile(r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server")

#: TorchServe's words for a handler that raised on the values, under the status of a server that is away.
_HANDLER_FAILED: Final = ("Prediction failed", "Invalid model predict output", "number of batch response mismatched")

#: Answers to a path that a server has no handler for: FastAPI's and Triton's. TorchServe's has a type of its own.
_NO_HANDLER: Final = ({"detail": "Not Found"}, {"error": "Not Found"})
_NO_HANDLER_TYPE: Final = "ResourceNotFoundException"

_INVISIBLE: Final = re.compile(r"<(script|style|head)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)

_REMEDIES: Final = {
    HTTPStatus.UNAUTHORIZED: "set HEADRACE_SERVER_CREDENTIALS_<NAME>",
    HTTPStatus.FORBIDDEN: "set HEADRACE_SERVER_CREDENTIALS_<NAME>",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "name an address that no proxy stands in front of",
    HTTPStatus.METHOD_NOT_ALLOWED: "the address may be that of another protocol or port of the server",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "the address may be that of another protocol or port of the server",
    HTTPStatus.NOT_IMPLEMENTED: "the server can't do this",
}

#: A gateway without its server, or a server that is full, starts or ends; TorchServe's handlers that raise as well.
_AWAY: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)

#: Statuses under which a server looked at the values.
_OF_VALUES: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)

_BY_STATUS: Final[Mapping[int, type[ServerAway | BatchTooLarge]]] = {
    HTTPStatus.REQUEST_TIMEOUT: ServerAway,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: BatchTooLarge,
    HTTPStatus.INSUFFICIENT_STORAGE: BatchTooLarge,
}


class Reply(msgspec.Struct, frozen=True):
    """An answer. headers: by names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: Buffer

    @property
    def succeeded(self) -> bool:
        """Whether the status is 200, which is that of every answer to a batch."""
        return self.status == HTTPStatus.OK

    @property
    def holds_document(self) -> bool:
        """Whether the body is a JSON object."""
        try:
            self.document()
        except BadAnswer:
            return False
        return True

    def document(self) -> dict[str, Any]:
        """Return the JSON object of the body. Raises BadAnswer."""
        found = read_document(self.body)
        if not isinstance(found, dict):
            raise BadAnswer(f"the server's answer is no JSON object: {quoted(found)}")
        return found


def has_no_handler(reply: Reply) -> bool:
    """Return whether there is no such path at all, rather than no such model or version of it.

    Model servers explain a 404 in JSON; a page or nothing is the answer of what stands in front of them.
    """
    if reply.status != HTTPStatus.NOT_FOUND:
        return False
    if not reply.holds_document:
        return True
    document = reply.document()
    return document in _NO_HANDLER or document.get("type") == _NO_HANDLER_TYPE


def error_text(body: Buffer) -> str:
    """Return the server's own words in the body of an error, in one line."""
    try:
        document = read_document(body)
    except BadAnswer:
        return _page_text(bytes(body[:100_000]).decode(errors="replace"))
    for _ in range(2):
        if isinstance(document, dict):
            document = next((document[field] for field in _TEXT_FIELDS if document.get(field)), document)
    text = document if isinstance(document, str) else msgspec.json.encode(document).decode()
    return in_line(text, MOST_SEARCHED)


def _page_text(page: str) -> str:
    return in_line(html.unescape(_INVISIBLE.sub(" ", page)), _MOST_PAGE_CHARACTERS)


def retry_after_s(value: str, now: dt.datetime) -> float:
    """Return the seconds of a `Retry-After` header, 0 if it holds neither seconds nor a date."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError):
            return 0.0
        if until.tzinfo is None:
            until = until.replace(tzinfo=dt.UTC)
        seconds = (until - now).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0


def failure(reply: Reply, where: str, now: dt.datetime) -> Exception:
    """Return the error that an answer stands for. where: the model and its server, for the message."""
    status = reply.status
    text = error_text(reply.body) or _reason(status)
    line = f"{where}: {in_line(text)}"
    brief = _brief(text, where)
    if 300 <= status < 400:
        target = quoted(reply.headers.get("location", ""))
        return Misconfigured(f"{where}: the server redirects to {target}; name that address as the endpoint")
    if _TLS_WANTED.search(text) and status == HTTPStatus.BAD_REQUEST:
        return Misconfigured(f"{brief}; write the endpoint as https://")
    if status in _REMEDIES:
        return Misconfigured(f"{brief} (HTTP {status}); {_REMEDIES[HTTPStatus(status)]}")
    if status == HTTPStatus.TOO_MANY_REQUESTS or (status in _AWAY and not text.startswith(_HANDLER_FAILED)):
        asks_s = retry_after_s(reply.headers.get("retry-after", ""), now)
        meaning = read_text(text).meaning
        if meaning is Meaning.LOADING and status in _AWAY:
            return ModelNotReady(line, asks_s)
        away = status in _AWAY and not asks_s and meaning is not Meaning.BUSY
        return (ServerAway if away else ServerBusy)(line, asks_s)
    return NoModelServer(brief) if has_no_handler(reply) else _by_text(status, text, where)


def _by_text(status: int, text: str, where: str) -> Exception:
    """Return the error of a status that servers use for several things."""
    line = f"{where}: {in_line(text)}"
    reading = read_text(text)
    if status == HTTPStatus.NOT_FOUND and reading.meaning is not Meaning.LOADING:
        return NotFound(_brief(text, where), of_model=reading.meaning is Meaning.ABSENT)
    # Such a text may begin with a request's own words, and no request may pass for a busy server.
    forged = status in _OF_VALUES and reading.meaning in (Meaning.BUSY, Meaning.OUT_OF_MEMORY)
    meant = None if forged else reading.failure(where)
    if meant or status < 400:
        return meant or BadAnswer(f"{where}: the server answers HTTP {status}, not 200")
    # 500 stands for values too: a model that raises on a batch, or dies of it, may do so for one request in it.
    return _BY_STATUS.get(status, ServerFailed if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Refused)(line)


def hidden_failure(document: Mapping[str, Any], where: str) -> Exception | None:
    """Return the error in the body of an answer with status 200, None if it holds none."""
    words = document.get("error")
    if not words:
        return None
    found = _by_text(HTTPStatus.BAD_REQUEST, " ".join(str(words).split()), where)
    # A server that looks at values says so with a status.
    return ServerFailed(str(found)) if type(found) is Refused else found


def _brief(text: str, where: str) -> str:
    """Return the start of an error that ends with what to do."""
    return f"{where}: {in_line(text, MOST_BEFORE_REMEDY)}"


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP {status}"
