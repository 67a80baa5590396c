"""Well-formed inputs that fuzzing starts from, and the words of the formats."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any, Final

import msgspec
import numpy as np

from headrace.contracts import encode_tensors
from headrace.contracts.message import (
    JSON_CONTENT_TYPE,
    Reply,
    Request,
    RequestHeader,
    encode_replies,
    encode_request,
    json_body,
)
from headrace.contracts.tensors.datatypes import DTYPES

IDENTITY: Final = "01890a5d-ac96-774b-bcce-b302099a8057"

INBOX: Final = "headrace:inbox:0a1b"

MODEL_TOML: Final = """\
name = "double"
version = "1"
runtime = "onnxruntime"
file = "model.onnx"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
labels = ["cat", "dog"]

[batching]
max_rows = 8
max_wait_ms = 1.5
row_sizes = [1, 4, 8]

[store]
outputs = "json"

[provenance]
made = 2024-05-01T12:00:00Z
a.b.c = { d = [1, 2.5, "x"] }

[[inputs]]
name = "x"
datatype = "FP32"
shape = [4]
allow_nan = false

[[outputs]]
name = "y"
datatype = "FP32"
shape = [-1]
"""


def tensor_bodies() -> list[bytes]:
    """One body of every datatype, and one of several inputs."""
    bodies = [
        encode_tensors({"x": np.array([[b"a", b""], [b"\xff", b"long" * 9]], dtype=object)})
        if name == "BYTES"
        else encode_tensors({"x": np.ones((1, 4)).astype(dtype)})
        for name, dtype in DTYPES.items()
    ]
    bodies.append(encode_tensors({"x": np.ones((2, 3), "f4"), "index": np.arange(2), "é,%": np.zeros((2, 0), "i1")}))
    return bodies


def json_bodies() -> list[bytes]:
    """Bodies as our client and as plain Celery clients write them."""
    call: list[Any] = [[], {"inputs": {"x": [[1, 2.5, True, -3e8]], "t": [["a"], ["b"]]}}, {"callbacks": None}]
    odd = {"x": [[float("nan"), float("inf"), -float("inf"), 4]]}
    bodies = [json_body(inputs) for inputs in ({"x": [[1, 2, 3, 4]]}, {"text": [["ä", "\x00"]]}, odd)]
    return [*bodies, json.dumps(call).encode()]


def headers() -> list[bytes]:
    """`headrace` headers as JSON."""
    full = RequestHeader(
        version="2", rows=3, inbox=INBOX, submitted_at=1.7e9, job_id="j", row_index=7, tenant="t", trace="00-a-b-01"
    )
    return [msgspec.json.encode(full), b"{}", b'{"v": 1}']


def replies() -> list[bytes]:
    """Elements of an inbox."""
    good = Reply(id=IDENTITY, state="succeeded", outputs=tensor_bodies()[0])
    bad = Reply(id="order-1", state="failed", error_type="InferenceFailed", error_message="no")
    return [
        encode_replies([good, bad]),
        encode_replies([]),
        encode_replies([Reply(id="a", state="expired", stored=True)]),
    ]


def envelopes() -> list[bytes]:
    """Messages as our client, Celery (protocols 1 and 2) and Celery with compression write them."""
    ours = Request(
        id=IDENTITY,
        model="double",
        body=encode_tensors({"x": np.ones((1, 4), "f4")}),
        header=RequestHeader(rows=1, inbox=INBOX, submitted_at=1.7e9),
        priority=5,
        expires_at=4e9,
        note="double, 1 row",
    )
    plain = msgspec.structs.replace(ours, body=json_bodies()[0], content_type=JSON_CONTENT_TYPE)
    foreign = json.loads(encode_request(plain))
    del foreign["headers"]["headrace"]
    foreign["headers"]["eta"] = "2001-01-01T00:00:00+00:00"
    squeezed = json.loads(encode_request(plain))
    squeezed["headers"]["compression"] = "application/x-gzip"
    squeezed["body"] = base64.b64encode(zlib.compress(plain.body)).decode()
    first = {"task": "infer.double", "id": IDENTITY, "args": [], "kwargs": {}}
    old = {**foreign, "headers": {}, "body": base64.b64encode(json.dumps(first).encode()).decode()}
    odd = json.loads(encode_request(ours))
    odd["headers"]["argsrepr"] = {"__type__": "decimal", "__value__": "1.5"}
    odd["headers"]["group"] = {"__type__": "uuid", "__value__": {"hex": IDENTITY}}
    odd["headers"]["eta"] = {"__type__": "datetime", "__value__": "2001-01-01T00:00:00"}
    texts = [json.dumps(document).encode() for document in (foreign, squeezed, old, odd)]
    return [encode_request(ours), encode_request(plain), *texts]


#: What mutations put in the place of a value: what each field could hold, and what none should.
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 9, 10, 255, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64 - 1,
    10**400, -1e308, 1.5, 1e400, -1e400, float("nan"), "", "0", "a", "x" * 201, "x" * 300, "\x00", "\ud800",
    "é", "\u202e\n",
    "infer.double", "infer.", "double", "latest", "../../etc/passwd", "model.onnx", "/dev/zero",
    "'; DROP TABLE predictions; --",    IDENTITY, IDENTITY.upper(), INBOX, "headrace:inbox:",
    "headrace:leases", "base64", "utf-8", "utf-16", "binary",
    "application/json", "application/x-python-serialize", "application/x-yaml", "application/x-headrace-tensors",
    "application/data", "application/x-gzip", "application/x-bz2", "application/x-lzma", "gzip", "zstd",
    "2001-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59",
    "tomorrow",
    "FP32", "INT64", "BYTES", "BOOL", "BF16", "FP128", "succeeded", "failed", "expired", "cancelled",
    [], {}, [[]], [1, 2], [[1, 2, 3, 4]], [["a"]], [1, [2]], [None], {"x": []}, {"inputs": {}}, b"", b"\x00" * 16,
    {"__type__": "decimal", "__value__": "x"}, {"__type__": "uuid", "__value__": {"hex": 5}},
    {"__type__": "bytes", "__value__": "x"}, {"__type__": "base64", "__value__": 1},
    {"__type__": "date", "__value__": "2001-13-01"}, {"__type__": "nonsense", "__value__": 1},
)  # fmt: skip

#: Names of fields; a mutation adds one where it was not.
NAMES: Final = (
    "body", "headers", "properties", "content-type", "content-encoding", "task", "id", "eta", "expires", "retries",
    "timelimit", "root_id", "parent_id", "group", "argsrepr", "kwargsrepr", "origin", "shadow",
    "ignore_result", "lang",
    "headrace", "headrace_oversize", "compression", "redelivered", "stamps", "replaced_task_nesting",
    "correlation_id",
    "reply_to", "delivery_info", "delivery_tag", "priority", "body_encoding", "exchange", "routing_key", "deliveries",
    "v",     "version", "rows", "inbox", "submitted_at", "job_id", "row_index", "tenant", "trace", "inputs",
    "callbacks",
    "chain",     "name", "runtime", "file", "sha256", "outputs", "datatype", "shape", "allow_nan", "labels",
    "batching", "max_rows",
    "max_wait_ms", "row_sizes", "seconds_fixed", "store", "provenance", "x", "__type__", "__value__",
)  # fmt: skip
