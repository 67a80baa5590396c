"""The contract of a part writer: rows of one shard into one local file, published when it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

import pyarrow as pa

from headrace.contracts.errors import HeadraceError

#: What a part may be written as. `openai`: the lines of an OpenAI batch output.
PartFormat: TypeAlias = Literal["parquet", "csv", "jsonl", "openai"]

#: Bytes of a part, after which the rest of its shard becomes a shard of its own: a part is one PUT, which object stores
#: take in one piece, and workers hold in memory or retry as a whole.
PART_BYTES: Final = 128 << 20


class OutputTaken(HeadraceError):
    """The output folder holds something else; choose another output, or --restart to replace an earlier job."""


class OutputDamaged(HeadraceError):
    """A part of the output is gone or was changed by somebody else; --restart scores the input again."""


class FinalizingLost(HeadraceError):
    """Another worker finalizes the job by now; this one has nothing left to do."""


class PartWriter(Protocol):
    """Writes one part to a local scratch file. For one thread."""

    @property
    def rows(self) -> int:
        """Return how many rows were added."""
        ...

    @property
    def size_bytes(self) -> int:
        """Return an upper estimate of the size of the file so far, its size once it is closed."""
        ...

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. Raises StorageUnavailable when the disk is full."""
        ...

    def close(self, metadata: Mapping[str, str] = {}) -> Path:
        """Finish the file and return it; a file that was not closed is none.

        metadata: added to that of the opening, for formats that have a place for it (`PartIdentity.metadata`).
        """
        ...

    def abort(self) -> None:
        """Remove what was written."""
        ...
