"""ONNX files written from the text form of their graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import parser

HEAD = '<ir_version: 10, opset_import: ["" : 20, "ai.onnx.ml" : 3]>\n'


def write(path: Path, graph: str) -> Path:
    """Write a graph such as `g (float[n,4] x) => (float[n,4] y) { y = Relu(x) }`."""
    path.write_bytes(parser.parse_model(HEAD + graph).SerializeToString())
    onnx.checker.check_model(path)
    return path
