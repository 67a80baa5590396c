"""The order of recipes in a search: each alone in the first stage, the successful ones combined in the second.

Pure: the next recipes follow from the measurements so far, so that an interrupted search continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.compression.recipes.catalog import ENDINGS, Runtime

#: Recipes by what they start from and where they end. Within a stage the cheapest and most often best come first.
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

#: A pruned or distilled network is combined with this many of the quantizations only, those that did best alone.
_COMBINED: Final = 2


def first_stage(runtime: Runtime, *, network: bool, images: bool) -> list[str]:
    """Return the recipes that are tried alone.

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


def second_stage(runtime: Runtime, *, shrunk: Sequence[str], quantized: Sequence[str]) -> list[str]:
    """Return the recipes that are tried in combination.

    shrunk: pruned and distilled networks that kept their metric. quantized: recipes of `_QUANTIZED` that kept it, the
    fastest first. Both are recipes of `first_stage`.
    """
    # What a shrunk network ends with anyway is no combination.
    ways = {*_QUANTIZED[runtime]} - {ENDINGS.get(runtime)}
    after = [name for name in quantized if name in ways][:_COMBINED]
    if "graph" in _QUANTIZED[runtime] and "graph" not in after:
        after.append("graph")
    # LiteRT's recipes are exports of their own, and PT2E's change the network: both follow pruning as well.
    return [f"{first}+{second}" for first in shrunk for second in after]


def is_shrunk(name: str) -> bool:
    """Whether a recipe changes the architecture alone."""
    return name in {*_PRUNED, *_STUDENTS}
