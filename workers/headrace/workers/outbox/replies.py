"""Outgoing replies: for inboxes of our clients, and Celery results for plain Celery clients."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from headrace.contracts import HeadraceError, decode_tensors
from headrace.contracts.errors import NotRegistered
from headrace.contracts.message import Reply
from headrace.contracts.tensors.codec import tensors_to_json
from headrace.workers.request import InferenceRequest

#: Celery's Redis result backend keeps a task's result under this prefix, and publishes it on a channel of that name.
CELERY_RESULT_PREFIX: Final = "celery-task-meta-"

_json: Final = msgspec.json.Encoder().encode


class OutgoingReplies(msgspec.Struct):
    """All replies of some finished batches: by the inbox that the header names, and Celery results by request."""

    by_inbox: dict[str, list[Reply]]
    celery: dict[str, bytes]

    @classmethod
    def empty(cls) -> OutgoingReplies:
        """Return an empty collection."""
        return cls({}, {})

    def add(self, request: InferenceRequest, reply: Reply, celery_result: bytes | None) -> None:
        """Add the answer to one request, where anybody waits for it."""
        if request.header.inbox:
            self.by_inbox.setdefault(request.header.inbox, []).append(reply)
        if celery_result is not None:
            self.celery[request.id] = celery_result


def celery_result_key(prefix: str, request_id: str) -> str:
    """Return the key where Celery's backend looks for a result, if its `global_keyprefix` is this prefix.

    Celery parts a prefix that ends in none of these marks from the rest.
    """
    if prefix and prefix[-1] not in ":_-.":
        prefix += "_"
    return prefix + CELERY_RESULT_PREFIX + request_id


def celery_success(request: InferenceRequest, body: bytes, text: bytes | None) -> bytes:
    """Write the result of a plain Celery client's request: `{output name: nested lists}`.

    body: the outputs as tensors. text: the same as JSON; None where the store holds the tensors themselves, since jsonb
    has no NaN and no infinity.
    """
    return _celery_meta(request, "SUCCESS", msgspec.Raw(text or tensors_to_json(decode_tensors(body))))


def celery_failure(request: InferenceRequest, error: HeadraceError) -> bytes:
    """Write the failure of a plain Celery client's request, in the form Celery's backends rebuild an exception from."""
    # Who waits for a task that nobody knows expects the exception of a Celery worker.
    module = "celery.exceptions" if isinstance(error, NotRegistered) else HeadraceError.__module__
    return _celery_meta(
        request, "FAILURE", {"exc_type": error.type, "exc_message": [error.message], "exc_module": module}
    )


def _celery_meta(request: InferenceRequest, status: str, result: object) -> bytes:
    return _json(
        {
            "status": status,
            "result": result,
            "traceback": None,
            "children": [],
            "date_done": dt.datetime.now(dt.UTC).isoformat(),
            "task_id": request.id,
        }
    )
