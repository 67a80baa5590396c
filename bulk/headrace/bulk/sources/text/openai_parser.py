"""The parser of OpenAI batch files: each line is a request, of which one text is an input of the model. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from headrace.bulk.sources.base import bytes_column
from headrace.bulk.sources.projection import Projection
from headrace.bulk.sources.text.cells import Cells
from headrace.bulk.sources.text.pieces import Piece

#: Requests that have one text, and ask for what a model computes of it.
URLS: Final = ("/v1/embeddings", "/v1/moderations", "/v1/classify", "/v1/pooling")

SCHEMA: Final = pa.schema([("custom_id", pa.string()), ("url", pa.string()), ("input", pa.string())])


class _Body(msgspec.Struct):
    input: str | list[str]


class _Request(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: _Body


class _Unfit(ValueError):
    """A request that can't be run as one row."""


class OpenAiParser:
    """Parses pieces of one file. Columns: `custom_id`, `url`, and the body's `input` as text."""

    def __init__(self, projection: Projection) -> None:
        """projection: of the columns."""
        self.schema = projection.schema
        self._decoder = msgspec.json.Decoder(_Request)

    def parse(self, piece: Piece) -> Cells:
        """Return the cells of a piece."""
        rows: list[dict[str, str]] = []
        good, bad = [], {}
        for at, (start, stop) in enumerate(zip(piece.starts.tolist(), piece.stops.tolist(), strict=True)):
            try:
                rows.append(self._row(piece.data[start:stop]))
            except (ValueError, RecursionError) as exc:
                bad[at] = f"the line is no request that can be run: {exc or type(exc).__name__}"
            else:
                good.append(at)
        columns = [bytes_column([row[field.name].encode() for row in rows], field.type) for field in self.schema]
        return Cells(pa.RecordBatch.from_arrays(columns, schema=self.schema), np.array(good, np.int64), bad)

    def _row(self, line: bytes) -> dict[str, str]:
        request = self._decoder.decode(line)
        if request.method != "POST":
            raise _Unfit(f"method is {request.method!r}, not 'POST'")
        if request.url not in URLS:
            raise _Unfit(f"url is {request.url!r}; known are {', '.join(URLS)}")
        texts = request.body.input
        if isinstance(texts, list):
            if len(texts) != 1:
                raise _Unfit(f"input has {len(texts)} texts; write a line for each")
            (texts,) = texts
        return {"custom_id": request.custom_id, "url": request.url, "input": texts}
