"""Builds the rows and replies of a finished batch."""

from __future__ import annotations

from typing import Final

from headrace.contracts import InferenceFailed, Settings, State, encode_tensors
from headrace.contracts.message import Reply
from headrace.contracts.tensors.codec import datatypes_line
from headrace.results_store import BatchRows, Row, error_json
from headrace.workers.outbox import row_encoding
from headrace.workers.outbox.replies import OutgoingReplies, celery_failure, celery_success
from headrace.workers.request import AlreadyStored, FinishedBatch, InferenceRequest, Outcome, RowForm, Run

#: Postgres gives back no value whose text is longer than 1 GiB, and writes bytes as two characters each: what is larger
#: can be written but never be read, nor dumped. The rest of the row has what is left.
MAX_BLOB_BYTES: Final = 480 << 20

#: Looked up once: an enum's `value` is a property, and most rows need it.
_SUCCEEDED: Final = State.SUCCEEDED.value


def to_rows(batch: FinishedBatch, worker: str, settings: Settings, replies: OutgoingReplies) -> BatchRows:
    """Make the rows of a batch and add the replies to its requests to `replies`."""
    rows: list[Row] = []
    binary = batch.served is not None and batch.served.package.manifest.store.outputs == "binary"
    for run in batch.runs:
        _succeeded(run, rows, replies, binary=binary, inline_bytes=settings.inline_reply_bytes)
    for outcome in batch.outcomes:
        _ended(outcome, rows, replies)
    for known in batch.already_stored:
        _answered(known, replies)
    package = batch.served.package if batch.served is not None else None
    return BatchRows(
        model=package.name if package else _model_of(batch),
        version=package.version if package else "",
        batch_id=batch.batch_id,
        batch_rows=batch.rows,
        worker=worker,
        started_at=batch.started_at,
        finished_at=batch.finished_at,
        rows=rows,
    )


def _model_of(batch: FinishedBatch) -> str:
    return batch.outcomes[0].request.model if batch.outcomes else ""


def _succeeded(run: Run, rows: list[Row], replies: OutgoingReplies, *, binary: bool, inline_bytes: int) -> None:
    binary = binary or run.binary
    if row_encoding.may_be_large(run):
        for one in run.apart():
            size_bytes = row_encoding.body_bytes(one.outputs)
            if size_bytes > MAX_BLOB_BYTES:
                _ended(_too_large(one.requests[0], size_bytes), rows, replies)
            elif size_bytes > inline_bytes:
                _large(one, rows, replies, binary=binary)
            else:
                _encoded(one, rows, replies, binary=binary, inline_bytes=inline_bytes)
    else:
        _encoded(run, rows, replies, binary=binary, inline_bytes=inline_bytes)


def _encoded(run: Run, rows: list[Row], replies: OutgoingReplies, *, binary: bool, inline_bytes: int) -> None:
    bodies = row_encoding.bodies(run)
    texts = [None] * len(bodies) if binary else row_encoding.texts(run)
    datatypes = datatypes_line(run.outputs)
    for request, body, text in zip(run.requests, bodies, texts, strict=True):
        row = _row(request, _SUCCEEDED, outputs=text, datatypes=datatypes, blob=None if text else body)
        row.served_version = run.served_version or None
        rows.append(row)
        inline = len(body) <= inline_bytes
        reply = Reply(id=request.id, state=State.SUCCEEDED, outputs=body if inline else b"", stored=not inline)
        replies.add(request, reply, celery_success(request, body, text) if request.celery_result else None)


def _large(run: Run, rows: list[Row], replies: OutgoingReplies, *, binary: bool) -> None:
    """Store the outputs of one request, whose client reads them from its row: in one form, not in both."""
    (request,) = run.requests
    text = None if binary else row_encoding.texts(run)[0]
    body = None if text else row_encoding.bodies(run)[0]
    row = _row(request, _SUCCEEDED, outputs=text, datatypes=datatypes_line(run.outputs), blob=body)
    row.served_version = run.served_version or None
    rows.append(row)
    meta = celery_success(request, body or b"", text) if request.celery_result else None
    replies.add(request, Reply(id=request.id, state=State.SUCCEEDED, stored=True), meta)


def _too_large(request: InferenceRequest, size_bytes: int) -> Outcome:
    error = InferenceFailed(
        f"the outputs of this request take {size_bytes >> 20} MiB, and a row of the store holds at most"
        f" {MAX_BLOB_BYTES >> 20} MiB; send fewer rows in one request"
    )
    return Outcome(request=request, state=State.FAILED, error=error)


def _ended(outcome: Outcome, rows: list[Row], replies: OutgoingReplies) -> None:
    request, error = outcome.request, outcome.error
    if outcome.form is RowForm.FULL:
        rows.append(_row(request, outcome.state.value, error=error_json(error)))
    elif outcome.form is RowForm.REDUCED:
        rows.append(Row(id=request.row_id, state=outcome.state.value, error=error_json(error)))
    reply = Reply(id=request.id, state=outcome.state, error_type=error.type, error_message=error.message)
    replies.add(request, reply, celery_failure(request, error) if request.celery_result else None)


def _answered(known: AlreadyStored, replies: OutgoingReplies) -> None:
    """Answer from the row that is there; nothing is stored."""
    request, prediction = known.request, known.prediction
    meta = None
    if request.celery_result and prediction.error is not None:
        meta = celery_failure(request, prediction.error)
    elif request.celery_result:
        meta = celery_success(request, encode_tensors(prediction.outputs or {}), None)
    replies.add(request, prediction.as_reply(request.id), meta)


def _row(
    request: InferenceRequest,
    state: str,
    *,
    outputs: bytes | None = None,
    datatypes: str = "",
    blob: bytes | None = None,
    error: bytes | None = None,
) -> Row:
    header = request.header
    return Row(
        id=request.row_id,
        foreign_id=request.foreign_id,
        state=state,
        outputs=outputs,
        datatypes=datatypes,
        blob=blob,
        error=error,
        submitted_at=request.submitted_at,
        attempts=request.attempts,
        job_id=header.job_id or None,
        row_index=header.row_index if header.row_index >= 0 else None,
    )
