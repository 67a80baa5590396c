"""Submissions whose callers are cancelled: what got onto its queue is cancelled, whenever that was."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
from tests.gateway.conftest import Served

from headrace.gateway.inference.inference import Inference
from headrace.gateway.inference.models import ServedModels
from headrace.gateway.inference.question import Question
from headrace.producers import AsyncClient
from headrace.queueing import connect_to, queue_stats
from headrace.results_store import StoreReader

#: Steps of the event loop after which a submission is cancelled; none takes more.
STEPS = 40

QUESTION = Question(model="gate", inputs={"x": np.ones((1, 1), np.float32)}, deadline_s=60)


async def submit_and_cancel(served: Served) -> None:
    models = ServedModels(served.settings)
    async with AsyncClient(served.settings) as client:
        inference = Inference(client, models)
        await models.check("gate")
        for steps in range(STEPS):
            submission = asyncio.create_task(inference.submit_whole(QUESTION))
            for _ in range(steps):
                await asyncio.sleep(0)
            submission.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                inference.cancel_later(await submission)
        # The end of a submission begins a cancellation.
        await inference.close()
        await inference.close()
    await models.close()


def test_a_submission_that_is_cancelled_leaves_nothing_on_the_queue_that_runs(served: Served) -> None:
    with served.held():
        asyncio.run(submit_and_cancel(served))
        with connect_to(served.settings) as client:
            (stats,) = queue_stats(client, ["infer.gate"])
        with StoreReader(served.settings.require_database_url()) as reader:
            states = [row.state for row in reader.find(model="gate")]
    assert set(states) == {"cancelled"}
    # What a worker has dropped already is no longer on the queue.
    assert stats.waiting + stats.in_flight <= len(states)
