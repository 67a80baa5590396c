"""Ways to write finished batches into Postgres, and what each index costs: why the store writes as it does.

    python benchmarks/store.py             # about two minutes; prints tables
    python benchmarks/store.py --quick     # a few seconds a table, noisier
    python benchmarks/store.py --json      # one JSON object on standard output

One writer, one Postgres over its Unix socket with the server's default durability (fsync on, synchronous_commit on).
Rows are those of a small classifier: a label and ten scores as JSON. Rates are of the median write, so that
checkpoints and neighbours on the machine count little; CPU is of the writer's thread and of the server's backend.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psycopg
from psycopg import pq

from headrace.cli.stack.servers import Postgres
from headrace.contracts.ids import new_ids
from headrace.results_store import BatchRows, Row, StoreWriter, migrate
from headrace.results_store.database.address import connect
from headrace.results_store.writing import columns, writer

Connection = psycopg.Connection[tuple[Any, ...]]
Write = Callable[[list[BatchRows]], object]

OUTPUTS = b'{"label":[7],"scores":[[0.01,0.02,0.03,0.5,0.2,0.1,0.05,0.04,0.03,0.02]]}'
TICKS = os.sysconf("SC_CLK_TCK")
COLUMN_LIST = ", ".join(columns.NAMES)


@dataclass
class Measured:
    """One way at one size: median rate, latency, CPU and WAL."""

    way: str
    batch_rows: int
    rows_per_s: float
    p50_us: float
    p99_us: float
    writer_cpu_us_per_row: float
    server_cpu_us_per_row: float
    wal_bytes_per_row: float


def make_batch(count: int) -> BatchRows:
    now = time.time()
    rows = [
        Row(
            id=uuid.UUID(name),
            state="succeeded",
            outputs=OUTPUTS,
            datatypes="label:INT64,scores:FP32",
            submitted_at=now,
        )
        for name in new_ids(count)
    ]
    return BatchRows(
        model="digits",
        version="2",
        rows=rows,
        started_at=now,
        finished_at=now,
        batch_id=uuid.uuid4(),
        batch_rows=count,
        worker="worker@host",
    )


def backend_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(way: str, write: Write, connection: Connection, batch_rows: int, total: int) -> Measured:
    """connection: the one that `write` uses."""

    def wal() -> float:
        found = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        assert found is not None
        return float(found[0])

    connection.execute("TRUNCATE predictions")
    connection.execute("CHECKPOINT")
    for _ in range(10):
        write([make_batch(batch_rows)])
    pid = connection.info.backend_pid
    server_cpu, wal_before, writer_cpu, took = backend_cpu_s(pid), wal(), 0.0, []
    writes = max(total // batch_rows, 20)
    for _ in range(writes):
        batches = [make_batch(batch_rows)]
        cpu, began = time.thread_time(), time.perf_counter()
        write(batches)
        took.append(time.perf_counter() - began)
        writer_cpu += time.thread_time() - cpu
    rows = writes * batch_rows
    return Measured(
        way=way,
        batch_rows=batch_rows,
        rows_per_s=batch_rows / statistics.median(took),
        p50_us=statistics.median(took) * 1e6,
        p99_us=statistics.quantiles(took, n=100)[98] * 1e6,
        writer_cpu_us_per_row=writer_cpu / rows * 1e6,
        server_cpu_us_per_row=(backend_cpu_s(pid) - server_cpu) / rows * 1e6,
        wal_bytes_per_row=(wal() - wal_before) / rows,
    )


def execute(connection: Connection, name: bytes, parameters: list[bytes]) -> None:
    formats = [pq.Format.BINARY] * len(parameters)
    result = connection.pgconn.exec_prepared(name, parameters, formats, pq.Format.BINARY)
    assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message


def prepare(connection: Connection, name: bytes, statement: str) -> None:
    result = connection.pgconn.prepare(name, statement.encode())
    assert result.status == pq.ExecStatus.COMMAND_OK, result.error_message


def arrays(statement: str) -> Callable[[Connection], Write]:
    def make(connection: Connection) -> Write:
        prepare(connection, b"arrays", statement)
        return lambda batches: execute(connection, b"arrays", columns.array_parameters(columns.encode_columns(batches)))

    return make


def lists(connection: Connection) -> Write:
    """What one writes first: psycopg's own adaptation of Python lists, text protocol."""
    kinds = [kind for kind, _ in columns._TYPES.values()]
    unnest = ", ".join(f"unnest(%s::{kind}[])" for kind in kinds)
    statement = f"INSERT INTO predictions ({COLUMN_LIST}) SELECT {unnest} ON CONFLICT DO NOTHING"

    connection.prepare_threshold = 0

    def at(seconds: float | None) -> datetime | None:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    def write(batches: list[BatchRows]) -> None:
        (batch,) = batches
        rows, count = batch.rows, len(batch.rows)
        connection.execute(
            statement,
            (
                [row.id for row in rows],
                [at(row.submitted_at) for row in rows],
                [at(batch.started_at)] * count,
                [at(batch.finished_at)] * count,
                [row.row_index for row in rows],
                [batch.batch_id] * count,
                [batch.batch_rows] * count,
                [row.attempts for row in rows],
                [batch.cached] * count,
                [row.state for row in rows],
                [batch.model] * count,
                [batch.version] * count,
                [row.outputs.decode() if row.outputs else None for row in rows],
                [row.datatypes for row in rows],
                [row.blob for row in rows],
                [None] * count,
                [batch.worker] * count,
                [row.job_id for row in rows],
                [row.foreign_id for row in rows],
            ),
        )

    return write


def one_json(connection: Connection) -> Write:
    """All rows as one JSON parameter; what a batch shares as scalars."""
    record = (
        "id uuid, submitted_at float8, row_index bigint, attempts int, state text, outputs jsonb, datatypes text, "
        "error jsonb, job_id text, foreign_id text"
    )
    prepare(
        connection,
        b"one_json",
        f"INSERT INTO predictions ({COLUMN_LIST}) SELECT id, to_timestamp(submitted_at), to_timestamp($2::float8), "
        "to_timestamp($3::float8), row_index, $4::uuid, $5::int, attempts, false, state, $6::text, $7::text, outputs, "
        "datatypes, NULL, error, $8::text, job_id, foreign_id "
        f"FROM jsonb_to_recordset($1::jsonb) AS r({record}) ON CONFLICT DO NOTHING",
    )

    def write(batches: list[BatchRows]) -> None:
        (batch,) = batches
        rows = [
            {
                "id": row.id,
                "submitted_at": row.submitted_at,
                "attempts": row.attempts,
                "state": row.state,
                "outputs": orjson.Fragment(row.outputs or b"null"),
                "datatypes": row.datatypes,
            }
            for row in batch.rows
        ]
        times = [_float8(batch.started_at or 0.0), _float8(batch.finished_at)]
        batch_id = (batch.batch_id or uuid.uuid4()).bytes
        shared = [batch_id, len(rows).to_bytes(4, "big"), batch.model.encode(), batch.version.encode(), b"worker@host"]
        execute(connection, b"one_json", [b"\x01" + orjson.dumps(rows), *times, *shared])

    return write


def _float8(value: float) -> bytes:
    return struct.pack(">d", value)


def copying(copy: Callable[[Connection, columns.Columns], int]) -> Callable[[Connection], Write]:
    return lambda connection: lambda batches: copy(connection, columns.encode_columns(batches))


PLAIN = f"INSERT INTO predictions ({COLUMN_LIST}) SELECT "
FROM_UNNEST = "* FROM unnest({})".format(
    ", ".join(f"${at}::{kind}[]" for at, (kind, _) in enumerate(columns._TYPES.values(), 1))
)

#: Name → what makes the way, given a connection of its own.
WAYS: dict[str, Callable[[Connection], Write]] = {
    "Python lists, unnest, on conflict": lists,
    "one JSON parameter, on conflict": one_json,
    "binary arrays, FROM unnest, on conflict": arrays(f"{PLAIN} {FROM_UNNEST} ON CONFLICT DO NOTHING"),
    "binary arrays, SELECT unnest, on conflict": arrays(f"{PLAIN} {columns.UNNEST} ON CONFLICT DO NOTHING"),
    "binary arrays, SELECT unnest, plain": arrays(f"{PLAIN} {columns.UNNEST}"),
    "binary COPY, plain": copying(writer._copy),
    "binary COPY to a temporary table, on conflict": copying(writer._copy_skipping),
}


#: What to change, one after the other, to see what each thing costs.
COSTS = {
    "as migrated": None,
    "and an index on finished_at": "CREATE INDEX extra ON predictions (finished_at)",
    "without it again": "DROP INDEX extra",
    "without the check of state": "ALTER TABLE predictions DROP CONSTRAINT predictions_state_check",
    "nor predictions_unsuccessful": "DROP INDEX predictions_unsuccessful",
    "nor predictions_job": "DROP INDEX predictions_job",
    "nor predictions_model_finished_at": "DROP INDEX predictions_model_finished_at",
    "with outputs as text, not jsonb": "ALTER TABLE predictions ALTER outputs TYPE text",
}


@contextmanager
def database(server: Postgres, name: str) -> Iterator[str]:
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    url = server.url.replace("/postgres?", f"/{name}?", 1)
    migrate(url)
    yield url


def compare_ways(url: str, total: int) -> list[Measured]:
    found = []
    for batch_rows in (1, 64, 256, 1000, 2000, 4000):
        for way, make in WAYS.items():
            with connect(url) as connection:
                rows = total // 20 if batch_rows == 1 else total
                found.append(measure(way, make(connection), connection, batch_rows, rows))
    return found


def compare_costs(url: str, total: int) -> list[Measured]:
    found = []
    for name, change in COSTS.items():
        with StoreWriter(url) as store, connect(url) as admin:
            if change:
                admin.execute(change)
            store.write([make_batch(1)])
            connection = store._connection
            assert connection is not None
            found.append(measure(name, store.write, connection, 64, total))
    return found


def show(title: str, table: list[Measured]) -> None:
    print(f"\n{title}\n")
    print(f"{'way':46} {'rows':>5} {'rows/s':>9} {'p50 µs':>8} {'p99 µs':>8} {'writer':>7} {'server':>7} {'WAL B':>6}")
    for row in table:
        print(
            f"{row.way:46} {row.batch_rows:5} {row.rows_per_s:9,.0f} {row.p50_us:8.0f} {row.p99_us:8.0f} "
            f"{row.writer_cpu_us_per_row:7.2f} {row.server_cpu_us_per_row:7.2f} {row.wal_bytes_per_row:6.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="write a tenth of the rows")
    arguments = parser.parse_args()
    total = 6_000 if arguments.quick else 60_000
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder, Postgres(Path(folder) / "postgres") as server:
        with database(server, "ways") as url:
            by_way = compare_ways(url, total)
        with database(server, "costs") as url:
            by_cost = compare_costs(url, total)
    if arguments.json:
        print(json.dumps({"ways": list(map(asdict, by_way)), "costs": list(map(asdict, by_cost))}))
        return
    show("Ways to write (CPU in µs a row)", by_way)
    show("What the schema costs, 64 rows a write (each line without what the lines above dropped)", by_cost)


if __name__ == "__main__":
    main()
