"""The careful run of a shard whose last attempt ended without a word: one group after the other, each marked before.

What runs when the process dies is then known, and suspect in the next attempt, which runs it in smaller pieces. A
single row that is suspect runs alone once more, marked as an empty span, since its worker may have been killed for any
reason; if that worker dies too, the row is bad. Deaths for other reasons cost an attempt, and blame nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Final, TypeAlias

from headrace.bulk.shards.groups import Group, Raw, bad_row
from headrace.bulk.shards.run import Control, Directive, Dropped, Pacing, Plan, Tally, Writer, write_answers
from headrace.contracts.errors import HeadraceError

#: Suspect rows run in so many pieces: a row that kills workers is found after four deaths, five if batches are large.
PIECES: Final = 64

#: Positions in the shard, from and to before.
Span: TypeAlias = tuple[int, int]


class PoisonRow(HeadraceError):
    """Workers died whenever they ran this row, so it is not run any more; see the log of the worker's supervisor."""


def group_size(suspect: Span | None, group_rows: int) -> Callable[[int], int]:
    """Return what decides how many rows the group has that begins at a position."""

    def size(start: int) -> int:
        if suspect is None or start >= max(suspect[1], suspect[0] + 1):
            return group_rows
        if start < suspect[0]:
            return min(group_rows, suspect[0] - start)
        return min(max((suspect[1] - suspect[0]) // PIECES, 1), max(suspect[1] - start, 1))

    return size


def marked(suspect: Span | None, start: int, stop: int) -> Span:
    """Return what is marked while a group runs: more than a single row, unless that row was suspect before."""
    if suspect == (start, start + 1):
        return start, start
    was_suspect = suspect is not None and suspect[0] <= start < suspect[1]
    return start, stop if was_suspect else max(stop, start + 2)


class CarefulRun:
    """Runs a shard once, carefully."""

    def __init__(self, plan: Plan, writer: Writer, control: Control, mark: Callable[[int, int], None]) -> None:
        """mark: records in the ledger, before it returns, that these positions run."""
        self._plan = plan
        self._writer = writer
        self._control = control
        self._mark = mark
        self.tally = Tally(next=(plan.part.file_no, plan.part.row_start))

    def run(self, suspect: Span | None) -> Tally:
        """Run as `ShardRun.run` does. suspect: positions that ran when the last attempt ended; None: nobody knows."""
        plan, tally = self._plan, self.tally
        size = group_size(suspect, plan.batch_rows)
        raws = plan.raws(size)
        pacing = Pacing(plan.rows_per_s)
        while True:
            start = tally.rows
            stop = start + size(start)
            if self._is_told_to_stop() or not pacing.wait(stop - start, self._is_told_to_stop):
                return tally
            is_poison = suspect == (start, start)
            if not is_poison:
                self._mark(*marked(suspect, start, stop))
            try:
                raw = next(raws, None)
                if raw is None:
                    tally.ended = True
                    return tally
                self._finish(raw, poison=is_poison)
            except CancelledError:  # the worker ends: what is done is published
                if tally.rows:
                    return tally
                raise
            except BaseException:
                if suspect is not None:  # nobody has died, so what was suspect still is, and nothing else
                    self._mark(*suspect)
                raise

    def _finish(self, raw: Raw, *, poison: bool) -> None:
        plan, tally = self._plan, self.tally
        if poison and raw.table.num_rows:
            table = raw.table.combine_chunks().to_batches()[0]
            error = PoisonRow()
            bad = [*raw.bad, bad_row(raw, table, 0, "infer", (error.type, error.message))]
            group, answers = Group(raw=raw, batches=[], which=[], bad=bad, skipped=0), []
        else:
            group = plan.group(raw)
            answers = plan.inference.submit(group.batches).result()
        write_answers(group, answers, plan, self._writer, tally)
        self._control.progress(tally.rows)

    def _is_told_to_stop(self) -> bool:
        directive = self._control.directive()
        if directive is Directive.DROP:
            raise Dropped
        return directive is Directive.STOP or self._writer.size_bytes >= self._plan.most_bytes
