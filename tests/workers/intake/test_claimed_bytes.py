"""Claimed requests are bounded in bytes, and so are batches: a worker doesn't claim what it can't hold."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import psycopg
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.batching.fair_simulation import Model, SimulatedLanes
from tests.workers.conftest import StartWorker

from headrace.contracts import Settings
from headrace.producers import Client, Handle
from headrace.workers.execution.turns import Turns
from headrace.workers.intake.window import Window
from headrace.workers.models.table import ModelTable

MIB = 1 << 20

#: Floats of one request's input: a megabyte.
WIDTH = 1 << 18

REQUESTS = 48


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 100)), max_size=30), st.integers(1, 200))
def test_what_is_claimed_takes_of_the_room_until_it_begins_or_goes_back(
    requests: list[tuple[int, int]], most_bytes: int
) -> None:
    lanes = cast("ModelTable", SimulatedLanes([Model("m", 10**6, 0.0)]))
    window = Window(lanes, lambda: None, most_bytes)
    claimed_bytes = 0
    for rows, size_bytes in requests:
        window.admit("m", rows, size_bytes)
        claimed_bytes += size_bytes
        assert window.room_bytes == most_bytes - claimed_bytes
        assert (window.room("m") == 0) == (claimed_bytes >= most_bytes)
    for number, (rows, size_bytes) in enumerate(requests):
        (window.taken if number % 2 else window.withdraw)("m", rows, size_bytes)
    assert window.room_bytes == most_bytes


class Batcher:
    def __init__(self, batches: list[str], max_rows: int = 4) -> None:
        self.batches, self.max_rows = batches, max_rows

    def wake_at(self, now: float) -> float | None:
        return now if self.batches else None

    def take(self, now: float) -> str | None:
        return self.batches.pop(0) if self.batches else None


class OneLane:
    def __init__(self, name: str, count: int, next_output_bytes: int) -> None:
        self.batcher, self.next_output_bytes = (
            Batcher([f"{name}{number}" for number in range(count)]),
            next_output_bytes,
        )


def test_a_batch_that_waits_for_room_is_passed_by_none_that_comes_after_it() -> None:
    room_bytes = 10
    small, large, idle = OneLane("small", 3, 1), OneLane("large", 1, 100), OneLane("idle", 0, 100)
    lanes: list[Any] = [idle, small, large]
    turns = Turns(lanes, lambda _: True, lambda size_bytes: size_bytes <= room_bytes)

    def taken() -> object:
        found = turns.take(0.0)
        assert found is not None
        return found[1]

    assert taken() == "small0"
    assert turns.take(0.0) is None
    assert turns.blocked
    room_bytes = 100
    assert [taken() for _ in range(3)] == ["large0", "small1", "small2"]
    assert turns.take(0.0) is None
    assert not turns.blocked


def batch_sizes(settings: Settings) -> list[int]:
    """The numbers of rows that batches had."""
    with psycopg.connect(settings.require_database_url()) as connection:
        return [count for (count,) in connection.execute("SELECT DISTINCT batch_rows FROM predictions")]


def submit_all(client: Client) -> list[Handle]:
    return [client.submit("total", {"x": np.full((1, WIDTH), row, np.float32)}) for row in range(REQUESTS)]


def check_all(handles: list[Handle]) -> None:
    for row, handle in enumerate(handles):
        assert handle.result(timeout_s=60)["y"][0] == row * WIDTH


def test_no_batch_has_more_bytes_of_inputs_than_two_claims_may_take(
    settings: Settings, start_worker: StartWorker
) -> None:
    with Client(settings) as client:
        handles = submit_all(client)
        with start_worker(HEADRACE_CLAIMED_BYTES=str(5 * MIB)):
            check_all(handles)
    # Twice as many where a claim that waited for the doorbell comes on top of another.
    assert 1 < max(batch_sizes(settings)) <= 10


def test_requests_that_are_larger_than_may_be_claimed_are_claimed_one_by_one(
    settings: Settings, start_worker: StartWorker
) -> None:
    with Client(settings) as client:
        handles = submit_all(client)
        with start_worker(HEADRACE_CLAIMED_BYTES="1000"):
            check_all(handles)
    assert max(batch_sizes(settings)) <= 2
