"""What is fuzzed: each target takes any bytes, and raises only when headrace breaks a promise.

The promises: malformed input ends in the error that the reader documents and in no other, what was accepted can be
written and read again unchanged, and nothing read is larger than its bytes allow.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import orjson
from tests.fuzz import seeds
from tests.fuzz.worker import FuzzedWorker

from headrace.contracts import HeadraceError, InvalidRequest, PackageError, Signature, Tensors, TensorSpec, read_package
from headrace.contracts.message import (
    JSON_CONTENT_TYPE,
    Request,
    RequestHeader,
    decode_header,
    decode_inputs,
    decode_replies,
    encode_replies,
    encode_request,
)
from headrace.contracts.message import Envelope as EnvelopeWriter
from headrace.contracts.tensors.codec import (
    CONTENT_TYPE,
    can_be_json,
    datatypes_line,
    decode_tensors,
    encode_tensors,
    tensors_from_json,
    tensors_to_json,
)
from headrace.producers.replies.outcome import outputs_of
from headrace.queueing.channel.envelope import Envelope, NotAnEnvelope, read_envelope, read_tail

#: Elements of a BYTES tensor are Python objects: 4 bytes on the wire may be 8 in the array and 40 beside it.
MOST_BYTES_A_BYTE: Final = 16

SIGNATURES: Final = (
    Signature(
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(4,), allow_nan=False),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(4,)),),
    ),
    Signature(
        inputs=(TensorSpec(name="x", datatype="BF16", shape=(-1,)), TensorSpec(name="t", datatype="BYTES", shape=(1,))),
        outputs=(TensorSpec(name="y", datatype="FP32"),),
    ),
    Signature(inputs=(TensorSpec(name="x", datatype="UINT64", shape=(4,)),), outputs=()),
    Signature(inputs=(TensorSpec(name="text", datatype="BYTES", shape=(2,)),), outputs=()),
)


class Broken(AssertionError):
    """headrace broke a promise."""


class Target(NamedTuple):
    """run: takes any bytes. form: what its trees are. seeds: well-formed inputs. share: of all inputs, in parts."""

    run: Callable[[bytes], object]
    form: str
    seeds: Sequence[bytes]
    share: int


def check(holds: bool, promise: str) -> None:
    """Raise Broken unless a promise holds."""
    if not holds:
        raise Broken(promise)


def fuzz_envelope(raw: bytes) -> None:
    """Read a message of a queue, whole and from its last bytes."""
    for read in (read_envelope, read_tail):
        try:
            envelope = read(raw)
        except NotAnEnvelope as exc:
            check("\n" not in str(exc), "the cause is one line")
            continue
        try:
            written = msgspec.json.encode(envelope)
        except (UnicodeEncodeError, RecursionError):
            continue  # lone surrogates, which Python's JSON takes; nests as deep as a reader's stack
        check(_readable_again(envelope, read_envelope(written)), "an envelope survives writing")


def _readable_again(first: Envelope, second: Envelope) -> bool:
    # Numbers that JSON has not (NaN, 1e999) and kombu's typed values come back as what msgspec writes for them.
    return (first.body, first.content_type) == (second.body, second.content_type)


def fuzz_tensors(body: bytes) -> None:
    """Read tensors, write them again, and take them through the store's JSON."""
    try:
        tensors = decode_tensors(body)
    except InvalidRequest:
        return
    size = sum(array.nbytes for array in tensors.values())
    check(size <= MOST_BYTES_A_BYTE * len(body), "arrays are no larger than their bytes allow")
    check(_same(tensors, decode_tensors(encode_tensors(tensors))), "tensors survive writing")
    if can_be_json(tensors):
        try:
            text = tensors_to_json(tensors)
        except orjson.JSONEncodeError as exc:
            raise Broken("can_be_json said that JSON can hold it") from exc
        _check_stored(tensors, text)
    _fit(tensors)


def _check_stored(tensors: Tensors, text: bytes) -> None:
    again = tensors_from_json(orjson.loads(text), datatypes_line(tensors))
    check(_same(tensors, again), "tensors survive the store's JSON")


def _same(first: Tensors, second: Tensors) -> bool:
    return first.keys() == second.keys() and all(
        (array.dtype, array.shape) == (second[name].dtype, second[name].shape)
        and (array.tolist() == second[name].tolist() if array.dtype.kind == "O" else _same_bytes(array, second[name]))
        for name, array in first.items()
    )


def _same_bytes(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    return first.tobytes() == second.tobytes()


def _fit(inputs: Any) -> None:
    """Check inputs against models; what fits has rows, and all inputs the same number."""
    for signature in SIGNATURES:
        try:
            arrays = signature.check_inputs(inputs)
        except InvalidRequest:
            continue
        rows = {array.shape[0] for array in arrays.values()}
        check(len(rows) == 1 and min(rows) > 0, "what fits has rows, and all inputs as many")


def fuzz_body(data: bytes) -> None:
    """Read the inputs out of a body; the first byte chooses its content type."""
    kinds = (JSON_CONTENT_TYPE, CONTENT_TYPE, "application/x-python-serialize", None)
    kind = JSON_CONTENT_TYPE if data[:1] in (b"[", b"{") else kinds[data[0] % len(kinds)] if data else None
    try:
        inputs = decode_inputs(data, kind)
    except InvalidRequest:
        return
    check(kind in (JSON_CONTENT_TYPE, CONTENT_TYPE), "no other content type is read")
    _fit(inputs)


def fuzz_header(text: bytes) -> None:
    """Read a `headrace` header out of whatever JSON holds."""
    try:
        header = decode_header(json.loads(text))
    except InvalidRequest:
        return
    except (ValueError, RecursionError):
        return  # no JSON
    written = msgspec.json.encode(header)  # fails on lone surrogates, which no field may hold
    check(decode_header(msgspec.json.decode(written)) == header, "a header survives writing")
    check(b"\\u0000" not in written, "Postgres text holds no NUL")
    check(header.inbox == "" or header.inbox.startswith("headrace:inbox:"), "replies go to inboxes only")
    check(math.isfinite(header.submitted_at), "a time is finite")


def fuzz_replies(raw: bytes) -> None:
    """Read an element of an inbox, and make of its replies what a client gets."""
    try:
        replies = decode_replies(raw)
    except InvalidRequest:
        return
    check(decode_replies(encode_replies(replies)) == replies, "replies survive writing")
    for reply in replies:
        try:
            outputs_of(reply, lambda _request_id: None)
        except HeadraceError as exc:
            check(exc.message.isprintable(), "an error is one printable line")


def fuzz_manifest(text: bytes) -> None:
    """Read a model package."""
    folder = _package_folder()
    (folder / "model.toml").write_bytes(text)
    try:
        package = read_package(folder)
    except PackageError as exc:
        check(exc.message.isprintable(), "an error is one printable line")
        return
    root = folder.resolve()
    check(package.file.resolve().is_relative_to(root), "a package stays in its folder")
    check("/" not in package.name and ".." not in package.name, "a name is the name of a folder")
    try:
        package.verify()
    except PackageError:
        return
    raise Broken("a file that is not there has no checksum")


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _package_folder() -> Path:
    if not _folders:
        _folders.append(tempfile.TemporaryDirectory(prefix="headrace-fuzz-"))
    return Path(_folders[0].name)


def fuzz_request(data: bytes) -> None:
    """Write a request made of arbitrary values with our own encoder; a worker reads the same."""
    cut = len(data) // 3
    name, note, body = (
        piece.decode("utf-8", "replace") for piece in (data[:cut], data[cut : 2 * cut], data[2 * cut :])
    )
    request = Request(
        id=name or "id",
        model="double",
        body=body.encode(),
        header=RequestHeader(rows=len(data), inbox=seeds.INBOX, trace=note[:200].replace("\0", "")),
        content_type=JSON_CONTENT_TYPE if data[:1] < b"\x80" else CONTENT_TYPE,
        priority=len(data) % 10,
        expires_at=float(len(data)),
        note=note,
    )
    raw = encode_request(request)
    check(EnvelopeWriter(request).encode(request.id, request.body) == raw, "both encoders write the same")
    envelope = read_envelope(raw)
    assert envelope.headers is not None
    check(decode_header(envelope.headers["headrace"]) == request.header, "a header arrives as it was sent")
    check(envelope.headers["id"] == request.id, "an id arrives as it was sent")


def fuzz_worker(raw: bytes) -> None:
    """Take a message from the queue to the engine, through kombu's and Celery's own dispatch."""
    _worker().deliver(raw)


_workers: list[FuzzedWorker] = []


def _worker() -> FuzzedWorker:
    if not _workers:
        _workers.append(FuzzedWorker(SIGNATURES[0]))
    return _workers[0]


TARGETS: Final[dict[str, Target]] = {
    "envelope": Target(fuzz_envelope, "json", seeds.envelopes(), 2),
    "worker": Target(fuzz_worker, "json", seeds.envelopes(), 3),
    "tensors": Target(fuzz_tensors, "msgpack", seeds.tensor_bodies(), 4),
    "body": Target(fuzz_body, "json", [*seeds.json_bodies(), *seeds.tensor_bodies()], 3),
    "header": Target(fuzz_header, "json", seeds.headers(), 3),
    "replies": Target(fuzz_replies, "msgpack", seeds.replies(), 2),
    "manifest": Target(fuzz_manifest, "toml", [seeds.MODEL_TOML.encode()], 2),
    "request": Target(fuzz_request, "json", [b"order-1|note|body", *seeds.headers()], 1),
}
