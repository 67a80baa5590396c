"""The models of the chaos run, so simple that every answer is known beforehand, and different from every other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

#: `y = 2x + 1`. Inputs are unique in a run, so an answer that went to the wrong request is seen.
AFFINE: Final = "affine"

#: The same, but fails for negative inputs, and with it every batch that holds one.
PICKY: Final = "picky"


def answer_to(x: int) -> int:
    """Give the right answer."""
    return 2 * x + 1


def write_models(root: Path) -> None:
    """Write both packages."""
    from onnx import helper

    # Gather fails for an index outside of its table, so 0·table[min(x, 0)] fails for negative x alone.
    picky = [
        helper.make_node("Min", ["x", "zero"], ["below"]),
        helper.make_node("Mul", ["below", "far"], ["index"]),
        helper.make_node("Gather", ["table", "index"], ["checked"]),
        helper.make_node("Add", ["x", "checked"], ["same"]),
        helper.make_node("Mul", ["same", "two"], ["double"]),
        helper.make_node("Add", ["double", "one"], ["y"]),
    ]
    affine = [helper.make_node("Mul", ["x", "two"], ["double"]), helper.make_node("Add", ["double", "one"], ["y"])]
    _write(root, AFFINE, affine)
    _write(root, PICKY, picky)


def _write(root: Path, name: str, nodes: list[Any]) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from headrace.contracts.package import sha256_of

    folder = root / name / "1"
    folder.mkdir(parents=True)
    constants = {"two": [2], "one": [1], "zero": [0], "far": [1000], "table": [0]}
    used = {word for node in nodes for word in node.input}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["rows", 1])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["rows", 1])],
        [numpy_helper.from_array(np.array(value), key) for key, value in constants.items() if key in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    ports = "".join(
        f'[[{kind}]]\nname = "{key}"\ndatatype = "INT64"\nshape = [1]\n'
        for kind, key in (("inputs", "x"), ("outputs", "y"))
    )
    (folder / "model.toml").write_text(
        f'name = "{name}"\nversion = "1"\nruntime = "onnxruntime"\nfile = "model.onnx"\n'
        f'sha256 = "{sha256_of(folder / "model.onnx")}"\n{ports}[batching]\nmax_rows = 64\n'
    )
