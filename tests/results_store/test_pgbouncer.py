"""The store through a real pgbouncer, in each of its modes: where sessions are lent, nothing may be left in one."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from tests.eventually import eventually
from tests.pgbouncer import PgBouncer

from headrace.cli.stack.servers import Postgres
from headrace.contracts.errors import StoreUnavailable
from headrace.results_store import BatchRows, StoreReader, StoreWriter, check_schema, migrate, prune
from headrace.results_store.database import address
from headrace.results_store.writing import writer
from headrace.results_store.writing.partitions import list_partitions

#: A pooler asks a server that was away again after 15 s (`server_login_retry`).
RETRY_S = 60

LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


@pytest.fixture(params=["session", "transaction"])
def pooler(request: pytest.FixtureRequest, postgres_uri: str) -> Iterator[PgBouncer]:
    with PgBouncer(postgres_uri, pool_mode=request.param) as pooler:
        yield pooler


@pytest.fixture
def lending(postgres_uri: str) -> Iterator[PgBouncer]:
    """A pooler that lends a session for one transaction."""
    with PgBouncer(postgres_uri, pool_mode="transaction") as pooler:
        yield pooler


@pytest.fixture
def single(postgres_uri: str) -> Iterator[PgBouncer]:
    """A pooler that has one session for all, and lends it for one transaction."""
    with PgBouncer(postgres_uri, pool_mode="transaction", default_pool_size=1) as pooler:
        yield pooler


def test_the_schema_is_made_by_several_at_once_and_no_lock_stays_behind(pooler: PgBouncer, database_url: str) -> None:
    url = pooler.url_of(database_url)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate, [url] * 4))
    check_schema(url)
    migrate(url)
    with psycopg.connect(database_url) as direct:
        assert direct.execute(LOCKS).fetchone() == (0,)
        assert len(list_partitions(direct)) == 18


def test_one_session_is_enough_for_all(
    single: PgBouncer, database_url: str, make_batch: Callable[..., BatchRows]
) -> None:
    url = single.url_of(database_url)
    migrate(url)
    batches = [make_batch(3) for _ in range(8)]
    with StoreWriter(url) as one, StoreWriter(url) as other, StoreReader(url) as reader:
        # The second finds the statements of the first in the session.
        for first, second in zip(batches[::2], batches[1::2], strict=True):
            assert one.write([first]) == other.write([second]) == []
        ids = [str(row.id) for batch in batches for row in batch.rows]
        assert all(reader.get(each) is not None for each in ids)
        assert len(reader.get_many(ids)) == len(ids)
    assert prune(url, 1, dt.datetime.now(dt.UTC)) == 0


def test_rows_are_written_though_the_session_with_the_statements_is_lent_to_somebody_else(
    lending: PgBouncer, store_url: str, make_batch: Callable[..., BatchRows], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "headrace.results_store")
    url = lending.url_of(store_url)
    batches = [make_batch(3) for _ in range(4)]
    with StoreWriter(url) as storing, psycopg.connect(url) as borrower, StoreReader(url) as reader:
        assert storing.write(batches[:1]) == []
        # Its transaction holds the only session there is until now.
        borrower.execute("SELECT 1")
        assert storing.write(batches[1:2]) == []
        borrower.rollback()
        assert storing.write(batches[2:3]) == []
        # A row that exists goes the other way through the statements.
        assert storing.write([batches[0], batches[3]]) == []
        assert len(reader.get_many(str(row.id) for batch in batches for row in batch.rows)) == 12
    assert [record.message.partition(":")[0] for record in caplog.records] == ["store.pooled"]


def test_large_writes_and_what_exists_already(
    pooler: PgBouncer, store_url: str, make_batch: Callable[..., BatchRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "COPY_ROWS", 5)
    url = pooler.url_of(store_url)
    first, second = make_batch(6), make_batch(7)
    with StoreWriter(url) as storing, StoreReader(url) as reader:
        assert storing.write([first]) == []
        assert storing.write([first, second]) == []
        assert len(reader.get_many(str(row.id) for row in [*first.rows, *second.rows])) == 13


def test_many_readers_and_writers_share_few_sessions(
    postgres_uri: str, store_url: str, make_batch: Callable[..., BatchRows]
) -> None:
    def work(url: str) -> None:
        with StoreWriter(url) as storing, StoreReader(url, pool_size=1) as reader:
            # More often than what psycopg prepares by itself, under names that every client chooses alike.
            for _ in range(12):
                batch = make_batch(2)
                assert storing.write([batch]) == []
                ids = [str(row.id) for row in batch.rows]
                found = reader.get(ids[0])
                assert found is not None
                assert found.id == ids[0]
                assert sorted(reader.get_many(ids)) == sorted(ids)
                assert reader.find(model="digits", limit=1)[0].model == "digits"

    few = PgBouncer(postgres_uri, pool_mode="transaction", default_pool_size=3)
    with few as pooler, ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [pooler.url_of(store_url)] * 8))


def test_a_pooler_is_told_from_a_server(pooler: PgBouncer, store_url: str) -> None:
    with address.connect(store_url) as direct, address.connect(pooler.url_of(store_url)) as pooled:
        assert (address.is_pooled(direct), address.is_pooled(pooled)) == (False, True)


def test_times_are_utc_whatever_the_zone_of_the_session_is(
    pooler: PgBouncer, store_url: str, store: psycopg.Connection, make_batch: Callable[..., BatchRows]
) -> None:
    store.execute(f"ALTER DATABASE {store.info.dbname} SET TimeZone = 'Asia/Kolkata'")
    batch = make_batch(1)
    for url in (store_url, pooler.url_of(store_url)):
        with StoreWriter(url) as storing, StoreReader(url) as reader:
            storing.write([batch])
            found = reader.get(str(batch.rows[0].id))
            newest = reader.stats().newest
            assert found is not None
            assert found.submitted_at is not None
            assert newest is not None
            assert found.finished_at.utcoffset() == found.submitted_at.utcoffset() == dt.timedelta(0)
            assert found.finished_at.timestamp() == pytest.approx(batch.finished_at, abs=1e-5)
            assert newest == found.finished_at
            assert newest.utcoffset() == dt.timedelta(0)


def test_a_server_that_restarts_behind_the_pooler_is_found_again(
    own_server: Postgres, make_batch: Callable[..., BatchRows]
) -> None:
    def write_at_last(storing: StoreWriter, batch: BatchRows) -> None:
        def is_written() -> bool:
            with contextlib.suppress(StoreUnavailable):
                assert storing.write([batch]) == []
                return True
            return False

        eventually(is_written, RETRY_S, "the pooler to find the server again")

    with PgBouncer(own_server.url, pool_mode="transaction") as pooler, ThreadPoolExecutor(1) as thread:
        url = pooler.url_of(own_server.url)
        migrate(url)
        batch = make_batch(3)
        with StoreWriter(url) as storing, StoreReader(url) as reader:
            assert storing.write([make_batch(3)]) == []
            own_server.kill()
            # The pooler lets it wait for a server.
            written = thread.submit(write_at_last, storing, batch)
            own_server.start()
            written.result()
            assert len(reader.get_many(str(row.id) for row in batch.rows)) == 3


def test_a_pooler_that_refuses_what_the_url_says_is_told_with_its_words(pooler: PgBouncer, store_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="unsupported startup parameter: options"):
        check_schema(f"{pooler.url_of(store_url)}?options=-csearch_path%3Dpublic")
