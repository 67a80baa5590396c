"""The models of the chaos run, so simple that every answer is known beforehand, and different from every other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

#: `y = 2x + 1`. Inputs are unique in a run, so an answer that went to the wrong request is seen.
AFFINE: Final = "affine"

#: The same, but fails for negative inputs, and with it every batch that holds one.
PICKY: Final = "picky"

#: The same, and beside it an output of 600 kB, which is read from the store.
LARGE: Final = "large"
LARGE_NUMBERS: Final = 150_000

#: The same, and beside it an output of 40 kB, which still travels in the reply.
WIDE: Final = "wide"
WIDE_NUMBERS: Final = 10_000


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
    for name, numbers in ((LARGE, LARGE_NUMBERS), (WIDE, WIDE_NUMBERS)):
        more = [
            helper.make_node("Cast", ["x"], ["small"], to=1),
            helper.make_node("Expand", ["small", "shape"], ["z"]),
        ]
        _write(root, name, affine + more, numbers)


def _write(root: Path, name: str, nodes: list[Any], numbers: int = 0) -> None:
    """Write a package. numbers: of the output `z` that makes a row large, if there is one."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from headrace.contracts.package.manifest import sha256_of

    folder = root / name / "1"
    folder.mkdir(parents=True)
    constants = {"two": [2], "one": [1], "zero": [0], "far": [1000], "table": [0], "shape": [1, numbers]}
    used = {word for node in nodes for word in node.input}
    large = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["rows", numbers])] if numbers else []
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["rows", 1])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["rows", 1]), *large],
        [numpy_helper.from_array(np.array(value), key) for key, value in constants.items() if key in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    wanted = [("inputs", "x", "INT64", 1), ("outputs", "y", "INT64", 1), ("outputs", "z", "FP32", numbers)]
    ports = "".join(
        f'[[{kind}]]\nname = "{key}"\ndatatype = "{datatype}"\nshape = [{length}]\n'
        for kind, key, datatype, length in wanted
        if length
    )
    batching = '[batching]\nmax_rows = 8\n[store]\noutputs = "binary"\n' if numbers else "[batching]\nmax_rows = 64\n"
    (folder / "model.toml").write_text(
        f'name = "{name}"\nversion = "1"\nruntime = "onnxruntime"\nfile = "model.onnx"\n'
        f'sha256 = "{sha256_of(folder / "model.onnx")}"\n{ports}{batching}'
    )
