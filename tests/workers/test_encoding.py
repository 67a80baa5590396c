import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace.contracts import encode_tensors
from headrace.contracts.tensors import tensors_to_json
from headrace.workers import encoding

DTYPES = [np.bool_, np.uint8, np.int16, np.int64, np.uint64, np.float16, np.float32, np.float64]


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], list[int]]:
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=6))
    if draw(st.booleans()):
        counts = [1] * len(counts)
    outputs = {}
    for name in draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(st.integers(0, 3), max_size=3))
        outputs[name] = draw(hnp.arrays(dtype, (sum(counts), *shape)))
    return outputs, counts


@given(batches())
def test_bodies_of_a_batch_equal_encoding_each_request_alone(batch):
    outputs, counts = batch
    alone = [encode_tensors(piece) for piece in encoding.cut(outputs, counts)]
    assert encoding.bodies(outputs, counts) == alone


@given(batches())
def test_texts_of_a_batch_equal_writing_each_request_alone_or_are_refused(batch):
    outputs, counts = batch
    for text, piece in zip(encoding.texts(outputs, counts), encoding.cut(outputs, counts), strict=True):
        exact = all(a.size and (a.dtype.kind != "f" or np.isfinite(a).all()) for a in piece.values())
        assert (text is not None) == exact
        if text is not None:
            assert json.loads(text) == json.loads(tensors_to_json(piece))


@pytest.mark.parametrize("rows", [1, 5])
def test_bfloat16_and_bytes_take_the_general_way(rows):
    outputs = {
        "b": np.arange(rows).astype(ml_dtypes.bfloat16),
        "s": np.array([f"é{i}".encode() for i in range(rows)], dtype=object),
    }
    counts = [1] * rows
    assert encoding.bodies(outputs, counts) == [encode_tensors(p) for p in encoding.cut(outputs, counts)]
    assert [json.loads(t) for t in encoding.texts(outputs, counts)] == [
        {"b": [float(i)], "s": [f"é{i}"]} for i in range(rows)
    ]


def test_one_row_with_nan_does_not_spoil_the_text_of_its_neighbours():
    outputs = {"y": np.array([[1.0], [np.nan], [3.0]], np.float32)}
    assert encoding.texts(outputs, [1, 1, 1]) == [b'{"y":[[1.0]]}', None, b'{"y":[[3.0]]}']
