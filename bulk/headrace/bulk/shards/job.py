"""A job as a worker runs its shards: its inputs, the preparation of rows, its output; opened once, for many shards."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from headrace.bulk.columns.base import Preparation
from headrace.bulk.columns.output import OutputColumns
from headrace.bulk.columns.preparation import make_preparation
from headrace.bulk.shards.groups import group_rows_for
from headrace.bulk.sinks.base import PartFormat, PartWriter
from headrace.bulk.sinks.formats.openai import CUSTOM_ID
from headrace.bulk.sinks.formats.opening import open_part, part_format
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import part_name
from headrace.bulk.sinks.output.publication import PublishedPart, publish_part
from headrace.bulk.sources.base import RowBatch
from headrace.bulk.sources.counting import CountedFiles
from headrace.bulk.sources.schemas import with_floats
from headrace.bulk.sources.slices import Wanted, read_slice, schema_of
from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.opening import Storages
from headrace.contracts.jobs import STORE
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.tensors.datatypes import dtype_of
from headrace.contracts.tensors.rows import RowAxes
from headrace.results_store.jobs.records import BadRow, Claim, InputFile, JobRow, Slice

#: Formats whose numbers have no types.
JSON_FORMATS: Final = ("jsonl", "openai")

#: The format of an OpenAI batch, whose requests are found again by their `custom_id`.
OPENAI: Final = "openai"


def sorts_rows(package: ModelPackage) -> bool:
    """Return whether rows of similar length are put together: rows of the model's inputs differ in size."""
    return any(spec.varies or spec.datatype == "BYTES" for spec in package.manifest.inputs)


class OpenJob:
    """The parts that all shards of a job share. For one thread at a time.

    notes: what was chosen of the input's columns because nobody said it.
    """

    def __init__(self, job: JobRow, package: ModelPackage, storages: Storages, first: InputFile) -> None:
        """first: the job's first input file, whose columns decide on the types of all.

        Raises ColumnMismatch, InputUnreadable and the errors of the storages.
        """
        if first.format == OPENAI and CUSTOM_ID not in job.spec.keep:
            spec = msgspec.structs.replace(job.spec, keep=(CUSTOM_ID, *job.spec.keep), input_format=OPENAI)
            job = msgspec.structs.replace(job, spec=spec)
        self.job: Final = job
        self.package: Final = package
        self._storages: Final = storages
        manifest = package.manifest
        self.batch_rows: Final = manifest.batching.max_rows if manifest.batching.independent_rows else 1
        self.input_axes: Final = RowAxes(manifest.inputs)
        self.output_axes: Final = RowAxes(manifest.signature.outputs)
        self._wanted: Final = Wanted(folders=job.spec.inputs)
        self.schema: Final[pa.Schema] = self._schema(first)
        # Said at once, before anything is read: the other columns of the output don't depend on the shard.
        self.columns: Final = OutputColumns(manifest, job.spec, self.schema)
        self.to_store: Final = job.spec.output == STORE
        self.notes: Final = self.preparation().notes

    def _schema(self, first: InputFile) -> pa.Schema:
        """Return the columns of the first file; numbers of JSON are real ones where the model takes such."""
        schema = schema_of(first, self._storages.of(first.uri), self._wanted)
        if first.format not in JSON_FORMATS:
            return schema
        spec = self.job.spec
        floats = make_preparation(self.package, spec, schema, read_bytes=self._read_bytes).float_columns
        return with_floats(schema, set(floats) - set(spec.keep))

    def preparation(self) -> Preparation:
        """Return a preparation, for one thread."""
        return make_preparation(self.package, self.job.spec, self.schema, read_bytes=self._read_bytes)

    def _read_bytes(self, uri: str) -> bytes:
        """Return the content of a file that a column names; only below the allowed roots."""
        with self._storages.of(uri).open(uri) as file:
            return file.read()

    @property
    def sorts(self) -> bool:
        """Whether rows of similar length are put together: rows of the model's inputs differ in size."""
        return sorts_rows(self.package)

    def group_rows(self, preparation: Preparation) -> int:
        """Return how many rows are read, prepared and written together."""
        row_bytes = 0
        for spec in self.package.manifest.inputs:
            if spec.varies or spec.datatype == "BYTES":
                row_bytes = 0
                break
            row_bytes += math.prod(spec.shape) * dtype_of(spec.datatype).itemsize
        rows = group_rows_for(self.batch_rows, row_bytes, sorts=row_bytes == 0)
        if preparation.rows_at_once:
            rows = min(rows, max(preparation.rows_at_once // self.batch_rows, 1) * self.batch_rows)
        return rows

    def input_of(self, files: Sequence[InputFile]) -> CountedFiles:
        """Return the storage of some files of the input, which counts what is read."""
        return CountedFiles(self._storages.of(files[0].uri))

    def read(
        self, files: Sequence[InputFile], part: Slice, columns: Sequence[str], storage: CountedFiles
    ) -> Iterator[RowBatch]:
        """Yield the rows of a slice."""
        yield from read_slice(
            files, part, storage, msgspec.structs.replace(self._wanted, columns=tuple(columns), schema=self.schema)
        )

    @property
    def format(self) -> PartFormat:
        """The format of the parts."""
        return part_format(self.job.spec)

    @property
    def output(self) -> Storage:
        """The storage of the output folder."""
        return self._storages.of(self.job.spec.output)

    def open_part(self, scratch: Path) -> PartWriter:
        """Return a writer of a part, in a file of its own in the scratch folder."""
        scratch.mkdir(parents=True, exist_ok=True)
        named = {"headrace.job": str(self.job.id), "headrace.model": self.job.spec.model}
        return open_part(self.format, scratch / f"{uuid.uuid4().hex}.{self.format}", self.columns.schema, named)

    def identity(self, claim: Claim, rows: tuple[int, int, int], stop: tuple[int, int]) -> PartIdentity:
        """Return what a part says of itself. rows: ok, bad and skipped. stop: file and row it doesn't account for."""
        ok, bad, skipped = rows
        job = claim.job
        return PartIdentity(
            key=job.spec.key().hex(),
            job=str(job.id),
            shard=claim.shard_no,
            file_no=claim.slice.file_no,
            row_start=claim.slice.row_start,
            rows_ok=ok,
            rows_bad=bad,
            rows_skipped=skipped,
            stop_file=stop[0],
            stop_row=stop[1],
            model=job.spec.model,
            version=job.version,
            sha256=job.package_sha256,
        )

    def publish(self, claim: Claim, local: Path, identity: PartIdentity, bad: Sequence[BadRow] = ()) -> PublishedPart:
        """Publish a part of a shard, or adopt that of an earlier attempt. bad: the bad rows of this one."""
        name = part_name(claim.slice, self.format, claim.retry)
        return publish_part(self.output, local, self.job.spec.output, name, identity, bad)
