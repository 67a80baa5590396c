"""What is refused before anything is sent, and what is sent otherwise."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.contracts import Settings, decode_tensors, encode_tensors
from headrace.contracts.message import Envelope, Request, RequestHeader, decode_inputs, encode_request
from headrace.contracts.package import Manifest
from headrace.contracts.signature import TensorSpec
from headrace.producers import InvalidRequest, PayloadTooLarge, SignatureMismatch, UnknownModel
from headrace.producers.request import MAX_DEADLINE_S, Options, RequestFactory
from headrace.producers.rows import tensor_bodies

INBOX = "headrace:inbox:test"


def add_model(root: Path, name: str = "digits", version: str = "1", datatype: str = "FP32") -> Path:
    """Write the manifest of a model that takes x [rows, 3]; there is no model file, which a client never reads."""
    manifest = Manifest(
        name=name,
        version=version,
        runtime="onnxruntime",
        file="model.onnx",
        sha256="0" * 64,
        inputs=(TensorSpec(name="x", datatype=datatype, shape=(3,), allow_nan=False),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(3,)),),
    )
    path = root / name / version / "model.toml"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.toml.encode(manifest))
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    add_model(tmp_path / "models")
    return tmp_path / "models"


def factory(models: Path, **changes: Any) -> RequestFactory:
    return RequestFactory(Settings(models=models, **changes), INBOX)


def make(made: RequestFactory, way: str, inputs: Any) -> None:
    if way == "one":
        made.one("digits", inputs, Options(), None)
    else:
        made.per_row("digits", inputs, Options())


def document(message: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message)
    return found


def inputs_in(message: bytes) -> dict[str, Any]:
    found = document(message)
    return dict(decode_inputs(base64.b64decode(found["body"]), found["content-type"]))


@pytest.mark.parametrize("priority", [-1, 10, 1.5, "high", None])
def test_a_wrong_priority_is_refused(priority: Any) -> None:
    with pytest.raises(InvalidRequest, match="priority must be 0"):
        Options(priority=priority)


@pytest.mark.parametrize("deadline_s", [0, -1, math.nan, math.inf, MAX_DEADLINE_S * 2])
def test_a_wrong_deadline_is_refused(deadline_s: float) -> None:
    with pytest.raises(InvalidRequest, match="deadline_s must be above 0"):
        Options(deadline_s=deadline_s)


@pytest.mark.parametrize("version", ["../1", "a b", "", "\n"])
@pytest.mark.parametrize("model", ["", "../etc", "a b", "x" * 101, "a\0", 7])
def test_a_bad_model_name_or_version_is_refused(tmp_path: Path, model: Any, version: str) -> None:
    with pytest.raises(InvalidRequest, match=r"model (name|version)"):
        factory(tmp_path).one(model, {"x": np.zeros((1, 3))}, Options(version=version), None)


@pytest.mark.parametrize("request_id", ["", "x" * 256, "a\0b", "\ud800", 7])
def test_a_request_id_that_no_row_can_hold_is_refused(tmp_path: Path, request_id: Any) -> None:
    with pytest.raises(InvalidRequest, match="request_id must"):
        factory(tmp_path).one("digits", {"x": np.zeros((1, 3))}, Options(), request_id)


@pytest.mark.parametrize("request_id", ["x" * 255, 'order "7"\\', "naïve ☃", "\n"])
def test_any_other_string_is_a_request_id(tmp_path: Path, request_id: str) -> None:
    block = factory(tmp_path).one("digits", {"x": np.zeros((1, 3))}, Options(), request_id)
    assert document(block.messages[0])["headers"]["id"] == request_id


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        [1, 2],
        {},
        {1: np.zeros((1, 3))},
        {"x": 5},
        {"x": "text"},
        {"x": np.float32(3)},
        {"x": np.zeros(())},
        {"x": []},
        {"x": np.zeros((0, 3))},
        {"x": [b"bytes"]},
        {"x": [[1.0, math.nan]]},
        {"x": [[None]]},
        {"x": [object]},
        {"x": np.zeros((2, 3)), "y": np.zeros((3, 3))},
        {"x": [1, 2], "y": np.zeros((3, 3))},
        {"x": np.zeros((1, 3), np.complex64)},
        {"x": np.array([[object]])},
    ],
    ids=repr,
)
@pytest.mark.parametrize("way", ["one", "per_row"])
def test_without_a_signature_what_no_model_takes_is_refused(tmp_path: Path, inputs: Any, way: str) -> None:
    with pytest.raises(InvalidRequest):
        make(factory(tmp_path), way, inputs)


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        factory(tmp_path).one("digits", {"x": endless}, Options(), None)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": np.zeros((1, 3), np.float32)}, "input 'x' is missing"),
        ({"x": np.zeros((1, 3))}, "must be FP32"),
        ({"x": np.zeros((1, 4), np.float32)}, r"x FP32 \[rows, 3\]"),
        ({"x": np.full((1, 3), np.nan, np.float32)}, "NaN"),
        ({"x": [["a", "b", "c"]]}, "FP32"),
    ],
)
def test_inputs_that_do_not_fit_the_signature_are_refused(models: Path, inputs: Any, message: str) -> None:
    with pytest.raises(SignatureMismatch, match=message):
        factory(models).one("digits", inputs, Options(), None)
    with pytest.raises(SignatureMismatch, match=message):
        factory(models).per_row("digits", inputs, Options())


def test_a_signature_turns_lists_into_tensors(models: Path) -> None:
    (message,) = factory(models).one("digits", {"x": [[1, 2, 3]]}, Options(), None).messages
    assert inputs_in(message)["x"].dtype == np.float32


def test_without_a_signature_lists_go_as_json(tmp_path: Path) -> None:
    made = factory(tmp_path)
    (message,) = made.one("digits", {"x": [[1, 2], [3, 4]], "t": ["a", "b"]}, Options(), None).messages
    assert document(message)["content-type"] == "application/json"
    assert inputs_in(message) == {"x": [[1, 2], [3, 4]], "t": ["a", "b"]}
    (block,) = made.per_row("digits", {"x": [[1, 2], [3, 4]], "t": np.array([5, 6])}, Options())
    assert [inputs_in(row) for row in block.messages] == [{"x": [[1, 2]], "t": [5]}, {"x": [[3, 4]], "t": [6]}]


def test_an_unknown_model_or_version_is_refused_where_others_are_known(models: Path) -> None:
    with pytest.raises(UnknownModel, match="it holds: digits"):
        factory(models).one("other", {"x": np.zeros((1, 3))}, Options(), None)
    with pytest.raises(UnknownModel, match="no version '7'"):
        factory(models).one("digits", {"x": np.zeros((1, 3))}, Options(version="7"), None)


def test_a_folder_without_models_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "models" / "views").mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").touch()
    assert factory(tmp_path / "models").one("digits", {"x": np.zeros((1, 3))}, Options(), None).messages


@pytest.mark.parametrize("way", ["one", "per_row"])
def test_a_payload_that_is_too_large_is_refused_unencoded(tmp_path: Path, way: str) -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1 << 45), (0, 0))
    with pytest.raises(PayloadTooLarge, match="HEADRACE_MAX_PAYLOAD_BYTES"):
        make(factory(tmp_path, max_payload_bytes=1000), way, {"x": huge})


def test_the_limit_counts_the_encoded_request(tmp_path: Path) -> None:
    inputs = {"x": np.zeros((1, 100), np.float32)}
    size = len(factory(tmp_path).one("digits", inputs, Options(), None).messages[0])
    # The time in the header has a few digits more or less.
    assert factory(tmp_path, max_payload_bytes=size + 20).one("digits", inputs, Options(), None)
    with pytest.raises(PayloadTooLarge, match="bytes encoded"):
        factory(tmp_path, max_payload_bytes=size - 20).one("digits", inputs, Options(), None)


def test_many_rows_may_be_larger_than_the_limit_of_one(tmp_path: Path) -> None:
    made = factory(tmp_path, max_payload_bytes=2000)
    blocks = list(made.per_row("digits", {"x": np.zeros((5000, 3), np.float32)}, Options()))
    assert sum(len(block.messages) for block in blocks) == 5000


def test_one_long_row_among_many_is_refused_before_any_is_sent(tmp_path: Path) -> None:
    texts = np.array(["short"] * 5000 + ["x" * 3000], dtype=object)
    with pytest.raises(PayloadTooLarge):
        factory(tmp_path, max_payload_bytes=2000).per_row("digits", {"x": texts}, Options())


_DTYPES = ["?", "u1", "<i8", ">i4", "<f2", "<f4", ">f8", ml_dtypes.bfloat16]


@given(
    data=st.data(), rows=st.integers(1, 5), names=st.lists(st.text(max_size=40), min_size=1, max_size=17, unique=True)
)
def test_bodies_of_rows_equal_the_encoding_of_each_row(data: st.DataObject, rows: int, names: list[str]) -> None:
    arrays = {}
    for name in names:
        shape = data.draw(st.lists(st.integers(0, 3), max_size=2))
        dtype = data.draw(st.sampled_from(_DTYPES))
        count = rows * math.prod(shape)
        numbers = np.arange(count).astype(np.dtype(dtype)).reshape(rows, *shape)
        arrays[name] = np.asfortranarray(numbers) if data.draw(st.booleans()) else numbers
    start = data.draw(st.integers(0, rows - 1))
    expected = [encode_tensors({k: v[row : row + 1] for k, v in arrays.items()}) for row in range(start, rows)]
    assert list(tensor_bodies(arrays, start, rows)) == expected


@given(texts=hnp.arrays(object, st.integers(1, 5), elements=st.text() | st.binary()))
def test_bodies_of_text_rows_equal_the_encoding_of_each_row(texts: Any) -> None:
    bodies = list(tensor_bodies({"t": texts}, 0, len(texts)))
    assert bodies == [encode_tensors({"t": texts[row : row + 1]}) for row in range(len(texts))]
    assert len(decode_tensors(bodies[0])["t"]) == 1


@given(
    request_id=st.text(st.characters(exclude_categories=["Cs"])),
    body=st.binary(),
    note=st.text(st.characters(exclude_categories=["Cs"])),
    content_type=st.sampled_from(["application/json", "application/x-headrace-tensors"]),
    priority=st.integers(0, 9),
    expires_at=st.none() | st.floats(0, 4e9),
    version=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_the_fast_envelope_equals_the_plain_one(
    request_id: str,
    body: bytes,
    note: str,
    content_type: str,
    priority: int,
    expires_at: float | None,
    version: str,
) -> None:
    request = Request(
        id=request_id,
        model="digits",
        body=body,
        header=RequestHeader(version=version, rows=1, inbox=INBOX, submitted_at=1.5),
        content_type=content_type,
        priority=priority,
        expires_at=expires_at,
        note=note,
        origin=request_id,
    )
    assert Envelope(request).encode(request_id, body) == encode_request(request)
