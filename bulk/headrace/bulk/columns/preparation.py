"""Tables become tensors of a model: which columns are which inputs, and what each of them is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.base import PreparedRows, Refused
from headrace.bulk.columns.feed_maker import FeedMaker, FilePlace, ReadBytes
from headrace.bulk.columns.feeds import FedRows, Feed, check_symbols
from headrace.bulk.columns.findings import Findings
from headrace.bulk.columns.kinds import is_binary
from headrace.bulk.columns.matching import Matcher, check_column
from headrace.bulk.columns.nulls import NullPolicy, parse_on_null
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.tensors.codec import Tensors


def make_preparation(
    package: ModelPackage, spec: ScoreSpec, schema: pa.Schema, *, read_bytes: ReadBytes | None = None, threads: int = 1
) -> ColumnPreparation:
    """Return the preparation of tables of a schema for a model.

    read_bytes: reads a file by its URI, for columns of paths; it refuses what may not be read. threads: that decode
    images or encode text. Raises ColumnMismatch when the columns don't fit the model, InvalidRequest for a wrong
    `on_null`, ConfigurationError when a library is missing.
    """
    policy = parse_on_null(spec.on_null)
    for column in spec.keep:
        check_column(schema, column, "--keep")
    matcher = Matcher(package.manifest, schema, spec.mapping, spec.keep)
    matches = matcher.matches()
    place = FilePlace(read_bytes)
    maker = FeedMaker(package, spec, policy, place.read, threads)
    feeds = [maker.feed(match) for match in matches]
    made = ColumnPreparation(feeds, spec.keep, policy, [match.note for match in matches if match.note], place)
    made.reads_paths = any(
        match.kind == "image" and not is_binary(matcher.type_of(match.columns[0])) for match in matches
    )
    return made


class ColumnPreparation:
    """Prepares tables by the feeds of a model's inputs. For one thread."""

    def __init__(
        self, feeds: Sequence[Feed], kept: Sequence[str], policy: NullPolicy, notes: Sequence[str], place: FilePlace
    ) -> None:
        """kept: columns that are read though no input needs them. notes: what was chosen where nobody said it."""
        self._feeds: Final = tuple(feeds)
        self._policy: Final = policy
        self.columns = tuple(dict.fromkeys([*(name for feed in feeds for name in feed.columns), *kept]))
        #: Columns whose numbers become floats, so that integers among them are no other type than the rest.
        self.float_columns = tuple(dict.fromkeys(name for feed in feeds for name in feed.float_columns))
        self.notes = tuple(notes)
        bounds = [bound for feed in feeds if (bound := getattr(feed, "rows_at_once", 0))]
        self.rows_at_once = min(bounds, default=0)
        self.reads_paths = False
        self._place: Final = place

    @property
    def file_uri(self) -> str:
        """URI of the file that the tables are of, from which relative paths in a column start."""
        return self._place.file_uri

    @file_uri.setter
    def file_uri(self, uri: str) -> None:
        self._place.file_uri = uri

    def prepare(self, table: pa.RecordBatch) -> PreparedRows:
        """Prepare the rows of a table."""
        findings = Findings(table.num_rows, self._policy)
        fed = [feed.feed(table, findings) for feed in self._feeds]
        check_symbols(fed, findings)
        return Prepared(fed, findings)


class Prepared:
    """The rows of one table, as the feeds read them."""

    def __init__(self, fed: Sequence[FedRows], findings: Findings) -> None:
        """fed: of each feed."""
        self._fed = fed
        self.good: NDArray[np.int64] = findings.good()
        self.refused: list[Refused] = findings.bad()
        self.skipped: NDArray[np.int64] = findings.skipped()
        lengths = [rows.lengths for rows in fed if rows.lengths is not None]
        self.lengths: NDArray[np.int64] | None = np.maximum.reduce(lengths)[self.good] if lengths else None
        dims = [rows.dims[self.good] for rows in fed if rows.dims is not None]
        self.groups: NDArray[np.int64] | None = _groups(np.concatenate(dims, axis=1)) if dims else None

    def tensors(self, which: NDArray[np.int64]) -> Tensors:
        """Return the model's inputs for some of the good rows."""
        rows = self.good[which]
        tensors: Tensors = {}
        for fed in self._fed:
            tensors.update(fed.take(rows))
        return tensors


def _groups(dims: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each row that is that of all rows with the same sizes."""
    if not len(dims):
        return np.empty(0, np.int64)
    return np.unique(dims, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
