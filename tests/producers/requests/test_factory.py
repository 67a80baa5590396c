"""Checks before anything is sent, and the messages that are sent."""

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
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.signature import TensorSpec
from headrace.producers import InvalidRequest, PayloadTooLarge, SignatureMismatch, UnknownModel
from headrace.producers.requests.factory import MAX_DEADLINE_S, RequestFactory, SubmitOptions
from headrace.producers.requests.row_bodies import tensor_bodies

INBOX = "headrace:inbox:test"


X = TensorSpec(name="x", datatype="FP32", shape=(3,), allow_nan=False)


def add_model(
    root: Path, name: str = "digits", version: str = "1", datatype: str = "FP32", inputs: tuple[TensorSpec, ...] = (X,)
) -> Path:
    """Write the manifest of a model that takes x [rows, 3]; there is no model file, which a client never reads."""
    if inputs == (X,):
        inputs = (msgspec.structs.replace(X, datatype=datatype),)
    manifest = Manifest(
        name=name,
        version=version,
        runtime="onnxruntime",
        file="model.onnx",
        sha256="0" * 64,
        inputs=inputs,
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
        made.one("digits", inputs, SubmitOptions(), None)
    else:
        made.per_row("digits", inputs, SubmitOptions())


def document(message: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message)
    return found


def inputs_in(message: bytes) -> dict[str, Any]:
    found = document(message)
    return dict(decode_inputs(base64.b64decode(found["body"]), found["content-type"]))


@pytest.mark.parametrize("priority", [-1, 10, 1.5, "high", None])
def test_a_wrong_priority_is_refused(priority: Any) -> None:
    with pytest.raises(InvalidRequest, match="priority must be 0"):
        SubmitOptions(priority=priority)


@pytest.mark.parametrize("deadline_s", [0, -1, math.nan, math.inf, MAX_DEADLINE_S * 2])
def test_a_wrong_deadline_is_refused(deadline_s: float) -> None:
    with pytest.raises(InvalidRequest, match="deadline_s must be above 0"):
        SubmitOptions(deadline_s=deadline_s)


@pytest.mark.parametrize("version", ["../1", "a b", "", "\n"])
@pytest.mark.parametrize("model", ["", "../etc", "a b", "x" * 101, "a\0", 7])
def test_a_bad_model_name_or_version_is_refused(tmp_path: Path, model: Any, version: str) -> None:
    with pytest.raises(InvalidRequest, match=r"model (name|version)"):
        factory(tmp_path).one(model, {"x": np.zeros((1, 3))}, SubmitOptions(version=version), None)


@pytest.mark.parametrize("request_id", ["", "x" * 256, "a\0b", "\ud800", 7])
def test_a_request_id_that_no_row_can_hold_is_refused(tmp_path: Path, request_id: Any) -> None:
    with pytest.raises(InvalidRequest, match="request_id must"):
        factory(tmp_path).one("digits", {"x": np.zeros((1, 3))}, SubmitOptions(), request_id)


@pytest.mark.parametrize("request_id", ["x" * 255, 'order "7"\\', "naïve ☃", "\n"])
def test_any_other_string_is_a_request_id(tmp_path: Path, request_id: str) -> None:
    block = factory(tmp_path).one("digits", {"x": np.zeros((1, 3))}, SubmitOptions(), request_id)
    assert document(block.messages[0])["headers"]["id"] == request_id


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        [1, 2],
        {},
        {1: np.zeros((1, 3))},
        {"x": None},
        {"x": object},
        {"x": b"bytes"},
        {"x": []},
        {"x": np.zeros((0, 3))},
        {"x": [], "y": np.zeros((0, 3))},
        {"x": [b"bytes"]},
        {"x": [[None]]},
        {"x": [[math.nan, None]]},
        {"x": [object]},
        {"x": np.zeros((1, 3), np.complex64)},
        {"x": np.array([[object]])},
    ],
    ids=repr,
)
@pytest.mark.parametrize("way", ["one", "per_row"])
def test_without_a_signature_what_no_model_takes_is_refused(tmp_path: Path, inputs: Any, way: str) -> None:
    with pytest.raises(InvalidRequest):
        make(factory(tmp_path), way, inputs)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": 5},
        {"x": "text"},
        {"x": np.float32(3)},
        {"x": np.zeros(())},
        {"x": [[1.0, math.nan, math.inf]]},
        {"x": np.ones((2, 3)), "y": np.ones((3, 3))},
        {"x": [1, 2], "y": np.ones((3, 3))},
        {"x": np.ones((2, 3)), "state": np.ones((2, 2, 8)), "rate": np.array(16000)},
        {"x": np.ones((2, 3)), "rate": 16000},
        {"x": np.ones((2, 3)), "prompt": np.zeros((0, 4))},
    ],
    ids=repr,
)
def test_without_a_signature_what_only_the_model_can_judge_is_sent(tmp_path: Path, inputs: Any) -> None:
    (message,) = factory(tmp_path).one("digits", inputs, SubmitOptions(), None).messages
    sent = inputs_in(message)
    assert list(sent) == list(inputs)
    for name, value in inputs.items():
        assert repr(np.asarray(sent[name]).tolist()) == repr(np.asarray(value).tolist())


def test_rows_that_nobody_can_count_here_are_left_to_the_worker(tmp_path: Path) -> None:
    made = factory(tmp_path)
    for inputs, rows, note in (
        ({"x": np.ones((2, 3)), "rate": np.array(1)}, 2, "digits, 2 rows"),
        ({"x": np.ones((1, 3))}, 1, "digits, 1 row"),
        ({"x": np.ones((2, 3)), "state": np.ones((4, 2))}, 0, "digits"),
        ({"x": 5}, 0, "digits"),
    ):
        headers = document(made.one("digits", inputs, SubmitOptions(), None).messages[0])["headers"]
        assert (headers["headrace"].get("rows", 0), headers["argsrepr"]) == (rows, note)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": np.zeros((2, 3)), "y": np.zeros((3, 3))}, "x 2, y 3"),
        ({"x": [1, 2], "y": np.zeros((3, 3))}, "x 2, y 3"),
        ({"x": 5}, "none has any"),
        ({"x": np.float32(5), "y": "text"}, "none has any"),
    ],
)
def test_without_a_signature_rows_can_only_be_cut_along_equal_first_dimensions(
    tmp_path: Path, inputs: Any, words: str
) -> None:
    with pytest.raises(SignatureMismatch, match=f"{words}; use submit .* HEADRACE_MODELS"):
        factory(tmp_path).per_row("digits", inputs, SubmitOptions())


@pytest.mark.parametrize("rate", [np.array(16000), np.int64(16000), 16000])
def test_without_a_signature_a_scalar_goes_with_every_row(tmp_path: Path, rate: Any) -> None:
    (block,) = factory(tmp_path).per_row("digits", {"x": np.arange(6.0).reshape(2, 3), "rate": rate}, SubmitOptions())
    sent = [{name: np.asarray(value).tolist() for name, value in inputs_in(row).items()} for row in block.messages]
    assert sent == [{"x": [[0.0, 1.0, 2.0]], "rate": 16000}, {"x": [[3.0, 4.0, 5.0]], "rate": 16000}]


RECURRENT = (
    TensorSpec(name="x", datatype="FP32", shape=(3,)),
    TensorSpec(name="state", datatype="FP32", shape=(2, 4), rows_at=1),
    TensorSpec(name="text", datatype="BYTES", optional=True),
    TensorSpec(name="rate", datatype="INT64", shape=(), per_request=True),
    TensorSpec(name="scale", datatype="FP32", shape=(2,), per_request=True),
)


@pytest.mark.parametrize("with_text", [False, True])
def test_with_a_signature_rows_are_cut_where_each_input_holds_them(tmp_path: Path, with_text: bool) -> None:
    add_model(tmp_path, inputs=RECURRENT)
    arrays: dict[str, Any] = {
        "x": np.arange(15, dtype=np.float32).reshape(5, 3),
        "state": np.arange(40, dtype=np.float32).reshape(2, 5, 4),
        "rate": np.array(16000),
        "scale": np.array([1, 2], np.float32),
    }
    if with_text:
        arrays["text"] = np.array([f"row {row}".encode() for row in range(5)], dtype=object)
    (block,) = factory(tmp_path).per_row("digits", arrays, SubmitOptions())
    assert len(block.messages) == 5
    for row, message in enumerate(block.messages):
        cut = {name: arrays[name] for name in arrays}
        cut["x"], cut["state"] = arrays["x"][row : row + 1], arrays["state"][:, row : row + 1]
        if with_text:
            cut["text"] = arrays["text"][row : row + 1]
        expected = encode_tensors({spec.name: cut[spec.name] for spec in RECURRENT if spec.name in cut})
        assert base64.b64decode(document(message)["body"]) == expected
    (message,) = factory(tmp_path).one("digits", arrays, SubmitOptions(), None).messages
    assert document(message)["headers"]["headrace"]["rows"] == 5


def test_a_model_without_rows_gets_one_request(tmp_path: Path) -> None:
    add_model(tmp_path, inputs=(TensorSpec(name="x", datatype="FP32", shape=(3,), per_request=True),))
    (block,) = factory(tmp_path).per_row("digits", {"x": np.ones(3, np.float32)}, SubmitOptions())
    (message,) = block.messages
    assert inputs_in(message)["x"].shape == (3,)


def test_what_every_request_holds_counts_in_each_of_them(tmp_path: Path) -> None:
    add_model(tmp_path, inputs=(RECURRENT[0], TensorSpec(name="w", datatype="FP32", shape=(-1,), per_request=True)))
    inputs = {"x": np.ones((1000, 3), np.float32), "w": np.ones(10_000, np.float32)}
    with pytest.raises(PayloadTooLarge):
        factory(tmp_path, max_payload_bytes=20_000).per_row("digits", inputs, SubmitOptions())
    assert list(factory(tmp_path, max_payload_bytes=80_000).per_row("digits", inputs, SubmitOptions()))


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        factory(tmp_path).one("digits", {"x": endless}, SubmitOptions(), None)


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
        factory(models).one("digits", inputs, SubmitOptions(), None)
    with pytest.raises(SignatureMismatch, match=message):
        factory(models).per_row("digits", inputs, SubmitOptions())


def test_a_signature_turns_lists_into_tensors(models: Path) -> None:
    (message,) = factory(models).one("digits", {"x": [[1, 2, 3]]}, SubmitOptions(), None).messages
    assert inputs_in(message)["x"].dtype == np.float32


def test_without_a_signature_lists_go_as_json(tmp_path: Path) -> None:
    made = factory(tmp_path)
    (message,) = made.one("digits", {"x": [[1, 2], [3, 4]], "t": ["a", "b"]}, SubmitOptions(), None).messages
    assert document(message)["content-type"] == "application/json"
    assert inputs_in(message) == {"x": [[1, 2], [3, 4]], "t": ["a", "b"]}
    (block,) = made.per_row("digits", {"x": [[1, 2], [3, 4]], "t": np.array([5, 6])}, SubmitOptions())
    assert [inputs_in(row) for row in block.messages] == [{"x": [[1, 2]], "t": [5]}, {"x": [[3, 4]], "t": [6]}]


def test_an_unknown_model_or_version_is_refused_where_others_are_known(models: Path) -> None:
    with pytest.raises(UnknownModel, match="it holds: digits"):
        factory(models).one("other", {"x": np.zeros((1, 3))}, SubmitOptions(), None)
    with pytest.raises(UnknownModel, match="no version '7'"):
        factory(models).one("digits", {"x": np.zeros((1, 3))}, SubmitOptions(version="7"), None)


def test_a_folder_without_models_knows_nothing(tmp_path: Path) -> None:
    (tmp_path / "models" / "views").mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").touch()
    assert factory(tmp_path / "models").one("digits", {"x": np.zeros((1, 3))}, SubmitOptions(), None).messages


@pytest.mark.parametrize("way", ["one", "per_row"])
def test_a_payload_that_is_too_large_is_refused_unencoded(tmp_path: Path, way: str) -> None:
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1 << 45), (0, 0))
    with pytest.raises(PayloadTooLarge, match="HEADRACE_MAX_PAYLOAD_BYTES"):
        make(factory(tmp_path, max_payload_bytes=1000), way, {"x": huge})


def test_the_limit_counts_the_encoded_request(tmp_path: Path) -> None:
    inputs = {"x": np.zeros((1, 100), np.float32)}
    size = len(factory(tmp_path).one("digits", inputs, SubmitOptions(), None).messages[0])
    # The time in the header has a few digits more or less.
    assert factory(tmp_path, max_payload_bytes=size + 20).one("digits", inputs, SubmitOptions(), None)
    with pytest.raises(PayloadTooLarge, match="bytes encoded"):
        factory(tmp_path, max_payload_bytes=size - 20).one("digits", inputs, SubmitOptions(), None)


def test_many_rows_may_be_larger_than_the_limit_of_one(tmp_path: Path) -> None:
    made = factory(tmp_path, max_payload_bytes=2000)
    blocks = list(made.per_row("digits", {"x": np.zeros((5000, 3), np.float32)}, SubmitOptions()))
    assert sum(len(block.messages) for block in blocks) == 5000


def test_one_long_row_among_many_is_refused_before_any_is_sent(tmp_path: Path) -> None:
    texts = np.array(["short"] * 5000 + ["x" * 3000], dtype=object)
    with pytest.raises(PayloadTooLarge):
        factory(tmp_path, max_payload_bytes=2000).per_row("digits", {"x": texts}, SubmitOptions())


_DTYPES = ["?", "u1", "<i8", ">i4", "<f2", "<f4", ">f8", ml_dtypes.bfloat16]


@given(
    data=st.data(), rows=st.integers(1, 5), names=st.lists(st.text(max_size=40), min_size=1, max_size=17, unique=True)
)
def test_bodies_of_rows_equal_the_encoding_of_each_row(data: st.DataObject, rows: int, names: list[str]) -> None:
    arrays, axes = {}, {}
    for name in names:
        shape = data.draw(st.lists(st.integers(0, 3), max_size=2))
        axes[name] = axis = data.draw(st.none() | st.integers(0, len(shape)))
        if axis is not None:
            shape.insert(axis, rows)
        dtype = data.draw(st.sampled_from(_DTYPES))
        numbers = np.arange(math.prod(shape)).astype(np.dtype(dtype)).reshape(shape)
        arrays[name] = np.asfortranarray(numbers) if data.draw(st.booleans()) else numbers
    start = data.draw(st.integers(0, rows - 1))
    cuts = [
        {k: v if axes[k] is None else np.take(v, [row], axis=axes[k]) for k, v in arrays.items()}
        for row in range(start, rows)
    ]
    assert list(tensor_bodies(arrays, axes, start, rows)) == [encode_tensors(cut) for cut in cuts]


@given(texts=hnp.arrays(object, st.integers(1, 5), elements=st.text() | st.binary()))
def test_bodies_of_text_rows_equal_the_encoding_of_each_row(texts: Any) -> None:
    bodies = list(tensor_bodies({"t": texts}, {"t": 0}, 0, len(texts)))
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
