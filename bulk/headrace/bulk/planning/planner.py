"""The planner: goes through a job's inputs, however many files they are, and cuts them into shards page by page."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from itertools import chain, islice
from typing import Final, TypeAlias

import msgspec

from headrace.bulk.planning.cutting import SMALL_BYTES, CutPolicy, Cutter
from headrace.bulk.sources.base import InputUnreadable, Unit
from headrace.bulk.sources.formats import format_of, source_of
from headrace.bulk.sources.slices import count_rows
from headrace.bulk.storage.base import ObjectInfo, Storage
from headrace.bulk.storage.globs import expand
from headrace.contracts.jobs import ScoreSpec
from headrace.results_store.jobs.records import InputFile, Slice

#: Most files in one page, so that a job of many tiny files is planned in bounded memory.
PAGE_FILES: Final = 5_000

#: The first small files of a job are opened for planning all the same, fewer of those that are read whole for it.
OPENED_FILES: Final = 256
OPENED_TEXTS: Final = 16

#: Formats that are read whole to be cut.
TEXTS: Final = frozenset({"csv", "tsv", "jsonl", "openai"})

#: The format whose files are rows.
IMAGE: Final = "image"


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """Where planning goes on. input_no: index of the input. after: URI of its last file that is planned whole.

    file_no: number of the next file. unit: of that file, the next that is planned. rows: planned so far, if a limit
    counts them. cut: shards so far, of `cut_bytes` of input. done: whether all was planned once, so that
    only what is new is planned now.
    """

    input_no: int = 0
    after: str = ""
    file_no: int = 0
    unit: int = 0
    rows: int = 0
    cut: int = 0
    cut_bytes: int = 0
    done: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the plan. bytes_listed: of the files of this page. done: whether it is the last."""

    files: list[InputFile]
    slices: list[Slice]
    cursor: Cursor
    done: bool

    @property
    def cursor_bytes(self) -> bytes:
        """The cursor, for the ledger."""
        return msgspec.json.encode(self.cursor)


def read_cursor(raw: bytes) -> Cursor:
    """Return the cursor that the ledger has; the beginning if there is none."""
    return msgspec.json.decode(raw, type=Cursor) if raw else Cursor()


class _Step(msgspec.Struct, frozen=True):
    """A file (unit is None) or a unit of one, and where planning goes on behind it. first: whether the file is new."""

    file: InputFile
    unit: Unit | None
    first: bool
    after: Cursor


#: Returns the storage that a URI is in.
StorageOf: TypeAlias = Callable[[str], Storage]


class Planner:
    """Plans one job, from a cursor on. For one thread; keeps its place between pages."""

    def __init__(
        self, spec: ScoreSpec, storage_of: StorageOf, cursor: Cursor, known: Container[str] = frozenset()
    ) -> None:
        """known: URIs of files that are planned already, wherever they are in the order; see `Cursor.done`."""
        if cursor.done:
            file_no = cursor.file_no + (cursor.unit > 0)
            cursor = msgspec.structs.replace(cursor, input_no=0, after="", file_no=file_no, unit=0)
        self._known = known
        self._spec = spec
        self._storage_of = storage_of
        self._cursor = cursor
        self._steps = self._walk(cursor)
        self._rows = cursor.rows
        self._cutter = Cutter(CutPolicy(batch_rows=1), cursor.cut, cursor.cut_bytes)

    @property
    def cursor(self) -> Cursor:
        """Where the next page begins."""
        return self._cursor

    def page(self, wanted: int, policy: CutPolicy) -> Page:
        """Return about `wanted` shards more. Raises what storages and sources raise."""
        cutter = self._cutter
        files: list[InputFile] = []
        slices: list[Slice] = []
        cutter.policy = policy
        done = False
        while len(slices) < wanted and len(files) < PAGE_FILES and not done:
            step = next(self._steps, None)
            if step is None:
                done = True
                break
            if step.first:
                files.append(step.file)
            slices += self._add(step)
            self._cursor = step.after
            done = self._limit_is_reached(slices)
        slices += cutter.finish()
        if self._spec.limit:
            slices = self._limited(slices)
        self._cursor = msgspec.structs.replace(
            self._cursor, rows=self._rows, cut=cutter.cut, cut_bytes=cutter.cut_bytes, done=done
        )
        return Page(files=files, slices=slices, cursor=self._cursor, done=done)

    def _add(self, step: _Step) -> list[Slice]:
        """Add a file or a unit to the shards; a small file that is one unit is gathered with others."""
        cutter, unit = self._cutter, step.unit
        if unit is None:
            return cutter.add_file(step.file)
        if step.file.rows >= 0 and step.file.rows <= cutter.policy.rows(cutter.cut, cutter.cut_bytes):
            return cutter.add_file(step.file)
        return cutter.add_unit(step.file, unit)

    def _limit_is_reached(self, slices: list[Slice]) -> bool:
        if not self._spec.limit:
            return False
        opened = self._cutter.open
        rows = sum(part.rows for part in slices) + (opened.rows if opened is not None else 0)
        return self._rows + rows >= self._spec.limit

    def _limited(self, slices: list[Slice]) -> list[Slice]:
        found = []
        for part in slices:
            rows = min(part.rows, self._spec.limit - self._rows)
            self._rows += rows
            if rows == part.rows:
                found.append(part)
            elif rows > 0:
                found.append(msgspec.structs.replace(part, rows=rows, est_s=part.est_s * rows / part.rows))
        return found

    def _walk(self, start: Cursor) -> Iterator[_Step]:
        """Yield all files and units behind a cursor."""
        file_no, unit = start.file_no, start.unit
        for input_no in range(start.input_no, len(self._spec.inputs)):
            uri = self._spec.inputs[input_no]
            storage = self._storage_of(uri)
            after = start.after if input_no == start.input_no else ""
            for page in expand(uri, storage, after):
                for info in page:
                    if info.uri in self._known:
                        continue
                    here = Cursor(input_no=input_no, after=after, file_no=file_no, unit=unit)
                    yield from self._steps_of(info, storage, here)
                    after, file_no, unit = info.uri, file_no + 1, 0

    def _steps_of(self, info: ObjectInfo, storage: Storage, here: Cursor) -> Iterator[_Step]:
        file = file_of(info, here.file_no, self._spec)
        behind = msgspec.structs.replace(here, after=info.uri, file_no=here.file_no + 1, unit=0)
        if file.rows >= 0 or (file.size <= SMALL_BYTES and not self._is_opened(file)):
            yield _Step(file, None, True, behind)
            return
        first = here.unit == 0
        units = iter(source_of(file.uri, file.format).units(file, storage))
        try:
            head = list(units if file.size <= SMALL_BYTES else islice(units, 1))
        except InputUnreadable:
            if self._spec.limit:
                raise
            yield _Step(file, None, True, behind)  # the shard that reads it lists it among the bad rows
            return
        if file.size <= SMALL_BYTES and len(head) == 1 and head[0].rows >= 0:
            file = msgspec.structs.replace(file, rows=head[0].rows)
        for unit in chain(head, units):
            if unit.number >= here.unit:
                if unit.rows < 0 and self._spec.limit:
                    unit = msgspec.structs.replace(unit, rows=count_rows(file, storage, self._spec.limit))  # noqa: PLW2901
                yield _Step(file, unit, first, msgspec.structs.replace(here, unit=unit.number + 1))
                first = False

    def _is_opened(self, file: InputFile) -> bool:
        """Return whether a small file is opened for planning, so that it can be cut: its rows may be slow ones."""
        most = OPENED_TEXTS if file.format in TEXTS else OPENED_FILES
        return bool(self._spec.limit) or file.file_no < most


def file_of(info: ObjectInfo, file_no: int, spec: ScoreSpec) -> InputFile:
    """Return an object as an input file. Raises UnknownFormat."""
    kind = spec.input_format or format_of(info.uri)
    return InputFile(
        file_no=file_no,
        uri=info.uri,
        format=kind,
        size=info.size,
        mtime_ns=info.mtime_ns,
        etag=info.etag,
        rows=1 if kind == IMAGE else -1,
    )
