"""Groups: rows as they were read become groups of full batches, cut at fixed positions in the shard."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.base import Preparation, PreparedRows
from headrace.bulk.shards.row_json import row_as_json
from headrace.bulk.sources.base import RowBatch
from headrace.contracts.tensors.codec import Tensors
from headrace.results_store.jobs.records import BadRow

#: Bytes of tensors in a group, unless a single batch has more: what is read ahead and not yet written is some groups.
GROUP_BYTES: Final = 8 << 20

#: Rows in a group at most: enough that what is done once for each group costs little for each row.
GROUP_ROWS: Final = 8_192

#: Rows among which those of varying length are sorted, so that rows of similar length run together. In batches of 32
#: sentences padding costs 2 % then; among 1,024 rows it would be 7 %, among 8,192 1 %, and a stop would cost more.
SORTED_ROWS: Final = 4_096


class Raw(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one group before they are prepared. start, stop: positions in the shard, bad rows counted.

    file_nos, rows: where each row of `table` is from. file_no, next_row: where the slice goes on behind the group.
    """

    start: int
    stop: int
    table: pa.Table
    file_nos: NDArray[np.int64]
    rows: NDArray[np.int64]
    bad: list[BadRow]
    file_no: int
    next_row: int


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that are ready for the model.

    batches: tensors of each batch. which: the rows of each, as positions in `raw.table`.
    """

    raw: Raw
    batches: list[Tensors]
    which: list[NDArray[np.int64]]
    bad: list[BadRow]
    skipped: int

    @property
    def rows(self) -> int:
        """How many rows it stands for: good, bad and skipped ones."""
        return self.raw.stop - self.raw.start


def gather(
    batches: Iterable[RowBatch], size: Callable[[int], int], folder_of: Callable[[int], str] = lambda _: ""
) -> Iterator[Raw]:
    """Yield the rows of a shard in groups. size: how many rows the group has that begins at a position.

    A row that can't be read has a position too, so that batches behind it stay as they are. folder_of: of a file by its
    number; no group has rows of two.
    """
    pending = _Pending()
    folder = ""
    for batch in batches:
        if folder_of(batch.file_no) != folder:
            folder = folder_of(batch.file_no)
            if pending.rows or pending.bad:
                yield pending.take()
        for piece in _pieces(batch):
            rest: _Piece | None = piece
            while rest is not None:
                rest = pending.add(rest, size(pending.start))
                if pending.rows >= size(pending.start):
                    yield pending.take()
    if pending.rows or pending.bad:
        yield pending.take()


class _Piece(msgspec.Struct):
    """Neighbouring rows of one file: the first of them bad, or none. next_row: the number after the last."""

    file_no: int
    table: pa.RecordBatch
    rows: NDArray[np.int64]
    bad: list[BadRow]
    next_row: int

    @property
    def size(self) -> int:
        return len(self.rows) + sum(each.row >= 0 for each in self.bad)


def _pieces(batch: RowBatch) -> Iterator[_Piece]:
    """Cut a batch behind each bad row, so that pieces can be cut by counting."""
    at = 0
    for bad in sorted(batch.bad, key=lambda each: each.row):
        stop = int(np.searchsorted(batch.rows, bad.row)) if bad.row >= 0 else at
        if stop > at:
            rows = batch.rows[at:stop]
            yield _Piece(batch.file_no, batch.table.slice(at, stop - at), rows, [], int(rows[-1]) + 1)
        after = bad.row + 1 if bad.row >= 0 else batch.next_row
        yield _Piece(batch.file_no, batch.table.slice(stop, 0), batch.rows[:0], [bad], after)
        at = stop
    if at < len(batch.rows):
        yield _Piece(batch.file_no, batch.table.slice(at), batch.rows[at:], [], batch.next_row)


class _Pending:
    """The pieces of the group that is being filled."""

    def __init__(self) -> None:
        self.start = 0
        self.rows = 0
        self.bad: list[BadRow] = []
        self._pieces: list[_Piece] = []

    def add(self, piece: _Piece, most: int) -> _Piece | None:
        """Add a piece as far as there is room for; return the rest of it."""
        room = most - self.rows
        rest = None
        if piece.size > room:  # only a piece of good rows has more than one
            rest = _Piece(piece.file_no, piece.table.slice(room), piece.rows[room:], [], piece.next_row)
            rows = piece.rows[:room]
            piece = _Piece(piece.file_no, piece.table.slice(0, room), rows, [], int(rows[-1]) + 1)
        self._pieces.append(piece)
        self.bad += piece.bad
        self.rows += piece.size
        return rest

    def take(self) -> Raw:
        """Return the group, and begin the next."""
        pieces, last = self._pieces, self._pieces[-1]
        found = Raw(
            start=self.start,
            stop=self.start + self.rows,
            table=_joined([piece.table for piece in pieces]),
            file_nos=np.repeat([piece.file_no for piece in pieces], [len(piece.rows) for piece in pieces]),
            rows=np.concatenate([piece.rows for piece in pieces]),
            bad=self.bad,
            file_no=last.file_no,
            next_row=last.next_row,
        )
        self.start += self.rows
        self.rows, self.bad, self._pieces = 0, [], []
        return found


def _joined(tables: list[pa.RecordBatch]) -> pa.Table:
    """Return the rows of tables of one schema; those that stand for files that can't be read have no columns."""
    with_columns = [table for table in tables if table.num_columns] or tables[:1]
    return pa.Table.from_batches(with_columns)


def prepare(raw: Raw, preparation: Preparation, batch_rows: int) -> Group:
    """Prepare the rows of a group, and cut them into batches; one bad row affects no other."""
    bad, batches, which = list(raw.bad), [], []
    skipped = 0
    if raw.table.num_rows:
        (table,) = raw.table.combine_chunks().to_batches(max_chunksize=raw.table.num_rows)
        prepared = preparation.prepare(table)
        skipped = len(prepared.skipped)
        bad += [bad_row(raw, table, each.at, each.stage, (each.type, each.message)) for each in prepared.refused]
        for chosen in cut(prepared, raw, batch_rows):
            batches.append(prepared.tensors(chosen))
            which.append(prepared.good[chosen])
    return Group(raw=raw, batches=batches, which=which, bad=bad, skipped=skipped)


def cut(prepared: PreparedRows, raw: Raw, batch_rows: int) -> Iterator[NDArray[np.int64]]:
    """Yield the good rows of each batch, as indexes into `prepared.good`.

    Rows that are all alike are cut at fixed positions of the shard, whatever rows beside them are bad. Rows of varying
    length are sorted by it first, and rows whose shapes differ share no batch.
    """
    everything = np.arange(len(prepared.good))
    if prepared.groups is not None:
        for group in np.unique(prepared.groups):
            alike = np.flatnonzero(prepared.groups == group)
            yield from (alike[at : at + batch_rows] for at in range(0, len(alike), batch_rows))
        return
    if prepared.lengths is not None:
        by_length = np.argsort(prepared.lengths, kind="stable")
        yield from (by_length[at : at + batch_rows] for at in range(0, len(by_length), batch_rows))
        return
    if not raw.bad:
        positions = prepared.good
    else:
        keys = (raw.file_nos << 40) + raw.rows
        lost = np.array(sorted((each.file_no << 40) + each.row for each in raw.bad if each.row >= 0), np.int64)
        positions = (np.arange(len(keys)) + np.searchsorted(lost, keys))[prepared.good]
    edges = np.searchsorted(positions, np.arange(0, raw.stop - raw.start + batch_rows, batch_rows))
    yield from (everything[a:b] for a, b in itertools.pairwise(edges) if b > a)


def bad_row(raw: Raw, table: pa.RecordBatch, at: int, stage: str, error: tuple[str, str]) -> BadRow:
    """Describe a bad row of a group by its position in the table. error: type and message."""
    return BadRow(
        file_no=int(raw.file_nos[at]),
        row=int(raw.rows[at]),
        stage=stage,
        type=error[0],
        message=error[1],
        input=row_as_json(table, at),
    )


def group_rows_for(batch_rows: int, row_bytes: int, *, sorts: bool) -> int:
    """Return how many rows a group has: a multiple of `batch_rows`.

    row_bytes: of the tensors of a row; 0 if it varies. sorts: whether rows of similar length are put together.
    """
    most = SORTED_ROWS if sorts else GROUP_ROWS
    if row_bytes:
        most = min(most, GROUP_BYTES // row_bytes)
    return batch_rows * max(most // batch_rows, 1)
