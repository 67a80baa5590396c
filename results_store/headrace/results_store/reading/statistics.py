"""Statistics of the store: rows by model and state, sizes and ages, as `headrace store stats` prints them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from headrace.contracts.states import State
from headrace.results_store.schema import predictions


@dataclass(frozen=True, slots=True)
class ModelCount:
    """Number of rows of a model that ended in one state."""

    model: str
    state: State
    rows: int


@dataclass(frozen=True, slots=True)
class PartitionSize:
    """One partition: its size with indexes and large values, and its rows as Postgres last estimated them."""

    name: str
    size_bytes: int
    estimated_rows: int


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Contents of the store. oldest, newest: when the first and the last row finished; None when it is empty."""

    counts: tuple[ModelCount, ...]
    partitions: tuple[PartitionSize, ...]
    oldest: dt.datetime | None
    newest: dt.datetime | None

    @property
    def rows(self) -> int:
        """All rows, counted."""
        return sum(count.rows for count in self.counts)

    @property
    def size_bytes(self) -> int:
        """All partitions with their indexes."""
        return sum(partition.size_bytes for partition in self.partitions)


_table = predictions.c

_COUNTS: Final = (
    sa.select(
        _table.model,
        _table.state,
        sa.func.count(),
        sa.func.min(_table.finished_at),
        sa.func.max(_table.finished_at),
    )
    .group_by(_table.model, _table.state)
    .order_by(_table.model, _table.state)
)

_PARTITIONS: Final = sa.text(
    "SELECT c.relname, pg_total_relation_size(c.oid), greatest(c.reltuples, 0)::bigint "
    "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = to_regclass('predictions') ORDER BY c.relname"
)


def read_stats(connection: sa.Connection) -> StoreStats:
    """Count all rows (a scan of the whole table) and measure its partitions."""
    groups = connection.execute(_COUNTS).all()
    return StoreStats(
        counts=tuple(ModelCount(model, State(state), rows) for model, state, rows, _, _ in groups),
        partitions=tuple(PartitionSize(*row) for row in connection.execute(_PARTITIONS)),
        oldest=min((oldest for _, _, _, oldest, _ in groups), default=None),
        newest=max((newest for _, _, _, _, newest in groups), default=None),
    )
