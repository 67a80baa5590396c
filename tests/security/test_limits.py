"""Messages cost no more than their size allows: nesting and announced sizes are bounded."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from headrace.contracts import InvalidRequest, decode_tensors, encode_tensors
from headrace.contracts.message import JSON_CONTENT_TYPE, decode_header, decode_inputs, decode_replies
from headrace.queueing.channel.envelope import NotAnEnvelope, read_envelope


@pytest.mark.parametrize("depth", [100, 1_000, 100_000, 5_000_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"x":', b"}")], ids=["lists", "objects"])
def test_deep_nesting_ends_in_an_error_of_ours_and_in_no_crash(depth: int, opening: bytes, closing: bytes) -> None:
    nest = opening * depth + b"1" + closing * depth
    for read in (
        lambda: decode_inputs(b'[[],{"inputs":{"x":' + nest + b"}},{}]", JSON_CONTENT_TYPE),
        lambda: decode_header(read_envelope(b'{"properties":{"h":' + nest + b"}}").properties["h"]),
        lambda: read_envelope(nest),
        lambda: read_envelope(b'{"__type__":1,"properties":{"h":' + nest + b"}}"),
    ):
        try:
            read()
        except (InvalidRequest, NotAnEnvelope):
            continue
        assert depth <= 1_000


@pytest.mark.parametrize("depth", [100, 1_000, 100_000, 5_000_000])
def test_deep_msgpack_ends_in_an_error_of_ours(depth: int) -> None:
    for read in (decode_tensors, decode_replies):
        with pytest.raises(InvalidRequest):
            read(b"\x91" * depth + b"\x01")
        with pytest.raises(InvalidRequest):
            read(b"\x81\xa1x" * depth + b"\x01")


@pytest.mark.parametrize(
    "body",
    [
        b"\x81\xa1x\x93\xa5BYTES\x91\xce\xff\xff\xff\xff\xc4\x00",
        b"\x81\xa1x\x93\xa4FP32\x92\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xc4\x00",
        b"\x81\xa1x\x93\xa4FP32\x91\xce\xff\xff\xff\xff\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1x\x93\xa4FP32\xdd\xff\xff\xff\xff",
    ],
    ids=["elements", "shape", "bytes", "inputs", "dimensions"],
)
def test_what_a_body_announces_is_believed_only_as_far_as_it_is_there(body: bytes) -> None:
    for read in (decode_tensors, decode_replies):
        with pytest.raises(InvalidRequest):
            read(body)


#: What JSON makes most of: per element, and nested as deeply as is read.
GREEDY = {
    "lists": b"[],",
    "objects": b"{},",
    "numbers": b"-9,",
    "keys": b'{"":1},',
    "nested lists": b"[" * 900 + b"]" * 900 + b",",
    "nested objects": b'{"":' * 900 + b"1" + b"}" * 900 + b",",
}

#: What docs/security.md tells to plan a worker's memory by.
MOST_GROWTH = 50


@pytest.mark.parametrize("unit", GREEDY.values(), ids=GREEDY)
def test_json_grows_no_more_than_the_page_says(unit: bytes) -> None:
    body = b'[[],{"inputs":{"x":[' + (unit * (1_000_000 // len(unit)))[:-1] + b"]}},{}]"
    tracemalloc.start()
    try:
        inputs = decode_inputs(body, JSON_CONTENT_TYPE)
        grown = tracemalloc.get_traced_memory()[1] / len(body)
    finally:
        tracemalloc.stop()
    assert inputs.keys() == {"x"}
    assert grown < MOST_GROWTH
    page = Path(__file__).parents[2] / "docs" / "security.md"
    assert f"{MOST_GROWTH} \N{MULTIPLICATION SIGN} `HEADRACE_MAX_PAYLOAD_BYTES`" in page.read_text()


def test_tensors_take_no_more_memory_than_they_announce() -> None:
    body = encode_tensors({"x": np.full((1, 100_000), b"", dtype=object)})
    assert decode_tensors(body)["x"].nbytes <= 2 * len(body)
