"""The run of one shard: a thread reads and prepares ahead, the model runs, and the caller's thread writes."""

from __future__ import annotations

import posixpath
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from enum import Enum
from typing import Final, Protocol, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from headrace.bulk.columns.base import Preparation
from headrace.bulk.shards.group_size import GroupSize
from headrace.bulk.shards.groups import Group, Raw, bad_row, gather, prepare
from headrace.bulk.shards.inference import Answer, Inference, isolate
from headrace.bulk.shards.rest import rest_of
from headrace.bulk.shards.throttle import Throttle
from headrace.bulk.sources.base import RowBatch
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.rows import RowAxes
from headrace.results_store.jobs.records import BadRow, Slice

#: A shard that waits, for the model or for its turn by the bound of rows a second, looks this often whether to stop.
LOOK_S: Final = 0.1

#: Groups that are read and prepared ahead, and that wait for the model: one of each, besides those that are in work.
AHEAD: Final = 2


class Directive(Enum):
    """The orders to a shard. STOP: publish what is done, the rest becomes a shard of its own. DROP: publish nothing."""

    GO = "go"
    STOP = "stop"
    DROP = "drop"


class Dropped(Exception):
    """The shard belongs to somebody else by now, or its job was cancelled: nothing of it is published."""


class Control(Protocol):
    """The side of a run that tells it whether to go on, and hears how far it is. Methods return at once."""

    def directive(self) -> Directive:
        """Return what to do; called between groups."""
        ...

    def progress(self, rows: int) -> None:
        """Take note of how many rows of the shard are done."""
        ...


class Writer(Protocol):
    """Takes the rows of a shard that succeeded, in the order of the input."""

    @property
    def size_bytes(self) -> int:
        """About how many bytes were written."""
        ...

    def write(self, raw: Raw, which: np.ndarray, outputs: list[Tensors]) -> None:
        """Write rows. which: their positions in `raw.table`; outputs: of pieces of them, in order."""
        ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a shard is run. most_bytes: of its part, after which the rest becomes a shard of its own.

    read: yields the rows of a slice. input_axes: of the model. group_rows, batch_rows: see `groups`. sorts: whether
    rows of similar length are put together, so that results depend on where groups begin. uris: of files, by number.
    rows_per_s: its bound, which may change; 0 is none.
    """

    part: Slice
    uris: Mapping[int, str] = {}
    read: Callable[[Slice], Iterable[RowBatch]]
    preparation: Preparation
    inference: Inference
    input_axes: RowAxes
    batch_rows: int
    group_rows: int
    most_bytes: int
    sorts: bool = False
    rows_per_s: Callable[[], float] = lambda: 0.0

    def raws(self, size: Callable[[int], int]) -> Iterator[Raw]:
        """Yield the rows of the slice in groups; see `gather`."""
        by_folder = self.preparation.reads_paths
        return gather(self.read(self.part), size, self._folder_of if by_folder else lambda _: "")

    def group(self, raw: Raw) -> Group:
        """Prepare the rows of a group."""
        self.preparation.file_uri = self.uris.get(raw.file_no, "")
        return prepare(raw, self.preparation, self.batch_rows)

    def _folder_of(self, file_no: int) -> str:
        return posixpath.dirname(self.uris.get(file_no, ""))


class Tally(msgspec.Struct, kw_only=True):
    """The outcome of a shard so far.

    rows: all that are done, by position. next: file and row at which the slice goes on.
    """

    rows: int = 0
    ok: int = 0
    skipped: int = 0
    bad: list[BadRow] = []
    next: tuple[int, int] = (0, 0)
    ended: bool = False
    read_s: float = 0.0
    prepare_s: float = 0.0
    infer_s: float = 0.0
    write_s: float = 0.0
    bytes_read: int = 0

    def rest(self, part: Slice) -> Slice | None:
        """Return what of the slice is left."""
        return None if self.ended else rest_of(part, *self.next, self.rows)


_Read: TypeAlias = Group | BaseException | None


class ShardRun:
    """Runs a shard once."""

    def __init__(self, plan: Plan, writer: Writer, control: Control) -> None:
        """Nothing is read yet."""
        self._plan = plan
        self._writer = writer
        self._control = control
        self.tally = Tally(next=(plan.part.file_no, plan.part.row_start))
        self._groups: queue.Queue[_Read] = queue.Queue(AHEAD)
        self._size = GroupSize(plan.batch_rows, plan.group_rows, plan.rows_per_s, fixed=plan.sorts)
        self._stopped = threading.Event()

    def run(self) -> Tally:
        """Run to the end of the slice, or until told to stop; return what came of it.

        Raises Dropped; TransientFailure when the device has trouble; what reading and writing raise.
        """
        reader = threading.Thread(target=self._read_ahead, name="headrace-bulk-read", daemon=True)
        reader.start()
        try:
            self._work()
        finally:
            self._stopped.set()
            self._drain()
            reader.join()
            pa.default_memory_pool().release_unused()
        return self.tally

    def _work(self) -> None:
        waiting: deque[tuple[Group, Future[list[Answer]]]] = deque()
        pacing = Pacing(self._plan.rows_per_s)
        ended = False
        while waiting or not ended:
            while not ended and len(waiting) < AHEAD:
                group = self._next_group()
                if group is None or self._is_told_to_stop():
                    ended = True
                    self.tally.ended = group is None
                    break
                if not pacing.wait(group.rows, self._is_told_to_stop):
                    ended = True
                    break
                waiting.append((group, self._plan.inference.submit(group.batches)))
            try:
                if waiting:
                    self._finish(*waiting.popleft())
            except CancelledError:  # the worker ends: what is done is published, and this group left to others
                if not self.tally.rows:
                    raise
                self.tally.ended = False
                return

    def _is_told_to_stop(self) -> bool:
        directive = self._control.directive()
        if directive is Directive.DROP:
            raise Dropped
        return directive is Directive.STOP or self._writer.size_bytes >= self._plan.most_bytes

    def _next_group(self) -> Group | None:
        found = self._groups.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _finish(self, group: Group, future: Future[list[Answer]]) -> None:
        answers = self._answers(future)
        start = time.perf_counter()
        write_answers(group, answers, self._plan, self._writer, self.tally)
        self.tally.write_s += time.perf_counter() - start
        self._size.learn(group.rows, sum(answer.seconds for answer in answers))
        self._control.progress(self.tally.rows)

    def _answers(self, future: Future[list[Answer]]) -> list[Answer]:
        """Wait for the answers of a group. Raises CancelledError when told to stop meanwhile."""
        while True:
            try:
                return future.result(LOOK_S)
            except TimeoutError:
                if self._is_told_to_stop():
                    future.cancel()

    def _read_ahead(self) -> None:
        try:
            for group in prepared_groups(self._plan, self.tally, self._size):
                if not self._put(group):
                    return
            self._put(None)
        except BaseException as exc:  # noqa: BLE001 — it is raised where the shard runs
            self._put(exc)
        finally:
            pa.default_memory_pool().release_unused()  # of this thread, which ends

    def _put(self, found: _Read) -> bool:
        while not self._stopped.is_set():
            try:
                self._groups.put(found, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def _drain(self) -> None:
        while not self._groups.empty():
            self._groups.get_nowait()


def prepared_groups(plan: Plan, tally: Tally, size: Callable[[int], int]) -> Iterator[Group]:
    """Yield the groups of a slice as they are read, and count the seconds that this takes. size: as of `gather`."""
    start = time.perf_counter()
    for raw in plan.raws(size):
        read = time.perf_counter()
        group = plan.group(raw)
        prepared = time.perf_counter()
        tally.read_s += read - start
        tally.prepare_s += prepared - read
        yield group
        start = time.perf_counter()


def write_answers(group: Group, answers: list[Answer], plan: Plan, writer: Writer, tally: Tally) -> None:
    """Write the outputs of a group in the order of the input, and count its rows."""
    which, outputs, bad = [], [], list(group.bad)
    for rows, batch, answer in zip(group.which, group.batches, answers, strict=True):
        if answer.error is None:
            which.append(rows)
            outputs.append(answer.outputs)
            continue
        isolated = isolate(batch, answer.error, plan.inference, plan.input_axes)
        if len(isolated.good):
            which.append(rows[isolated.good])
            outputs += isolated.outputs
        table = group.raw.table.combine_chunks().to_batches()[0]
        for blamed in isolated.blamed:
            at = int(rows[blamed.at])
            bad.append(bad_row(group.raw, table, at, "infer", (blamed.error.type, blamed.error.message)))
    good = np.concatenate(which) if which else np.empty(0, np.int64)
    if len(good):
        writer.write(group.raw, good, outputs)
    tally.ok += len(good)
    tally.skipped += group.skipped
    tally.bad += bad
    tally.infer_s += sum(answer.seconds for answer in answers)
    tally.rows = group.raw.stop
    tally.next = (group.raw.file_no, group.raw.next_row)


class Pacing:
    """Keeps a shard below some rows a second."""

    def __init__(self, rows_per_s: Callable[[], float]) -> None:
        """rows_per_s: may change; 0 is no bound."""
        self._rows_per_s = rows_per_s
        self._throttle = Throttle(time.monotonic())

    def wait(self, rows: int, is_told_to_stop: Callable[[], bool]) -> bool:
        """Wait until these rows may go; return False if told to stop before."""
        while (left_s := self._throttle.goes_at(now := time.monotonic(), rows, self._rows_per_s()) - now) > 0:
            if is_told_to_stop():
                return False
            time.sleep(min(left_s, LOOK_S))
        self._throttle.went(now)
        return True
