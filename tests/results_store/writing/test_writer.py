from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.cli.stack.servers import Postgres
from headrace.contracts.errors import Cancelled, ConfigurationError, InferenceFailed, StoreUnavailable
from headrace.contracts.ids import row_id
from headrace.results_store import BatchRows, Row, StoreRejected, StoreWriter, error_json, migrate
from headrace.results_store.writing import writer as writer_module
from headrace.results_store.writing.rows import Conflict

MakeRow = Callable[..., Row]
MakeBatch = Callable[..., BatchRows]


@pytest.fixture(params=["arrays", "copy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send every write by one of the two ways, whatever its size."""
    name: str = request.param
    if name == "copy":
        monkeypatch.setattr(writer_module, "COPY_ROWS", 0)
    return name


def count(store: psycopg.Connection) -> int:
    found = store.execute("SELECT count(*) FROM predictions").fetchone()
    assert found is not None
    return int(found[0])


def test_every_column_is_stored_as_given(
    way: str, writer: StoreWriter, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    row = Row(
        id=row_id("order-17"),
        state="failed",
        outputs=b'{"label": [7]}',
        datatypes="label:INT64",
        blob=b"\x00\xff",
        error=error_json(InferenceFailed("it broke")),
        submitted_at=1_790_000_000.25,
        attempts=3,
        job_id="job",
        row_index=2**40,
        foreign_id="order-17",
    )
    batch = make_batch(rows=[row], started_at=1_790_000_001.5, finished_at=1_790_000_002.125, cached=True)
    assert writer.write([batch]) == []
    names = (
        "id, state, outputs, datatypes, blob, error, submitted_at, started_at, finished_at, attempts, job_id, "
        "row_index, foreign_id, model, version, batch_id, batch_rows, worker, cached"
    )

    def at(unix_seconds: float) -> dt.datetime:
        return dt.datetime.fromtimestamp(unix_seconds, dt.UTC)

    assert store.execute(f"SELECT {names} FROM predictions").fetchone() == (
        row.id,
        "failed",
        {"label": [7]},
        "label:INT64",
        b"\x00\xff",
        {"type": "InferenceFailed", "message": "it broke"},
        at(1_790_000_000.25),
        at(1_790_000_001.5),
        at(1_790_000_002.125),
        3,
        "job",
        2**40,
        "order-17",
        "digits",
        "2",
        batch.batch_id,
        1,
        "worker@host",
        True,
    )


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
seconds = st.floats(0, 4e9)
drawn_rows = st.lists(
    st.builds(
        Row,
        id=st.uuids(),
        state=st.sampled_from(["succeeded", "failed", "expired", "cancelled"]),
        outputs=st.none() | st.just(b'{"a":[1.5]}'),
        datatypes=texts,
        blob=st.none() | st.binary(max_size=8),
        error=st.none() | st.just(b"{}"),
        submitted_at=st.none() | seconds,
        attempts=st.integers(0, 2**31 - 1),
        job_id=st.none() | texts,
        row_index=st.none() | st.integers(-(2**63), 2**63 - 1),
        foreign_id=st.none() | texts,
    ),
    max_size=6,
)
drawn_batches = st.lists(
    st.builds(
        BatchRows,
        model=texts,
        version=texts,
        rows=drawn_rows,
        finished_at=seconds,
        started_at=st.none() | seconds,
        batch_id=st.none() | st.uuids(),
        batch_rows=st.none() | st.integers(0, 2**31 - 1),
        worker=st.none() | texts,
        cached=st.booleans(),
    ),
    max_size=3,
)


@given(drawn_batches)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_reads_back_the_same(
    way: str, writer: StoreWriter, store: psycopg.Connection, batches: list[BatchRows]
) -> None:
    store.execute("TRUNCATE predictions")
    assert writer.write(batches) == []
    names = (
        "id, state, outputs::text, datatypes, blob, error::text, attempts, job_id, row_index, foreign_id, "
        "model, version, batch_id, batch_rows, worker, cached, "
        "(extract(epoch FROM submitted_at) * 1000000)::bigint, (extract(epoch FROM finished_at) * 1000000)::bigint"
    )
    found = {row[0]: row for row in store.execute(f"SELECT {names} FROM predictions")}
    expected = {
        row.id: (
            row.id,
            row.state,
            row.outputs and '{"a": [1.5]}',
            row.datatypes,
            row.blob,
            row.error and "{}",
            row.attempts,
            row.job_id,
            row.row_index,
            row.foreign_id,
            batch.model,
            batch.version,
            batch.batch_id,
            batch.batch_rows,
            batch.worker,
            batch.cached,
            None if row.submitted_at is None else round(row.submitted_at * 1e6),
            round(batch.finished_at * 1e6),
        )
        for batch in batches
        for row in batch.rows
    }
    assert found == expected


def test_nothing_to_write_is_no_error(writer: StoreWriter, make_batch: MakeBatch) -> None:
    assert writer.write([]) == []
    assert writer.write([BatchRows(model="digits", version="1", rows=[], finished_at=0.0)]) == []


def test_several_batches_of_several_models_go_in_one_write(
    way: str, writer: StoreWriter, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    writer.write([make_batch(3, model="a"), make_batch(2, model="b")])
    assert store.execute("SELECT model, count(*) FROM predictions GROUP BY 1 ORDER BY 1").fetchall() == [
        ("a", 3),
        ("b", 2),
    ]


def test_thousands_of_rows_go_in_one_write(
    writer: StoreWriter, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    writer.write([make_batch(writer_module.COPY_ROWS + 1)])
    assert count(store) == writer_module.COPY_ROWS + 1


def test_writing_a_batch_again_changes_nothing_and_is_no_conflict(
    way: str, writer: StoreWriter, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    batch = make_batch(5)
    assert writer.write([batch]) == []
    assert writer.write([batch]) == []
    assert count(store) == 5


def test_the_first_row_wins_and_the_conflict_is_reported(
    way: str, writer: StoreWriter, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    first, fresh = make_batch(3, worker="first"), make_batch(2)
    writer.write([first])
    second = make_batch(rows=[*fresh.rows, first.rows[1], first.rows[2]], worker="second")
    assert [conflict.id for conflict in writer.write([second])] == [first.rows[1].id, first.rows[2].id]
    assert store.execute("SELECT worker, count(*) FROM predictions GROUP BY 1 ORDER BY 1").fetchall() == [
        ("first", 3),
        ("second", 2),
    ]


def test_a_conflict_between_rows_that_never_ran_is_reported_too(
    writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    row = make_row(state="cancelled", outputs=None, error=error_json(Cancelled("by hand")))
    writer.write([make_batch(rows=[row], batch_id=None, finished_at=1_790_000_000.0)])
    late = make_batch(rows=[make_row(id=row.id)], batch_id=None, finished_at=1_790_000_001.0)
    # What is reported is the row that is there.
    assert writer.write([late]) == [
        Conflict(id=row.id, state="cancelled", error_type="Cancelled", error_message="by hand")
    ]


def test_an_id_twice_in_one_write_is_stored_once(
    way: str, writer: StoreWriter, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    batch = make_batch(2)
    batch.rows = [*batch.rows, batch.rows[0]]
    assert writer.write([batch]) == []
    again = make_batch(rows=[batch.rows[0]])
    assert [conflict.id for conflict in writer.write([make_batch(1), again])] == [batch.rows[0].id]
    assert count(store) == 3


def test_large_outputs_of_many_rows_are_stored(
    writer: StoreWriter, store: psycopg.Connection, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    blob = bytes(range(256)) * (48 << 12)  # 48 MiB
    batch = make_batch(rows=[make_row(outputs=None, blob=blob) for _ in range(2)])
    assert writer.write([batch]) == []
    assert store.execute("SELECT DISTINCT length(blob), md5(blob) = %s FROM predictions", (md5(blob),)).fetchall() == [
        (len(blob), True)
    ]


def md5(blob: bytes) -> str:
    import hashlib

    return hashlib.md5(blob, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    "flaw",
    [
        {"outputs": b'{"text":["\\u0000"]}'},
        {"outputs": b'{"text":["\0"]}'},
        {"outputs": b'{"unfinished":'},
        {"outputs": b'{"latin":["\xe9"]}'},
        {"error": b"not json"},
        {"foreign_id": "a\0b"},
        {"state": "unheard-of"},
    ],
    ids=str,
)
def test_a_row_that_postgres_refuses_is_named_and_the_others_are_stored(
    way: str,
    flaw: dict[str, object],
    writer: StoreWriter,
    store: psycopg.Connection,
    make_row: MakeRow,
    make_batch: MakeBatch,
) -> None:
    bad = make_row(**flaw)
    good = make_batch(5)
    mixed = make_batch(rows=[*make_batch(3).rows, bad, *make_batch(2).rows])
    with pytest.raises(StoreRejected) as caught:
        writer.write([good, mixed])
    assert set(caught.value.refused) == {bad.id}
    assert count(store) == 10
    mixed.rows = [row for row in mixed.rows if row is not bad]
    assert writer.write([good, mixed]) == []
    assert count(store) == 10


def test_every_refused_row_is_named(writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch) -> None:
    rows = [make_row(outputs=b"{" if number % 7 == 3 else b"{}") for number in range(64)]
    with pytest.raises(StoreRejected, match=r"refused 9 row\(s\)") as caught:
        writer.write([make_batch(rows=rows)])
    assert set(caught.value.refused) == {row.id for row in rows if row.outputs == b"{"}


def test_a_refused_row_beside_a_conflict_is_still_found(
    way: str, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    known = make_batch(1)
    writer.write([known])
    bad = make_row(outputs=b"{")
    with pytest.raises(StoreRejected) as caught:
        writer.write([make_batch(rows=[*known.rows, bad])])
    assert set(caught.value.refused) == {bad.id}


@pytest.mark.parametrize(
    "flaw",
    [
        {"row_index": 2**63},
        {"attempts": 2**31},
        {"submitted_at": float("nan")},
        {"submitted_at": 1e15},
        {"submitted_at": 1e300},
    ],
    ids=str,
)
def test_a_number_that_fits_no_column_is_named(
    flaw: dict[str, object], writer: StoreWriter, store: psycopg.Connection, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    bad = make_row(**flaw)
    with pytest.raises(StoreRejected, match="does not fit its column") as caught:
        writer.write([make_batch(2), make_batch(rows=[make_row(), bad])])
    assert set(caught.value.refused) == {bad.id}
    assert count(store) == 0


def test_a_lone_surrogate_in_a_foreign_id_does_no_harm(
    writer: StoreWriter, store: psycopg.Connection, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    assert writer.write([make_batch(rows=[make_row(foreign_id="a\ud800b")])]) == []
    assert store.execute("SELECT foreign_id FROM predictions").fetchone() == ("a?b",)


def test_conflicts_and_refusals_leave_the_prepared_statements_in_place(
    way: str, writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    known = make_batch()
    writer.write([known])
    connection = writer._connection
    for _ in range(10):
        assert [conflict.id for conflict in writer.write([make_batch(rows=known.rows)])] == [known.rows[0].id]
        with pytest.raises(StoreRejected):
            writer.write([make_batch(rows=[make_row(outputs=b"{")])])
        assert writer.write([make_batch()]) == []
    assert writer._connection is connection


def test_the_message_of_a_refusal_repeats_no_values(
    writer: StoreWriter, make_row: MakeRow, make_batch: MakeBatch
) -> None:
    with pytest.raises(StoreRejected) as caught:
        writer.write([make_batch(rows=[make_row(outputs=b'{"secret": nonsense}')])])
    assert "secret" not in caught.value.message
    assert "nonsense" not in caught.value.message


def test_a_missing_schema_names_the_command_that_makes_it(database_url: str, make_batch: MakeBatch) -> None:
    with StoreWriter(database_url) as writer:
        with pytest.raises(ConfigurationError, match="headrace store migrate"):
            writer.write([make_batch()])
        migrate(database_url)
        assert writer.write([make_batch()]) == []


def test_a_stopped_server_is_store_unavailable_and_a_started_one_takes_the_same_write(
    own_server: Postgres, make_batch: MakeBatch
) -> None:
    migrate(own_server.url)
    stored, waiting = make_batch(3), make_batch(3)
    with StoreWriter(own_server.url) as writer:
        writer.write([stored])
        own_server.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                writer.write([waiting])
        own_server.start()
        assert writer.write([waiting]) == []
    with psycopg.connect(own_server.url) as store:
        assert count(store) == 6


def test_a_connection_cut_between_writes_costs_one_error(
    writer: StoreWriter, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    writer.write([make_batch()])
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
    store.execute(cut, (store.info.backend_pid,))
    batch = make_batch()
    with pytest.raises(StoreUnavailable):
        writer.write([batch])
    assert writer.write([batch]) == []
    assert count(store) == 2


def test_a_read_only_server_is_store_unavailable(
    writer: StoreWriter, store_url: str, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    name = store.info.dbname
    store.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="read-only"):
        writer.write([make_batch()])
    store.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    assert writer.write([make_batch()]) == []


def test_two_writers_of_the_same_rows_store_them_once(
    store_url: str, store: psycopg.Connection, make_batch: MakeBatch
) -> None:
    batches = [make_batch(50) for _ in range(10)]
    conflicts: list[Conflict] = []
    start = threading.Barrier(2)

    def run(worker: str) -> None:
        mine = [make_batch(rows=batch.rows, worker=worker) for batch in batches]
        with StoreWriter(store_url) as writer:
            start.wait()
            for batch in mine:
                conflicts.extend(writer.write([batch]))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(store) == 500
    assert len(conflicts) == 500


def test_a_write_is_on_disk_when_it_returns(writer: StoreWriter, make_batch: MakeBatch) -> None:
    writer.write([make_batch()])
    connection = writer._connection
    assert connection is not None
    assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
