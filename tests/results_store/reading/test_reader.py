from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.cli.stack.servers import Postgres
from headrace.contracts.errors import (
    Cancelled,
    DeadlineExceeded,
    HeadraceError,
    InferenceFailed,
    InvalidRequest,
    StoreUnavailable,
)
from headrace.contracts.ids import new_id, row_id
from headrace.contracts.states import State
from headrace.contracts.tensors.codec import Tensors, can_be_json, datatypes_line, encode_tensors, tensors_to_json
from headrace.contracts.tensors.datatypes import DTYPES
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter, error_json, migrate

MakeRow = Callable[..., Row]
MakeBatch = Callable[..., BatchRows]

NOW = 1_790_000_000.0


def at(unix_seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_seconds, dt.UTC)


def assert_same(found: Tensors | None, expected: Tensors) -> None:
    assert found is not None
    assert list(found) == list(expected) or set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array, equal_nan=array.dtype.kind == "f")


def test_a_prediction_tells_all_about_its_request(
    writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    row = make_row(submitted_at=NOW, attempts=2, job_id="job", row_index=5)
    batch = make_batch(rows=[row], started_at=NOW + 1, finished_at=NOW + 2)
    writer.write([batch])
    found = reader.get(str(row.id))
    assert found is not None
    assert (found.id, found.model, found.version, found.state) == (str(row.id), "digits", "2", State.SUCCEEDED)
    assert (found.submitted_at, found.started_at, found.finished_at) == (at(NOW), at(NOW + 1), at(NOW + 2))
    assert (found.batch_id, found.batch_rows, found.worker) == (batch.batch_id, 1, "worker@host")
    assert (found.attempts, found.cached, found.job_id, found.row_index) == (2, False, "job", 5)
    assert found.error is None
    assert_same(found.result(), {"label": np.array([7]), "scores": np.array([[0.25, 0.75]], np.float32)})


def test_a_request_that_has_not_ended_has_no_prediction(reader: StoreReader) -> None:
    assert reader.get(new_id()) is None
    assert reader.get("no uuid at all") is None
    assert reader.get_many([]) == {}


@pytest.mark.parametrize("foreign", ["order-17", "5F0C6F4E-9D3B-4A51-8D7E-0C1D2E3F4A5B", "ключ"])
def test_a_foreign_id_finds_its_row_and_comes_back_as_written(
    foreign: str, writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    writer.write([make_batch(rows=[make_row(id=row_id(foreign), foreign_id=foreign)])])
    found = reader.get(foreign)
    assert found is not None
    assert found.id == foreign
    assert list(reader.get_many([foreign, new_id()])) == [foreign]


@pytest.mark.parametrize(
    ("state", "stored", "expected"),
    [
        ("failed", error_json(InferenceFailed("the runtime broke")), InferenceFailed("the runtime broke")),
        ("failed", b'{"type": "FromTheFuture", "message": "what"}', InferenceFailed("what")),
        ("failed", None, InferenceFailed()),
        ("expired", None, DeadlineExceeded()),
        ("cancelled", None, Cancelled()),
    ],
)
def test_a_request_without_success_raises_its_error(
    state: str,
    stored: bytes | None,
    expected: HeadraceError,
    writer: StoreWriter,
    reader: StoreReader,
    make_row: MakeRow,
    make_batch: MakeBatch,
) -> None:
    row = make_row(state=state, outputs=None, error=stored)
    writer.write([make_batch(rows=[row])])
    found = reader.get(str(row.id))
    assert found is not None
    assert found.outputs is None
    with pytest.raises(type(expected), match=str(expected)[:20]) as caught:
        found.result()
    assert caught.value.request_id == str(row.id)


def sample(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        array = np.empty((2, 2), object)
        array[:] = [[b"", "né".encode()], [b"x" * 300, b"\\u0041"]]
        return array
    if datatype == "BOOL":
        return np.array([[True], [False]])
    dtype = DTYPES[datatype]
    if dtype.kind in "iu":
        return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max]], dtype)
    import ml_dtypes

    finfo: Any = ml_dtypes.finfo  # the library has no types for it
    limits = finfo(dtype)
    return np.array([limits.min, limits.max, limits.tiny, limits.eps, limits.smallest_subnormal, 0, 1.5], dtype)


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("form", ["json", "binary"])
def test_every_datatype_survives_the_store(
    datatype: str, form: str, writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    tensors = {"out": sample(datatype), "other:one": np.array([1.0], np.float32)}
    fields = (
        {"outputs": tensors_to_json(tensors)} if form == "json" else {"outputs": None, "blob": encode_tensors(tensors)}
    )
    row = make_row(datatypes=datatypes_line(tensors), **fields)
    writer.write([make_batch(rows=[row])])
    found = reader.get(str(row.id))
    assert found is not None
    assert_same(found.outputs, tensors)


@pytest.mark.parametrize("form", ["json", "binary"])
def test_outputs_are_read_in_the_order_in_which_the_model_gave_them(
    form: str, writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    tensors = {name: np.ones((1, 2), np.float32) for name in ("long name", "b,%", "aa", "a")}
    fields = (
        {"outputs": tensors_to_json(tensors)} if form == "json" else {"outputs": None, "blob": encode_tensors(tensors)}
    )
    row = make_row(datatypes=datatypes_line(tensors), **fields)
    writer.write([make_batch(rows=[row])])
    found = reader.get(str(row.id))
    assert found is not None
    assert found.outputs is not None
    assert list(found.outputs) == list(tensors)


@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint64]),
        hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_array_that_can_be_json_survives_it(
    writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch, array: np.ndarray
) -> None:
    tensors = {"out": array}
    if not can_be_json(tensors):
        return
    row = make_row(datatypes=datatypes_line(tensors), outputs=tensors_to_json(tensors))
    writer.write([make_batch(rows=[row])])
    found = reader.get(str(row.id))
    assert found is not None
    assert_same(found.outputs, tensors)


@pytest.fixture
def mixed(writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch) -> dict[str, str]:
    """Six rows, one a second; name → id."""
    kinds: dict[str, tuple[str, dict[str, object]]] = {
        "oldest": ("digits", {}),
        "other": ("names", {}),
        "broken": ("digits", {"state": "failed", "outputs": None}),
        "job1": ("digits", {"job_id": "j", "row_index": 1}),
        "job0": ("names", {"job_id": "j", "row_index": 0}),
        "late": ("names", {"state": "expired", "outputs": None}),
    }
    ids = {}
    for second, (name, (model, fields)) in enumerate(kinds.items()):
        row = make_row(**fields)
        writer.write([make_batch(rows=[row], model=model, finished_at=NOW + second)])
        ids[name] = str(row.id)
    return ids


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["late", "job0", "job1", "broken", "other", "oldest"]),
        ({"limit": 2}, ["late", "job0"]),
        ({"model": "digits"}, ["job1", "broken", "oldest"]),
        ({"model": "unknown"}, []),
        ({"state": "succeeded"}, ["job0", "job1", "other", "oldest"]),
        ({"state": "failed"}, ["broken"]),
        ({"state": State.EXPIRED, "model": "names"}, ["late"]),
        ({"job_id": "j"}, ["job0", "job1"]),
        ({"since": at(NOW + 3)}, ["late", "job0", "job1"]),
        ({"since": at(NOW + 1), "until": at(NOW + 3)}, ["broken", "other"]),
        ({"model": "names", "until": at(NOW + 5), "limit": 1}, ["job0"]),
    ],
    ids=str,
)
def test_the_newest_that_fit_are_found(
    wanted: dict[str, Any], expected: list[str], mixed: dict[str, str], reader: StoreReader
) -> None:
    names = {identity: name for name, identity in mixed.items()}
    assert [names[found.id] for found in reader.find(**wanted)] == expected


def test_an_empty_store_finds_nothing(reader: StoreReader) -> None:
    assert reader.find() == []
    assert reader.stats().rows == 0
    assert reader.stats().oldest is None


def test_a_filter_that_makes_no_sense_is_refused(reader: StoreReader) -> None:
    with pytest.raises(InvalidRequest, match="succeeded"):
        reader.find(state="done")
    with pytest.raises(InvalidRequest, match="time zone"):
        reader.find(since=dt.datetime(2026, 1, 1))
    with pytest.raises(InvalidRequest, match="NUL"):
        reader.find(model="a\0b")
    with pytest.raises(InvalidRequest, match="LIMIT"):
        reader.find(limit=-1)


def test_a_job_is_read_in_pages_in_the_order_of_its_rows(
    writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    writer.write([make_batch(rows=[make_row(job_id="j", row_index=number) for number in (4, 0, 3, 1, 2)])])
    pages = [reader.read_job("j", limit=3), reader.read_job("j", after_row=2, limit=3), reader.read_job("other")]
    assert [[found.row_index for found in page] for page in pages] == [[0, 1, 2], [3, 4], []]


@pytest.mark.parametrize("request_id", [None, "order-17"])
def test_a_cancel_wins_only_when_it_is_first(
    request_id: str | None, writer: StoreWriter, reader: StoreReader, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    request_id = request_id or new_id()
    assert reader.cancel(request_id, "digits") is True
    assert reader.cancel(request_id, "digits") is False
    found = reader.get(request_id)
    assert found is not None
    assert (found.id, found.model, found.state) == (request_id, "digits", State.CANCELLED)
    with pytest.raises(Cancelled):
        found.result()
    row = make_row(id=row_id(request_id))
    assert [conflict.id for conflict in writer.write([make_batch(rows=[row])])] == [row.id]
    ended = make_row()
    writer.write([make_batch(rows=[ended])])
    assert reader.cancel(str(ended.id), "digits") is False


def test_statistics_count_by_model_and_state_and_measure_partitions(mixed: dict[str, str], reader: StoreReader) -> None:
    stats = reader.stats()
    assert {(count.model, count.state): count.rows for count in stats.counts} == {
        ("digits", State.SUCCEEDED): 2,
        ("digits", State.FAILED): 1,
        ("names", State.SUCCEEDED): 2,
        ("names", State.EXPIRED): 1,
    }
    assert (stats.rows, stats.oldest, stats.newest) == (6, at(NOW), at(NOW + 5))
    assert {"predictions_default", "predictions_foreign"} < {partition.name for partition in stats.partitions}
    assert stats.size_bytes == sum(partition.size_bytes for partition in stats.partitions) > 0


def test_a_reader_outlives_a_restart_of_the_server(own_server: Postgres, make_batch: MakeBatch) -> None:
    migrate(own_server.url)
    with StoreReader(own_server.url) as reader:
        assert reader.get("x") is None
        own_server.kill()
        with pytest.raises(StoreUnavailable):
            reader.get("x")
        own_server.start()
        assert reader.get("x") is None


def test_threads_share_a_reader(mixed: dict[str, str], reader: StoreReader) -> None:
    found: list[set[str]] = []

    def run() -> None:
        found.extend(set(reader.get_many(mixed.values())) for _ in range(20))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [set(mixed.values())] * 160


FORK = """
import os, sys
from headrace.results_store import StoreReader

reader = StoreReader(sys.argv[1])
assert len(reader.find()) == 6
child = os.fork()
if child == 0:
    found = len(reader.find())
    reader.close()
    os._exit(0 if found == 6 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(reader.find()) == 6
reader.close()
"""


def test_a_forked_child_leaves_the_connections_of_its_parent_alone(mixed: dict[str, str], store_url: str) -> None:
    subprocess.run([sys.executable, "-c", FORK, store_url], check=True)


@pytest.mark.parametrize(
    "wanted", [{}, {"model": "digits"}, {"state": "failed"}, {"job_id": "j"}, {"since": at(NOW)}], ids=str
)
def test_no_search_reads_a_whole_partition(
    wanted: dict[str, Any],
    writer: StoreWriter,
    reader: StoreReader,
    store: psycopg.Connection,
    make_row: MakeRow,
    make_batch: MakeBatch,
) -> None:
    rows = [make_row(job_id="j" if number % 100 == 0 else None, row_index=number) for number in range(20_000)]
    started = time.time()
    writer.write(
        [
            make_batch(
                rows=rows[start : start + 100], finished_at=started + start / 1000, model=f"m{start % 700 // 100}"
            )
            for start in range(0, 20_000, 100)
        ]
    )
    store.execute("ANALYZE predictions")
    from sqlalchemy.dialects import postgresql

    from headrace.results_store.reading import reader as reader_module

    wanted_filter = reader_module.Filter(**wanted)
    build = reader_module._newest_of_every_model if wanted_filter.needs_every_model else reader_module._newest
    dialect: Callable[[], sa.Dialect] = postgresql.dialect
    text = str(build(wanted_filter, 100).compile(dialect=dialect(), compile_kwargs={"literal_binds": True}))
    busiest = store.execute("SELECT tableoid::regclass::text FROM predictions LIMIT 1").fetchone()
    assert busiest is not None
    plan = "\n".join(line for (line,) in store.execute("EXPLAIN " + text.replace("%%", "%")))
    assert f"Seq Scan on {busiest[0]} " not in plan
