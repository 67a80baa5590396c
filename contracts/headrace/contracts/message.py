"""Messages on the queue: a request as a Celery message (protocol 2), and the reply to it.

`encode_request` writes the JSON envelope that kombu's Redis transport reads and writes, so that any
Celery worker, client or Flower understands it. A request body is either tensors (`encode_tensors`) or
plain Celery JSON, `[[], {"inputs": {name: nested lists}}, {...}]`, with NaN and infinity as in `python_json`.

Source: https://docs.celeryq.dev/en/stable/internals/protocol.html (version 2).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from headrace.contracts.compact import template_of
from headrace.contracts.errors import InvalidRequest, quoted
from headrace.contracts.tensors import python_json
from headrace.contracts.tensors.codec import CONTENT_TYPE, Tensors, decode_tensors

#: Task names and queue names are this prefix and the model's name.
TASK_PREFIX: Final = "infer."

#: Version of the `headrace` header. A worker refuses a newer one rather than guess.
PROTOCOL: Final = 1

#: Priorities are 0 (default) to 9 (most urgent), as in AMQP.
MAX_PRIORITY: Final = 9

JSON_CONTENT_TYPE: Final = "application/json"

#: The end of the year 9999 in seconds since 1970: the last that a timestamp can name.
_LAST_SECOND: Final = 253_402_300_799

#: The header comes from outside and goes into rows that are stored together with others, so that whatever the store
#: could refuse is refused here: text with NUL or lone surrogates, numbers too large for their column.
_Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00\ud800-\udfff]*\Z")]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=_LAST_SECOND)]
_Index: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]

#: Workers push onto the key that the header names; it can be an inbox of `queueing.keys.inbox` and nothing else.
_Inbox: TypeAlias = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^(headrace:inbox:[!-~]+)?\Z")]


class RequestHeader(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The `headrace` header, for everything that Celery's own headers have no place for.

    version: model version or alias, "" for the default. checked: the version whose signature the client compared the
    inputs with, where it left `version` out. inbox: key of the list the reply goes to, "" for none.
    submitted_at: seconds since 1970. job_id, row_index: the bulk job and the row in it that this request is.
    """

    v: int = PROTOCOL
    version: _Text = ""
    checked: _Text = ""
    rows: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    inbox: _Inbox = ""
    submitted_at: _Seconds = 0.0
    job_id: _Text = ""
    row_index: _Index = -1
    tenant: _Text = ""
    trace: _Text = ""


class Request(msgspec.Struct, kw_only=True):
    """One request before it is encoded.

    body: `encode_tensors(...)`, or `json_body(...)` with `content_type` set to JSON.
    expires_at: seconds since 1970, or None. note: a short human line, shown by Flower as the arguments.
    task: name of the task and its queue where that is not `infer.MODEL`.
    """

    id: str
    model: str
    body: bytes
    header: RequestHeader
    content_type: str = CONTENT_TYPE
    priority: int = 0
    expires_at: float | None = None
    note: str = ""
    origin: str = ""
    task: str = ""


class Reply(msgspec.Struct, kw_only=True, array_like=True):
    """The outcome of one request, as it goes to a client's inbox.

    state: a terminal state of `predictions`. outputs: `encode_tensors(...)`; empty when they were too large to
    travel inline (`stored` is then true: read the row) or when the request did not succeed.
    """

    id: str
    state: str
    outputs: bytes = b""
    stored: bool = False
    error_type: str = ""
    error_message: str = ""


_JSON_BODY_END: Final = b'},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'

_json_encode: Final = msgspec.json.Encoder().encode
#: Tasks that Celery's protocol lets a task start after it. Better refused than silently dropped.
_CONTINUATIONS: Final = ("callbacks", "errbacks", "chain", "chord")

_replies_encode: Final = msgspec.msgpack.Encoder().encode
_replies_decode: Final = msgspec.msgpack.Decoder(list[Reply]).decode

#: An element of an inbox that was full: replies to its client were dropped, and their rows are to be looked for.
REPLIES_DROPPED: Final = _replies_encode([Reply(id="", state="")])


def queue_name(model: str) -> str:
    """Return the name of a model's queue, which is also its task name."""
    return TASK_PREFIX + model


def iso_time(unix_seconds: float) -> str:
    """Write a time as Celery's headers do: ISO 8601 in UTC, with microseconds. Raises InvalidRequest after 9999."""
    try:
        return dt.datetime.fromtimestamp(unix_seconds, dt.UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(f"the deadline {unix_seconds} is no time between 1970 and 9999; give seconds") from None


def encode_request(request: Request) -> bytes:
    """Write the envelope of one request, ready for `LPUSH` onto its queue."""
    task = request.task or TASK_PREFIX + request.model
    return _json_encode(
        {
            "body": base64.b64encode(request.body).decode("ascii"),
            "content-encoding": "utf-8" if request.content_type == JSON_CONTENT_TYPE else "binary",
            "content-type": request.content_type,
            "headers": {
                "lang": "py",
                "task": task,
                "id": request.id,
                "shadow": None,
                "eta": None,
                "expires": None if request.expires_at is None else iso_time(request.expires_at),
                "group": None,
                "group_index": None,
                "retries": 0,
                "timelimit": [None, None],
                "root_id": request.id,
                "parent_id": None,
                "argsrepr": request.note,
                "kwargsrepr": "{}",
                "origin": request.origin,
                "ignore_result": False,
                "headrace": request.header,
            },
            "properties": {
                "correlation_id": request.id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": task},
                "priority": request.priority,
                "body_encoding": "base64",
                "delivery_tag": request.id,
            },
        }
    )


class Envelope:
    """Writes the envelopes of requests that differ in id and body only, four times as fast as `encode_request`."""

    def __init__(self, like: Request) -> None:
        """like: all that the requests have in common; its id and body are not used."""
        # Fresh randomness can't occur anywhere else in the envelope, so splitting at it is exact.
        identity, body = os.urandom(16).hex(), os.urandom(18)
        whole = encode_request(msgspec.structs.replace(like, id=identity, body=body))
        self._before_body, rest = whole.split(base64.b64encode(body))
        self._parts = rest.split(_json_encode(identity))

    @property
    def template(self) -> bytes | None:
        """The part that messages share, for `compact.expand`."""
        return template_of(self._before_body, self._parts)

    def encode(self, request_id: str, body: bytes) -> bytes:
        """Write the envelope of one request: the same bytes as `encode_request` gives."""
        parts = self._parts
        name = _json_encode(request_id)
        return b"".join((
            self._before_body, binascii.b2a_base64(body, newline=False),
            parts[0], name, parts[1], name, parts[2], name, parts[3], name, parts[4],
        ))  # fmt: skip


def json_body(inputs: Mapping[str, object]) -> bytes:
    """Write inputs as the body of a plain Celery call, `kwargs={"inputs": inputs}`; nested lists of JSON values.

    NaN and infinity go as literals. Raises InvalidRequest for what JSON can't carry, and for None.
    """
    try:
        written = python_json.encode(inputs)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise InvalidRequest(f"the inputs can't be written as JSON: {exc}; give numpy arrays or nested lists") from None
    return b'[[],{"inputs":' + written + _JSON_BODY_END


def decode_header(raw: object) -> RequestHeader:
    """Read the `headrace` header of a message; a missing one (a foreign client's) counts as the defaults.

    raw: the header as decoded from JSON. Raises InvalidRequest when it is malformed or of a newer protocol.
    """
    if raw is None:
        return RequestHeader()
    try:
        header = msgspec.convert(raw, RequestHeader)
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as exc:  # the last for lone surrogates
        raise InvalidRequest(f"the headrace header is malformed: {exc}") from None
    if header.v > PROTOCOL:
        raise InvalidRequest(
            f"the request speaks headrace protocol {header.v}, this worker {PROTOCOL}; upgrade the workers first"
        )
    return header


def decode_inputs(body: bytes | memoryview, content_type: str | None) -> Tensors | dict[str, object]:
    """Read the inputs out of a message body: arrays from tensors, nested lists from JSON.

    Raises InvalidRequest for any other content type (pickle above all) and for a malformed body.
    """
    if content_type == CONTENT_TYPE:
        return decode_tensors(body)
    if content_type == JSON_CONTENT_TYPE:
        return _inputs_of_json(body)
    raise InvalidRequest(
        f"content type {quoted(content_type)} is refused; send {CONTENT_TYPE} or JSON kwargs={{'inputs': {{...}}}}"
    )


def _inputs_of_json(body: bytes | memoryview) -> dict[str, object]:
    try:
        document: Any = python_json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise InvalidRequest(f"the body is not JSON: {exc}") from None
    kwargs = document[1] if isinstance(document, list) and len(document) >= 2 else None
    if not isinstance(kwargs, dict) or not isinstance(kwargs.get("inputs"), dict):
        raise InvalidRequest("the JSON body must be a Celery call with kwargs={'inputs': {name: nested lists}}")
    unknown = [name for name in kwargs if name != "inputs"]
    if unknown or document[0]:
        raise InvalidRequest("the call takes no arguments besides kwargs={'inputs': {name: nested lists}}")
    embed = document[2] if len(document) > 2 else None
    if isinstance(embed, dict) and any(embed.get(name) for name in _CONTINUATIONS):
        raise InvalidRequest("workers don't run callbacks, chains or chords; submit the next task from its result")
    inputs: dict[str, object] = kwargs["inputs"]
    return inputs


def encode_replies(replies: list[Reply]) -> bytes:
    """Pack the replies of one batch to one client into one element of its inbox."""
    return _replies_encode(replies)


def decode_replies(raw: bytes) -> list[Reply]:
    """Unpack one element of an inbox. Raises InvalidRequest when it is malformed."""
    try:
        return _replies_decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"a reply in the inbox is malformed: {exc}") from exc


def were_dropped(replies: list[Reply]) -> bool:
    """Return whether these replies are the REPLIES_DROPPED of an inbox that was full."""
    return len(replies) == 1 and not replies[0].id
