"""The ladder a search climbs: architecture, structured pruning, quantization, graph optimisation; alone, then combined.

Pure: what to try next follows from what was measured so far, so that an interrupted search goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.compression.recipes.catalog import ENDINGS, Runtime

#: Recipes by what they start from and where they end. Within a rung the cheapest and most often best come first.
_STUDENTS: Final = ("student-squeezenet", "student-mobilenet-v3")
_PRUNED: Final = ("prune-channels-30", "prune-channels-50", "prune-channels-70")
#: int8 that starts from the network; ONNX Runtime serves it as well as torch does.
_TRAINED: Final = ("pt2e-int8", "qat-int8")
_QUANTIZED: Final[dict[Runtime, tuple[str, ...]]] = {
    "onnxruntime": (
        "graph",
        "int8-static",
        "int8-static-percentile",
        "int8-static-sensitive",
        "int8-dynamic",
        "int8-dynamic-tables",
        "int8-dynamic-sensitive",
        "int8-weights",
        "fp16",
    ),
    "openvino": ("openvino", "openvino-int8"),
    "litert": ("litert", "litert-int8-dynamic", "litert-int8"),
    "torch": _TRAINED,
    "tensorrt": ("tensorrt-fp16", "tensorrt-int8"),
    "tvm": ("tvm",),
}

#: A pruned or taught network is only combined with so many of the ways to quantize, those that did best alone.
_COMBINED: Final = 2


def first_rungs(runtime: Runtime, *, network: bool, images: bool) -> list[str]:
    """List what is tried alone.

    network: whether there is a torch network to prune. images: whether its input is large enough an image for the
    families of `architectures`.
    """
    alone = list(_QUANTIZED[runtime])
    if network:
        alone += _PRUNED
        alone += [name for name in _TRAINED if runtime == "onnxruntime"]
        if images:
            alone += _STUDENTS
    return alone


def combinations(runtime: Runtime, *, shrunk: Sequence[str], quantized: Sequence[str]) -> list[str]:
    """List what is tried together.

    shrunk: pruned and taught networks that kept their metric. quantized: recipes of `_QUANTIZED` that kept it, the
    fastest first. Both are recipes of `first_rungs`.
    """
    # What a shrunk network ends with anyway is no combination.
    ways = {*_QUANTIZED[runtime]} - {ENDINGS.get(runtime)}
    after = [name for name in quantized if name in ways][:_COMBINED]
    if "graph" in _QUANTIZED[runtime] and "graph" not in after:
        after.append("graph")
    # LiteRT's recipes are exports of their own, and PT2E's change the network: both follow pruning as well.
    return [f"{first}+{second}" for first in shrunk for second in after]


def is_shrunk(name: str) -> bool:
    """Tell whether a recipe changes the architecture alone."""
    return name in {*_PRUNED, *_STUDENTS}
