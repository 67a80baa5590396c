"""Traffic of models: requests, batches and their time between two times."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest

from headrace.contracts.states import State
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter

NOW = 1_790_000_000.0


def at(unix_seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(unix_seconds, dt.UTC)


def test_requests_are_counted_by_version_state_and_size_of_their_batch(
    writer: StoreWriter, reader: StoreReader, make_row: Callable[..., Row], make_batch: Callable[..., BatchRows]
) -> None:
    def batch(count: int, finished_at: float, **more: str) -> BatchRows:
        rows = [make_row(submitted_at=finished_at - 3) for _ in range(count)]
        return make_batch(rows=rows, started_at=finished_at - 1, finished_at=finished_at, **more)

    writer.write([batch(3, NOW), batch(3, NOW + 1), batch(1, NOW + 2), batch(1, NOW + 3, version="3")])
    writer.write([batch(5, NOW + 1, model="other"), batch(5, NOW - 100), batch(5, NOW + 100)])
    failed = [
        make_row(state="failed", outputs=None, datatypes="", error=b'{"type":"X","message":""}', submitted_at=NOW)
    ]
    writer.write([make_batch(rows=failed, started_at=NOW + 1, finished_at=NOW + 2)])

    found = reader.traffic(["digits", "unknown"], at(NOW - 1), at(NOW + 3))
    counted = {(each.version, each.state, each.batch_rows): each for each in found}
    assert {key: (each.requests, each.batches) for key, each in counted.items()} == {
        ("2", State.SUCCEEDED, 3): (6, 2),
        ("2", State.SUCCEEDED, 1): (1, 1),
        ("3", State.SUCCEEDED, 1): (1, 1),
        ("2", State.FAILED, 1): (1, 1),
    }
    large = counted["2", State.SUCCEEDED, 3]
    assert large.queued_s == pytest.approx(12)
    assert large.ran_s == pytest.approx(6)
    assert large.newest == at(NOW + 1)


def test_the_first_moment_is_left_out_and_the_last_is_not(
    writer: StoreWriter, reader: StoreReader, make_batch: Callable[..., BatchRows]
) -> None:
    writer.write([make_batch(started_at=time - 1, finished_at=time) for time in (NOW, NOW + 1)])
    assert [each.requests for each in reader.traffic(["digits"], at(NOW), at(NOW + 1))] == [1]
    assert reader.traffic([], at(0), at(NOW + 1)) == []
