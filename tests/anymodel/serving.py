"""A worker's own parts without its servers: the served's checks and buckets, the runner, the encoding of answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from headrace.contracts import HeadraceError, ModelPackage, Tensors, decode_tensors, encode_tensors
from headrace.workers.execution.runner import Runner
from headrace.workers.models.served_model import ServedModel
from headrace.workers.outbox.row_encoding import bodies
from headrace.workers.request import InferenceRequest

#: What a request got: its outputs, or the error that its caller sees.
Answer = Tensors | HeadraceError


@contextmanager
def served_model_of(package: ModelPackage) -> Iterator[ServedModel]:
    """Load a model as a worker does, for as long as the block lasts."""
    served = ServedModel(package, device="cpu", threads=1)
    try:
        served.load()
        yield served
    finally:
        served.close()


def serve(served: ServedModel, sent: Sequence[Tensors], rng: np.random.Generator) -> list[Answer]:
    """Serve requests that wait at the same time, in runs as large as may be, joined in a random order."""
    answers: dict[int, Answer] = {}
    buckets: dict[Hashable, list[InferenceRequest]] = {}
    for number in rng.permutation(len(sent)).tolist():
        try:
            # As from the wire: a request is packed by the client and read by the worker.
            inputs = served.check_inputs(decode_tensors(encode_tensors(served.signature.check_inputs(sent[number]))))
        except HeadraceError as exc:
            answers[number] = exc
            continue
        buckets.setdefault(served.bucket_of(inputs), []).append(_request(number, served, inputs))
    for bucket in buckets.values():
        for batch in _batches(bucket, served.max_rows):
            answers |= _run(served, batch)
    return [answers[number] for number in range(len(sent))]


def _batches(bucket: list[InferenceRequest], max_rows: int) -> Iterator[list[InferenceRequest]]:
    batch: list[InferenceRequest] = []
    for request in bucket:
        if batch and sum(each.rows for each in batch) + request.rows > max_rows:
            yield batch
            batch = []
        batch.append(request)
    yield batch


def _run(served: ServedModel, batch: list[InferenceRequest]) -> dict[int, Answer]:
    verdict = Runner(served.load(), served.max_rows).run(batch)
    answers: dict[int, Answer] = {int(outcome.request.id): outcome.error for outcome in verdict.outcomes}
    for run in verdict.runs:
        for request, body in zip(run.requests, bodies(run), strict=True):
            answers[int(request.id)] = decode_tensors(body)
    return answers


def _request(number: int, served: ServedModel, inputs: Tensors) -> InferenceRequest:
    nobody = cast("Any", None)
    return InferenceRequest(
        id=str(number),
        row_id=uuid.UUID(int=number),
        model=served.package.name,
        served=served,
        consumer=nobody,
        tag="",
        header=nobody,
        inputs=inputs,
        rows=served.signature.rows_of(inputs),
        priority=0,
        deadline=None,
        submitted_at=time.time(),
        attempts=1,
        celery_result=False,
        note="",
    )
