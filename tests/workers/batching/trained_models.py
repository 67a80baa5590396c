"""Cost models and batchers that have already learned something."""

from __future__ import annotations

from headrace.workers.batching import BatchPolicy, CostModel, Item, MicroBatcher

#: A run of these lessons costs 20 ms, and 0.1 ms a row.
FIXED_S = 0.020
ROW_S = 0.0001

POLICY = BatchPolicy(max_rows=16, max_wait_s=0.004)

#: In the lessons, nine more requests follow a first one within 0.9 ms.
FOLLOWERS = 9
STEP_S = 0.0001


def request(name: int = 0, *, rows: int = 1, priority: int = 0, at: float = 0.0, due: float | None = None) -> Item[int]:
    return Item(name, rows, priority, due, at)


def learned_cost(fixed_s: float = FIXED_S, row_s: float = ROW_S) -> CostModel:
    cost = CostModel()
    for rows in (1, 2, 4, 8, 16, 32) * 4:
        cost.observe(rows, fixed_s + row_s * rows)
    assert cost.confident
    return cost


def expecting_batcher(policy: BatchPolicy = POLICY) -> tuple[MicroBatcher[int], float]:
    """Give an empty batcher that expects company after a first request, and the time."""
    batcher = MicroBatcher[int](policy, learned_cost())
    for burst in range(20):
        now = float(burst)
        batcher.put(request(at=now))
        batcher.take(now)
        batcher.put_many([request(at=now + STEP_S * follower) for follower in range(1, FOLLOWERS + 1)])
        while batcher.take(now + 0.5, drain=True):
            pass
        assert not len(batcher)
    return batcher, 20.0
