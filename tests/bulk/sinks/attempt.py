"""An attempt at a shard as a process of its own, which can be killed: writes parts, publishes them, says so.

    python attempt.py OUTPUT SCRATCH FORMAT PARTS ROWS

Prints the name of each part once it is published, and waits at the end for ever.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace.bulk.sinks.base import PartFormat
from headrace.bulk.sinks.formats.opening import open_part
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import part_name
from headrace.bulk.sinks.output.publication import PublishedPart, publish_part
from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.opening import open_storage
from headrace.bulk.storage.roots import Roots
from headrace.results_store.jobs.records import Slice

BATCH_ROWS = 1000
SCHEMA = pa.schema([("file", pa.int64()), ("row", pa.int64()), ("score", pa.float64())])


def attempt(storage: Storage, folder: str, scratch: Path, kind: PartFormat, shard: int, rows: int) -> PublishedPart:
    """Score and publish one shard: a file whose rows are its own number and the row's."""
    identity = PartIdentity(key="ab" * 32, job="job-1", shard=shard, file_no=shard, row_start=0, rows_ok=rows)
    writer = open_part(kind, scratch / "part", SCHEMA)
    for start in range(0, rows, BATCH_ROWS):
        numbers = np.arange(start, min(start + BATCH_ROWS, rows))
        columns = [np.full(len(numbers), shard), numbers, numbers / 7]
        writer.write(pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=SCHEMA))
    local = writer.close(identity.metadata())
    return publish_part(storage, local, folder, part_name(Slice(file_no=shard), kind), identity)


def main(folder: str, scratch: str, kind: PartFormat, parts: str, rows: str) -> None:
    root = folder.removesuffix("/out")
    storage = open_storage(folder, Roots([root]))
    print("ready", flush=True)
    for shard in range(int(parts)):
        done = attempt(storage, folder, Path(scratch), kind, shard, int(rows))
        print(done.name, flush=True)
    print("done", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
