"""The contract of a part writer: rows of one shard into one local file, published when it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pyarrow as pa


class PartWriter(Protocol):
    """Writes one part to a local scratch file. For one thread."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. Raises StorageUnavailable when the disk is full."""
        ...

    def close(self) -> Path:
        """Finish the file and return it; a file that was not closed is none."""
        ...

    def abort(self) -> None:
        """Remove what was written."""
        ...
