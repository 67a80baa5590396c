"""Requests as the intake makes them, for tests of what happens after it."""

from __future__ import annotations

import uuid
from typing import cast

import numpy as np

from headrace.contracts.message import RequestHeader
from headrace.queueing import ClaimingConsumer
from headrace.workers.request import InferenceRequest


def made_request(inputs: dict[str, np.ndarray], rows: int) -> InferenceRequest:
    return InferenceRequest(
        id=str(uuid.uuid4()),
        row_id=uuid.uuid4(),
        model="m",
        served=None,
        consumer=cast("ClaimingConsumer", None),  # nobody asks it
        tag="",
        header=RequestHeader(),
        inputs=inputs,
        rows=rows,
        priority=0,
        deadline=None,
        submitted_at=0.0,
        attempts=1,
        celery_result=False,
        note="",
    )
