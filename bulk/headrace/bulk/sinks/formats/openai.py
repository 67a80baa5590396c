"""Parts as the output of an OpenAI batch: a line for each request, found again by its `custom_id`.

The body is an embeddings object if the model gives vectors, else a list of one object with the outputs by name.
`id` and `request_id` are made of the job and the custom_id, so that another attempt writes the same lines.
Source: the Batch API's request output object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from headrace.bulk.sinks.formats.cells import dumps, json_values
from headrace.bulk.sinks.formats.lines import LinesPart
from headrace.contracts.errors import InvalidRequest

CUSTOM_ID: Final = "custom_id"

#: The column of tokens that a request has, if there is one; else its usage is 0.
TOKENS: Final = "prompt_tokens"


class OpenAIPart(LinesPart):
    """A part in lines of OpenAI's batch output. Its schema has the column `custom_id`."""

    def __init__(self, path: Path, schema: pa.Schema, metadata: Mapping[str, str]) -> None:
        """metadata: of a `PartIdentity`, of which the job and the model are in each line."""
        if CUSTOM_ID not in schema.names:
            raise InvalidRequest(f"an OpenAI batch output needs the column {CUSTOM_ID}; keep it from the input")
        self._model = metadata.get("headrace.model", "")
        self._job = metadata.get("headrace.job", "")
        self._vector = next((field.name for field in schema if _is_vector(field.type)), "")
        super().__init__(path, schema)

    def _lines(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        columns = {name: json_values(batch.column(name)) for name in batch.schema.names}
        ids, tokens = columns.pop(CUSTOM_ID), columns.pop(TOKENS, [0] * batch.num_rows)
        for at, custom_id in enumerate(ids):
            body = self._body({name: values[at] for name, values in columns.items()}, tokens[at] or 0)
            request = request_id(self._job, custom_id)
            response = {"status_code": 200, "request_id": f"req_{request}", "body": body}
            yield dumps({"id": f"batch_req_{request}", "custom_id": custom_id, "response": response, "error": None})

    def _body(self, outputs: dict[str, Any], tokens: int) -> dict[str, Any]:
        if self._vector:
            data = {"object": "embedding", "index": 0, "embedding": outputs[self._vector]}
        else:
            data = {"object": "outputs", "index": 0, "outputs": outputs}
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": [data], "model": self._model, "usage": usage}


def error_line(job: str, custom_id: str | None, code: str, message: str) -> bytes:
    """Return the line of a request that failed, as in OpenAI's error file, with its end."""
    request = request_id(job, custom_id or "")
    error = {"code": code, "message": message}
    return dumps({"id": f"batch_req_{request}", "custom_id": custom_id, "response": None, "error": error}) + b"\n"


def request_id(job: str, custom_id: str) -> str:
    """Return what identifies a request of a job."""
    return hashlib.sha256(f"{job}\n{custom_id}".encode()).hexdigest()[:24]


def _is_vector(kind: pa.DataType) -> bool:
    return hasattr(kind, "value_field") and bool(pa.types.is_floating(kind.value_type))
