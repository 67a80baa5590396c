"""Daft over the same input; runs in an environment of its own, without headrace."""

from __future__ import annotations

import os
import time
from typing import Any

from work import SCORERS, arguments, report

#: Rows of the batches that Daft hands to the scorer; it cuts them into batches of the model.
BLOCK_ROWS = {"digits": 32_768, "sentences": 4_096}


def main() -> None:
    """Run it, and print what it took."""
    options = arguments()
    began = time.perf_counter()
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    import daft
    import pyarrow as pa

    started = time.perf_counter()
    frame = daft.read_parquet(options.input)
    column = "image" if options.loop == "digits" else "text"
    kinds = {
        "digits": daft.DataType.struct({
            "label": daft.DataType.int64(),
            "scores": daft.DataType.fixed_size_list(daft.DataType.float32(), 10),
            "score": daft.DataType.float32(),
        }),
        "sentences": daft.DataType.struct(
            {"embedding": daft.DataType.fixed_size_list(daft.DataType.float32(), 384)}
        ),
    }  # fmt: skip

    @daft.cls(max_concurrency=options.actors, use_process=options.actors > 1)
    class Scorer:
        def __init__(self) -> None:
            self._score = SCORERS[options.loop](options)

        @daft.method.batch(return_dtype=kinds[options.loop], batch_size=BLOCK_ROWS[options.loop])
        def score(self, values: Any) -> Any:
            array = values.to_arrow()
            found = self._score(pa.table({"id": pa.nulls(len(array), pa.int64()), column: array}))
            found = found.drop_columns(["id"])
            return pa.StructArray.from_arrays([each.combine_chunks() for each in found.columns], found.column_names)

    found = frame.with_column("found", Scorer().score(frame[column]))
    names = {"digits": ["label", "scores", "score"], "sentences": ["embedding"]}[options.loop]
    found.select("id", *[found["found"].get(name).alias(name) for name in names]).write_parquet(
        options.output, compression="zstd"
    )
    report(options, daft.__version__, time.perf_counter() - started, started - began)


if __name__ == "__main__":
    main()
