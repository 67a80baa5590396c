import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.workers.example_request import made_request

from headrace.contracts import TensorSpec, decode_tensors, encode_tensors
from headrace.contracts.tensors.codec import tensors_to_json
from headrace.contracts.tensors.rows import RowAxes
from headrace.workers.outbox import row_encoding
from headrace.workers.request import Run

#: Outputs of a batch, and the rows of each request.
Batch = tuple[dict[str, np.ndarray], list[int]]

#: What a name may consist of.
NAMES = st.characters(categories=("L", "N", "P", "S"))

DTYPES = [np.bool_, np.uint8, np.int16, np.int64, np.uint64, np.float16, np.float32, np.float64]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    if draw(st.booleans()):
        counts = [1] * len(counts)
    outputs = {}
    for name in draw(st.lists(st.text(NAMES, min_size=1, max_size=5), min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        outputs[name] = draw(hnp.arrays(dtype, (sum(counts), *shape)))
    return outputs, counts


def run_of(outputs: dict[str, np.ndarray], counts: list[int], *axes: int | None) -> Run:
    """A run of requests that have `counts` rows; axes: of the outputs, the first dimension if not given."""
    specs = [
        TensorSpec(name=name, datatype="FP32", shape=(-1,) * 4, rows_at=axis or 0, per_request=axis is None)
        for name, axis in zip(outputs, axes or (0,) * len(outputs), strict=True)
    ]
    return Run(requests=[made_request({}, rows) for rows in counts], outputs=outputs, axes=RowAxes(specs))


@given(batches())
def test_bodies_of_a_batch_equal_encoding_each_request_alone(batch: Batch) -> None:
    run = run_of(*batch)
    assert row_encoding.bodies(run) == [encode_tensors(piece) for piece in run.pieces()]


@given(batches())
def test_texts_of_a_batch_equal_writing_each_request_alone_or_are_refused(batch: Batch) -> None:
    run = run_of(*batch)
    for text, piece in zip(row_encoding.texts(run), run.pieces(), strict=True):
        exact = all(a.size and (a.dtype.kind != "f" or np.isfinite(a).all()) for a in piece.values())
        assert (text is not None) == exact
        if text is not None:
            assert json.loads(text) == json.loads(tensors_to_json(piece))


@pytest.mark.parametrize("rows", [1, 5])
def test_bfloat16_and_bytes_take_the_general_way(rows: int) -> None:
    outputs = {
        "b": np.arange(rows).astype(ml_dtypes.bfloat16),
        "s": np.array([f"é{i}".encode() for i in range(rows)], dtype=object),
    }
    run = run_of(outputs, [1] * rows)
    assert row_encoding.bodies(run) == [encode_tensors(piece) for piece in run.pieces()]
    assert [json.loads(text or b"null") for text in row_encoding.texts(run)] == [
        {"b": [float(i)], "s": [f"é{i}"]} for i in range(rows)
    ]


def test_one_row_with_nan_does_not_spoil_the_text_of_its_neighbours() -> None:
    outputs = {"y": np.array([[1.0], [np.nan], [3.0]], np.float32)}
    assert row_encoding.texts(run_of(outputs, [1, 1, 1])) == [b'{"y":[[1.0]]}', None, b'{"y":[[3.0]]}']


def test_rows_at_another_axis_and_outputs_of_the_whole_request_are_encoded_for_each_request() -> None:
    outputs: dict[str, np.ndarray] = {"h": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "k": np.array(7, np.int64)}
    run = run_of(outputs, [1, 1, 1], 1, None)
    decoded = [decode_tensors(body) for body in row_encoding.bodies(run)]
    assert [piece["h"].tolist() for piece in decoded] == [
        [[[0, 1]], [[6, 7]]],
        [[[2, 3]], [[8, 9]]],
        [[[4, 5]], [[10, 11]]],
    ]
    assert [json.loads(text or b"null")["k"] for text in row_encoding.texts(run)] == [7, 7, 7]
    assert [piece["k"].shape for piece in decoded] == [(), (), ()]
