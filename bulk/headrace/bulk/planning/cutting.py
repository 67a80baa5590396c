"""Cutting: units of input files become shards of about equal seconds, the first ones short. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.bulk.sinks.base import PART_BYTES
from headrace.bulk.sources.base import Unit
from headrace.results_store.jobs.records import InputFile, Slice

#: A shard takes about so long: a kill costs no more than that, and claiming one, opening its files and publishing its
#: part, some tens of milliseconds, is little beside it.
TARGET_S: Final = 15.0

#: The first shards take about so long: errors show early, and the pace of the rest is measured.
FIRST_S: Final = 1.5

#: What is left of a job is worth so many shards for each worker, and so many at least: shards become shorter towards
#: the end of the input, so that all workers end at about the same time, and a kill costs little of a short job. None
#: takes fewer seconds than the last.
SHARDS_PER_WORKER: Final = 4
FEWEST_SHARDS: Final = 24
LAST_S: Final = 0.75

#: A shard that ends inside a row group lasts at least so many times as long as it takes to read the group once more,
#: for the shard that goes on there, at so many bytes a second.
REREAD_SHARE: Final = 5.0
READ_BYTES_PER_S: Final = 200e6

#: Where rows of similar length are put together, they are sorted within windows. A cut window pads more, so shards are
#: whole windows, or at least this share of one: half of one for a worker alone, a quarter where several are to have
#: something to do.
LEAST_WINDOW_ALONE: Final = 0.5
LEAST_WINDOW: Final = 0.25

#: Batches, and bytes of files whose rows nobody has counted, in the first shard of a job whose pace nobody knows.
FIRST_BATCHES: Final = 16
FIRST_BYTES: Final = 1 << 20

#: A shard may be so much smaller or larger than wanted, so that it ends where a unit does.
SMALLEST: Final = 0.5
LARGEST: Final = 1.5

#: Smaller files are not opened for planning: to open one costs about as much as to read it.
SMALL_BYTES: Final = 4 << 20

#: Most files in one shard, so that a claim stays small.
MOST_FILES: Final = 2_000


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a job's rows are scored by one worker, as measured or as the model's package says; 0 is unknown."""

    seconds_per_row: float = 0.0
    seconds_per_byte: float = 0.0


class CutPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The figures that decide on the size of a shard.

    batch_rows: shards begin at multiples of it, so that batches are full. window_rows: among which rows are sorted by
    their length; 0 if they are not. output_row_bytes: about, of a row of output. bytes_total: of the input, if known,
    else 0. workers: that work on the job.
    """

    batch_rows: int
    window_rows: int = 0
    pace: Pace = Pace()
    output_row_bytes: float = 0.0
    bytes_total: int = 0
    workers: int = 1

    def seconds(self, number: int, cut_bytes: int = 0) -> float:
        """Return how long the shard of this number should take. cut_bytes: of the input in the shards before it."""
        longest = TARGET_S
        if self.bytes_total and self.pace.seconds_per_byte:
            left_s = max(self.bytes_total - cut_bytes, 0) * self.pace.seconds_per_byte
            longest = min(longest, max(left_s / max(SHARDS_PER_WORKER * self.workers, FEWEST_SHARDS), LAST_S))
        return min(FIRST_S * self._growth(number), longest)

    def rows_inside(self, unit: Unit) -> int:
        """Return how many rows of a unit are worth it that the unit is read again by the next shard."""
        if not self.pace.seconds_per_row:
            return 0
        least_s = min(REREAD_SHARE * unit.size_bytes / READ_BYTES_PER_S, TARGET_S)
        return int(least_s / self.pace.seconds_per_row // self.batch_rows) * self.batch_rows

    def _growth(self, number: int) -> float:
        """Return how much larger than the first a shard may be: each worker begins with a short one."""
        return 2.0 ** min(number // max(self.workers, 1), 10)

    def rows(self, number: int, cut_bytes: int = 0) -> int:
        """Return how many rows the shard of this number should have: a multiple of `batch_rows`."""
        if self.pace.seconds_per_row:
            wanted = self.seconds(number, cut_bytes) / self.pace.seconds_per_row
        else:
            wanted = FIRST_BATCHES * self.batch_rows * self._growth(number)
        if self.window_rows:
            wanted = self._in_windows(wanted)
        if self.output_row_bytes:
            wanted = min(wanted, PART_BYTES / self.output_row_bytes)
        return max(int(wanted // self.batch_rows), 1) * self.batch_rows

    def _in_windows(self, rows: float) -> float:
        least = self.window_rows * (LEAST_WINDOW_ALONE if self.workers == 1 else LEAST_WINDOW)
        return max(rows // self.window_rows * self.window_rows, min(max(rows, least), self.window_rows))

    def bytes(self, number: int, cut_bytes: int = 0) -> int:
        """Return how many bytes of input the shard of this number should have, where rows are not counted."""
        if self.pace.seconds_per_byte:
            return max(int(self.seconds(number, cut_bytes) / self.pace.seconds_per_byte), 1)
        return int(FIRST_BYTES * self._growth(number))

    def est_s(self, rows: int, size_bytes: int) -> float:
        """Return about how long a shard takes; 0 if nobody knows."""
        if rows >= 0 and self.pace.seconds_per_row:
            return rows * self.pace.seconds_per_row
        return size_bytes * self.pace.seconds_per_byte


class Cutter:
    """Gathers units, in the order of the input, into shards. cut: how many shards it has made, of `cut_bytes` of input.

    policy: may be replaced at any time; it decides on the shards that follow.
    """

    def __init__(self, policy: CutPolicy, cut: int = 0, cut_bytes: int = 0) -> None:
        """cut: how many shards of the job there were before. cut_bytes: of the input in them."""
        self.policy = policy
        self.cut = cut
        self.cut_bytes = cut_bytes
        self._open: Slice | None = None

    @property
    def open(self) -> Slice | None:
        """The shard that more units are added to."""
        return self._open

    def add_file(self, file: InputFile) -> list[Slice]:
        """Add a whole file, which is not opened; return the shards that are complete with it. rows: see `InputFile`."""
        done: list[Slice] = []
        opened = self._open
        if opened is not None and (opened.byte_stop != -1 or opened.file_no + opened.files != file.file_no):
            done += self.finish()
            opened = None
        if opened is None:
            opened = Slice(file_no=file.file_no, rows=file.rows, size_bytes=file.size)
        else:
            rows = -1 if opened.rows < 0 or file.rows < 0 else opened.rows + file.rows
            opened = msgspec.structs.replace(
                opened, files=opened.files + 1, rows=rows, size_bytes=opened.size_bytes + file.size
            )
        self._open = opened
        if self._is_full(opened):
            done += self.finish()
        return done

    def add_unit(self, file: InputFile, unit: Unit, from_row: int = 0) -> list[Slice]:
        """Add a unit of a file that was opened; return the shards that are complete with it.

        from_row: rows of the unit before it (by their number in the file) belong to an earlier shard.
        """
        opened = self._open
        done: list[Slice] = []
        if opened is not None and (opened.files > 1 or opened.file_no != file.file_no or opened.byte_stop == -1):
            done += self.finish()
            opened = None
        first = max(unit.first_row, from_row)
        if unit.rows < 0:
            return done + self._add_uncounted(file, unit, first)
        end = unit.first_row + unit.rows
        if opened is not None and self._ends_before(opened, end - first):
            done += self.finish()
        while first < end:
            opened = self._open
            have = 0 if opened is None else opened.rows
            wanted = self.policy.rows(self.cut, self.cut_bytes)
            take = max(wanted - have, self.policy.rows_inside(unit))
            if have + end - first <= wanted * LARGEST or take >= end - first:
                take = end - first  # a rest is not worth a shard of its own, which would read this unit once more
            self._extend(file, unit, first, max(take, 1))
            first += max(take, 1)
            if self._is_full(self._open):
                done += self.finish()
        return done

    def _ends_before(self, opened: Slice, rows: int) -> bool:
        """Return whether a shard ends before a unit of this many rows rather than inside it."""
        wanted = self.policy.rows(self.cut, self.cut_bytes)
        return opened.rows >= wanted * SMALLEST and opened.rows + rows > wanted * LARGEST

    def _add_uncounted(self, file: InputFile, unit: Unit, first: int) -> list[Slice]:
        done = self.finish()
        self._extend(file, unit, first, -1)
        return done + self.finish()

    def _extend(self, file: InputFile, unit: Unit, first: int, rows: int) -> None:
        share = rows / unit.rows if unit.rows > 0 else 1.0
        size_bytes = int(unit.size_bytes * share)
        opened = self._open
        if opened is None:
            self._open = Slice(
                file_no=file.file_no,
                unit=unit.number,
                units=1,
                byte_start=unit.byte_start,
                byte_stop=unit.byte_stop if unit.byte_stop != -1 else file.size,
                range_row=unit.first_row,
                range_line=unit.first_line,
                row_start=first,
                rows=rows,
                size_bytes=size_bytes,
            )
            return
        self._open = msgspec.structs.replace(
            opened,
            units=unit.number - opened.unit + 1,
            byte_stop=unit.byte_stop if unit.byte_stop != -1 else file.size,
            rows=opened.rows + rows,
            size_bytes=opened.size_bytes + size_bytes,
        )

    def _is_full(self, opened: Slice | None) -> bool:
        if opened is None:
            return False
        if opened.files >= MOST_FILES:
            return True
        if opened.rows >= 0:
            return opened.rows >= self.policy.rows(self.cut, self.cut_bytes)
        return opened.size_bytes >= self.policy.bytes(self.cut, self.cut_bytes)

    def finish(self) -> list[Slice]:
        """Return the shard that was open, if one was: nothing is added to it any more."""
        opened, self._open = self._open, None
        if opened is None:
            return []
        self.cut += 1
        self.cut_bytes += opened.size_bytes
        return [msgspec.structs.replace(opened, est_s=self.policy.est_s(opened.rows, opened.size_bytes))]
