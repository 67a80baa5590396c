"""Sessions are opened from files, bytes and messages, and every failure is of one class with its cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from headrace.runtimes.local.onnx_support.session import SessionConfig, SessionFailed, open_session

MODEL = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[n] x) => (float[n] y) { z = Identity (x) y = Add (z, z) }'
)


def test_a_model_is_loaded_from_its_file_its_bytes_or_its_message(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(MODEL.SerializeToString())
    for model in (file, str(file), file.read_bytes(), MODEL):
        (found,) = open_session(model, SessionConfig(threads=1)).run(None, {"x": np.ones(2, np.float32)})
        np.testing.assert_array_equal(found, [2, 2])


def test_the_optimized_graph_is_saved(tmp_path: Path) -> None:
    saved = tmp_path / "optimized.onnx"
    open_session(MODEL, SessionConfig(optimization="basic", optimized_file=saved))
    assert [node.op_type for node in onnx.load(saved).graph.node] == ["Add"]
    open_session(MODEL, SessionConfig(optimization="none", optimized_file=saved))
    assert [node.op_type for node in onnx.load(saved).graph.node] == ["Identity", "Add"]


@pytest.mark.parametrize("model", [b"no model", Path("nowhere.onnx")])
def test_a_failure_has_its_cause(model: bytes | Path) -> None:
    with pytest.raises(SessionFailed) as caught:
        open_session(model)
    assert caught.value.cause is caught.value.__cause__
    assert str(caught.value.cause) in str(caught.value)
