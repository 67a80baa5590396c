"""How much a worker's memory grows while Postgres is silent for a minute and outputs are 1 MB each."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from benchmarks.online_parts.processes import resident_mb
from benchmarks.resilience_parts.silence import _client, _direct
from benchmarks.resilience_parts.stage import LARGE, READY_S, Stage

SILENT_S = 60.0

#: More than fit anywhere: 2 GB of outputs.
REQUESTS = 2_000


def run(stage: Stage, _: Any) -> dict[str, Any]:
    """Measure the growth, and how long all took once Postgres answered again."""
    with stage.worker() as worker, _client(stage, _direct(stage)) as client:
        for handle in client.submit_many(LARGE, {"x": np.ones((64, 1), np.float32)}):
            handle.result(timeout_s=READY_S)
        before_mb = most_mb = resident_mb(worker.pid)
        stage.of_workers.postgres.stall()
        handles = client.submit_many(LARGE, {"x": np.ones((REQUESTS, 1), np.float32)})
        ends_at = time.monotonic() + SILENT_S
        while time.monotonic() < ends_at:
            most_mb = max(most_mb, resident_mb(worker.pid))
            time.sleep(0.2)
        stage.of_workers.postgres.flow()
        began = time.monotonic()
        for handle in handles:
            handle.result(timeout_s=300)
            most_mb = max(most_mb, resident_mb(worker.pid))
    return {"before_mb": before_mb, "grown_mb": most_mb - before_mb, "caught_up_s": time.monotonic() - began}
