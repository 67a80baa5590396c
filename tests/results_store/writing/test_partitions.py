from __future__ import annotations

import datetime as dt
import threading
import uuid

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import ConfigurationError, StoreUnavailable
from headrace.contracts.ids import row_id, uuid7
from headrace.results_store import ensure_partitions, prune
from headrace.results_store.writing import partitions

DAY = dt.timedelta(days=1)
NOW = dt.datetime(2026, 3, 15, 12, tzinfo=dt.UTC)
TODAY = NOW.date()

days = st.dates(dt.date(2024, 1, 1), dt.date(2100, 1, 1))


def key_at(time: dt.datetime) -> uuid.UUID:
    return uuid7(int(time.timestamp() * 1e9), b"\xff" * 8)


def insert(connection: psycopg.Connection, identity: uuid.UUID, finished_at: dt.datetime) -> None:
    connection.execute(
        "INSERT INTO predictions (id, finished_at, attempts, cached, state, model, version) "
        "VALUES (%s, %s, 1, false, 'succeeded', 'digits', '1')",
        (identity, finished_at),
    )


def home_of(connection: psycopg.Connection, identity: uuid.UUID) -> str | None:
    found = connection.execute("SELECT tableoid::regclass::text FROM predictions WHERE id = %s", (identity,)).fetchone()
    return found[0] if found else None


@pytest.fixture
def march(store: psycopg.Connection) -> psycopg.Connection:
    """The store with the partitions of March 14th to 29th, 2026."""
    for name in partitions.list_partitions(store):
        if partitions.partition_day(name):
            store.execute(f"DROP TABLE {name}")
    ensure_partitions(store, today=TODAY)
    return store


@given(days)
def test_a_day_and_the_next_share_a_border(day: dt.date) -> None:
    first, end = partitions.day_range(day)
    assert first < end
    assert partitions.day_range(day + DAY)[0] == end


@given(days, st.integers(0, 86_399_999_999))
def test_every_id_made_on_a_day_is_in_its_range(day: dt.date, microseconds: int) -> None:
    first, end = partitions.day_range(day)
    made = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(microseconds=microseconds)
    assert first <= key_at(made) < end


@given(days)
def test_the_name_of_a_partition_tells_its_day(day: dt.date) -> None:
    assert partitions.partition_day(partitions.partition_name(day)) == day


@pytest.mark.parametrize("name", ["predictions_default", "predictions_foreign", "predictions_20261399", "x_20260101"])
def test_other_tables_have_no_day(name: str) -> None:
    assert partitions.partition_day(name) is None


def test_yesterday_today_and_the_days_ahead_are_wanted() -> None:
    assert partitions.missing_days([], TODAY, 1) == [TODAY - DAY, TODAY, TODAY + DAY]
    assert partitions.missing_days([partitions.partition_name(TODAY)], TODAY, 1) == [TODAY - DAY, TODAY + DAY]


def test_a_day_expires_when_all_of_it_is_older_than_the_retention() -> None:
    names = [partitions.partition_name(TODAY - DAY * age) for age in (2, 1, 0)]
    assert partitions.expired_days([*names, "predictions_default"], NOW, 1) == [TODAY - DAY * 2]


def test_making_partitions_again_makes_none(march: psycopg.Connection) -> None:
    assert ensure_partitions(march, today=TODAY) == []
    assert ensure_partitions(march, today=TODAY + DAY) == [TODAY + DAY * 15]


def test_rows_go_to_the_partition_of_their_day(march: psycopg.Connection) -> None:
    today, distant, foreign = key_at(NOW), key_at(NOW + DAY * 100), row_id("5f0c6f4e-9d3b-4a51-8d7e-0c1d2e3f4a5b")
    for identity in (today, distant, foreign):
        insert(march, identity, NOW)
    assert home_of(march, today) == "predictions_20260315"
    assert home_of(march, distant) == "predictions_default"
    assert home_of(march, foreign) == "predictions_foreign"


def test_rows_leave_the_default_partition_when_their_day_gets_one(march: psycopg.Connection) -> None:
    early = [key_at(NOW + DAY * 20), key_at(NOW + DAY * 21)]
    for identity in early:
        insert(march, identity, NOW)
    ensure_partitions(march, today=TODAY + DAY * 6)
    assert [home_of(march, identity) for identity in early] == ["predictions_20260404", "predictions_default"]


def test_partitions_made_by_many_at_once_are_made_once(march: psycopg.Connection, store_url: str) -> None:
    made: list[dt.date] = []
    start = threading.Barrier(4)

    def run() -> None:
        with psycopg.connect(store_url, autocommit=True) as connection:
            start.wait()
            made.extend(ensure_partitions(connection, today=TODAY + DAY * 3))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [TODAY + DAY * ahead for ahead in (15, 16, 17)]


def test_a_made_partition_has_the_indexes_and_the_check_of_the_table(march: psycopg.Connection) -> None:
    indexes = march.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'predictions_20260315'").fetchone()
    parent = march.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'predictions'").fetchone()
    assert indexes == parent
    with pytest.raises(psycopg.errors.CheckViolation):
        march.execute(
            "INSERT INTO predictions (id, finished_at, attempts, cached, state, model, version) "
            "VALUES (%s, now(), 1, false, 'unheard-of', 'digits', '1')",
            (key_at(NOW),),
        )


def test_pruning_drops_whole_days_and_old_rows_without_a_day(
    march: psycopg.Connection, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PRUNE_CHUNK_ROWS", 2)
    kept = [key_at(NOW), row_id("young")]
    old = [row_id(f"old {number}") for number in range(5)]
    insert(march, key_at(NOW - DAY), NOW - DAY)
    for identity in kept:
        insert(march, identity, NOW)
    for identity in old:
        insert(march, identity, NOW - DAY * 3)
    march.execute("ANALYZE")
    assert prune(store_url, 0, NOW) == 0
    assert prune(store_url, 1, NOW + dt.timedelta(hours=1)) == 5
    assert prune(store_url, 1, NOW + DAY) == 1
    left = {identity for (identity,) in march.execute("SELECT id FROM predictions")}
    assert left == set(kept)
    assert "predictions_20260314" not in partitions.list_partitions(march)
    assert "predictions_20260330" in partitions.list_partitions(march)


def test_a_negative_retention_is_refused(store_url: str) -> None:
    with pytest.raises(ConfigurationError, match="retention_days"):
        prune(store_url, -1, NOW)


def test_pruning_gives_up_clearly_while_a_long_query_reads(
    march: psycopg.Connection, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT_MS", 50)
    with psycopg.connect(store_url) as long_reader:
        long_reader.execute("SELECT count(*) FROM predictions")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            prune(store_url, 1, NOW + DAY * 2)
    assert prune(store_url, 1, NOW + DAY * 2) == 0
