"""Tickets as messages: Celery calls (protocol 2) with JSON arguments, which Flower shows with a readable line."""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.contracts.errors import InvalidRequest
from headrace.contracts.jobs import Ticket, score_queue, shard_id
from headrace.contracts.message import JSON_CONTENT_TYPE, Request, RequestHeader, encode_request

_NO_CONTINUATION: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


class _Call(msgspec.Struct, array_like=True):
    args: list[object]
    kwargs: Ticket


_decode: Final = msgspec.json.Decoder(_Call).decode


def encode_ticket(model: str, ticket: Ticket, note: str = "", origin: str = "") -> bytes:
    """Write the envelope of a ticket, ready for its queue, `score_queue(model)`.

    note: a short line for Flower, such as "reviews.parquet → embed 3, shard 12, rows 600000-649999".
    """
    body = msgspec.json.encode([[], msgspec.to_builtins(ticket), _NO_CONTINUATION])
    return encode_request(
        Request(
            id=str(shard_id(ticket.job, ticket.shard)),
            model=model,
            body=body,
            header=RequestHeader(job_id=ticket.job),
            content_type=JSON_CONTENT_TYPE,
            note=note,
            origin=origin,
            task=score_queue(model),
        )
    )


def decode_ticket(body: bytes | memoryview) -> Ticket:
    """Read the body of a ticket. Raises InvalidRequest when it is none."""
    try:
        return _decode(body).kwargs
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"the message is no ticket of a bulk job: {exc}; `headrace score` sends them") from None
