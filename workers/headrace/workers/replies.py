"""What clients are told: replies for inboxes of our clients, and Celery results for plain Celery clients."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Final

import msgspec
import numpy as np
import orjson

from headrace.contracts import HeadraceError, Tensors, decode_tensors
from headrace.contracts.message import Reply
from headrace.workers.request import InferenceRequest

#: Celery's Redis result backend keeps a task's result under this prefix, and publishes it on a channel of that name.
CELERY_RESULT_PREFIX: Final = "celery-task-meta-"

_json: Final = msgspec.json.Encoder().encode


class Answers(msgspec.Struct):
    """All replies of some finished batches: by inbox, and by Celery result key."""

    by_inbox: dict[str, list[Reply]]
    celery: dict[str, bytes]

    @classmethod
    def empty(cls) -> Answers:
        """Start without answers."""
        return cls({}, {})

    def add(self, request: InferenceRequest, reply: Reply, celery_result: bytes | None) -> None:
        """Add the answer to one request, where anybody waits for it."""
        if request.header.inbox:
            self.by_inbox.setdefault(request.header.inbox, []).append(reply)
        if celery_result is not None:
            self.celery[CELERY_RESULT_PREFIX + request.id] = celery_result


def celery_success(request: InferenceRequest, body: bytes, text: bytes | None) -> bytes:
    """Write the result of a plain Celery client's request: `{output name: nested lists}`.

    body: the outputs as tensors. text: the same as JSON; None where JSON can't hold them exactly: then NaN and
    infinity become null, and bytes that are no text become base64.
    """
    return _celery_meta(request, "SUCCESS", msgspec.Raw(text or lossy_json(decode_tensors(body))))


def lossy_json(outputs: Tensors) -> bytes:
    """Write outputs as JSON even where JSON can't hold them exactly."""
    return orjson.dumps(
        {
            name: array.tolist() if array.dtype.kind != "V" else array.astype(np.float32)
            for name, array in outputs.items()
        },
        default=_base64,
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _base64(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is no tensor element")
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def celery_failure(request: InferenceRequest, error: HeadraceError) -> bytes:
    """Write the failure of a plain Celery client's request, in the form Celery's backends rebuild an exception from."""
    return _celery_meta(
        request,
        "FAILURE",
        {"exc_type": error.type, "exc_message": [error.message], "exc_module": HeadraceError.__module__},
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
