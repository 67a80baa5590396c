"""Parts of text, one line a row: what JSON lines and OpenAI's outputs share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa

from headrace.bulk.sinks.formats.scratch import ScratchPart

#: Rows that are turned into text at a time, which bounds the Python objects alive.
ROWS: Final = 4096


class LinesPart(ScratchPart):
    """A part that is lines of text."""

    _file: BinaryIO | None = None

    def _open(self, path: Path) -> None:
        self._file = path.open("wb", buffering=1 << 20)

    def _write(self, batch: pa.RecordBatch) -> None:
        assert self._file
        for start in range(0, batch.num_rows, ROWS):
            lines = list(self._lines(batch.slice(start, ROWS)))
            self._file.write(b"\n".join([*lines, b""]))

    def _finish(self) -> None:
        assert self._file
        self._file.close()

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()

    def _size(self) -> int:
        return self._file.tell() if self._file else 0

    @abstractmethod
    def _lines(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """Yield a line for each row, without its end."""
