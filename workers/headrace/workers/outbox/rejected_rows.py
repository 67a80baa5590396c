"""Stores a reduced row when Postgres rejects the full one; dead-letters the request when even that fails."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from headrace.contracts import HeadraceError, InferenceFailed, State
from headrace.contracts.errors import error_from_wire
from headrace.contracts.message import Reply, encode_replies
from headrace.workers.request import DeadLetterReason, FinishedBatch, InferenceRequest, Outcome, RowForm, Run

logger = logging.getLogger(__name__)

#: How long the answer to a request without a row is kept for its client.
ANSWER_TTL_S: Final = 24 * 3600

#: Log messages about a request whose row was rejected, by the form in which it is stored instead.
_INSTEAD: Final = {
    RowForm.FULL: "outputs can't be stored",
    RowForm.REDUCED: "a row can't be stored, only a part of it",
    RowForm.NONE: "not even a part of a row can be stored; a dead letter now",
}


def replace_rejected(batch: FinishedBatch, refused: Collection[uuid.UUID], why: str) -> FinishedBatch:
    """Return a batch whose refused rows are replaced; their neighbours stay as they are.

    Outputs as JSON become the same as bytes, outputs as bytes a failure, a failure (or what else ended the request) a
    reduced one, and that no row at all but a dead letter. So a batch is whole after four refusals of each row at most.
    """
    as_json = batch.served is not None and batch.served.package.manifest.store.outputs == "json"
    runs: list[Run] = []
    outcomes = [_reduced(outcome, why) if outcome.request.row_id in refused else outcome for outcome in batch.outcomes]
    for run in batch.runs:
        if any(request.row_id in refused for request in run.requests):
            for one in run.apart():
                if one.requests[0].row_id not in refused:
                    runs.append(one)
                elif as_json and not one.binary:
                    runs.append(msgspec.structs.replace(one, binary=True, refusal=why))
                else:
                    outcomes.append(_failed(one.requests[0], why))
        else:
            runs.append(run)
    return msgspec.structs.replace(batch, runs=runs, outcomes=outcomes)


def _failed(request: InferenceRequest, why: str) -> Outcome:
    error = InferenceFailed("the outputs of this request can't be stored; the worker's log has the cause")
    return Outcome(request=request, state=State.FAILED, error=error, refusal=why)


def _reduced(outcome: Outcome, why: str) -> Outcome:
    """Return an outcome whose row holds less than the one that was refused."""
    if outcome.form is RowForm.FULL:
        return msgspec.structs.replace(outcome, error=_plain(outcome.error), form=RowForm.REDUCED, refusal=why)
    history = [f"{outcome.state.value}: {outcome.error.type}: {outcome.error.message}"]
    dead_letter = outcome.dead_letter or DeadLetterReason(reason=f"unstorable: {why}", history=history)
    # A reply may be lost with its connection, and here no row makes up for it.
    reply = Reply(
        id=outcome.request.id,
        state=outcome.state,
        error_type=outcome.error.type,
        error_message=outcome.error.message,
    )
    dead_letter = msgspec.structs.replace(dead_letter, answer=(encode_replies([reply]), ANSWER_TTL_S))
    return msgspec.structs.replace(outcome, dead_letter=dead_letter, form=RowForm.NONE, refusal=why)


def report(batches: Iterable[FinishedBatch]) -> None:
    """Log one line for each request of these, which have ended, whose row was refused: what is stored instead."""
    for batch in batches:
        for run in batch.runs:
            if run.refusal:
                logger.warning("outputs are stored as bytes: request=%s: %s", run.requests[0].id, run.refusal)
        for outcome in batch.outcomes:
            if outcome.refusal:
                logger.error("%s: request=%s: %s", _INSTEAD[outcome.form], outcome.request.id, outcome.refusal)


def _plain(error: HeadraceError) -> HeadraceError:
    """Return an error of the same type whose message every database encoding can hold."""
    return error_from_wire(error.type, error.message.encode("ascii", "backslashreplace").decode("ascii"))
