"""Packages of small models, written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import parser

from headrace.contracts import TensorSpec
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'

#: Fails on rows that ask for an entry that the table of ten hasn't.
PICK = "g (float[n,2] x, int64[n] at) => (float[n,2] y, float[n] picked) { y = Add(x, x)  picked = Gather(table, at) }"


def package(
    models: Path, graph: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], **more: Any
) -> Path:
    """Write a package by hand."""
    folder = models / "m" / "1"
    folder.mkdir(parents=True)
    model = parser.parse_model(HEAD + graph)
    if "table" in graph:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(10, dtype=np.float32), "table"))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for name, content in more.pop("beside", {}).items():
        (folder / name).write_text(content)
        more["files"] = {name: sha256_of(folder / name)}
    manifest = Manifest(
        name="m",
        version="1",
        runtime="onnxruntime",
        file="model.onnx",
        sha256=sha256_of(folder / "model.onnx"),
        inputs=inputs,
        outputs=outputs,
        **more,
    )
    write_manifest(folder, manifest)
    return models


def add_model_m(models: Path) -> Path:
    """Write the package of a model that doubles x, and fails on rows whose `at` is none of 0 to 9."""
    inputs = (TensorSpec(name="x", datatype="FP32", shape=(2,)), TensorSpec(name="at", datatype="INT64"))
    outputs = (TensorSpec(name="y", datatype="FP32", shape=(2,)), TensorSpec(name="picked", datatype="FP32"))
    return package(models, PICK, inputs, outputs, labels=("a", "b"), batching=BatchingAdvice(max_rows=4))
