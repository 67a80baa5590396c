"""Ray Data over the same input; runs in an environment of its own, without headrace.

.venv-engines/bin/python ray_data.py digits IN.parquet OUT --model model.onnx --batch-rows 64 --threads 1
"""

from __future__ import annotations

import os
import time
from typing import Any

from work import SCORERS, arguments, report

#: Rows of the batches that Ray hands to the scorer; it cuts them into batches of the model.
BLOCK_ROWS = {"digits": 32_768, "sentences": 4_096}


def main() -> None:
    """Run it, and print what it took."""
    options = arguments()
    began = time.perf_counter()
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    scorer = SCORERS[options.loop]

    class Scorer:
        def __init__(self) -> None:
            self._score = scorer(options)

        def __call__(self, batch: Any) -> Any:
            return self._score(batch)

    started = time.perf_counter()
    ray.data.read_parquet(options.input).map_batches(
        Scorer,
        batch_size=BLOCK_ROWS[options.loop],
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=options.actors),
        num_cpus=1,
    ).write_parquet(options.output, arrow_parquet_args_fn=lambda: {"compression": "zstd"})
    seconds = time.perf_counter() - started
    report(options, ray.__version__, seconds, started - began)
    ray.shutdown()


if __name__ == "__main__":
    main()
