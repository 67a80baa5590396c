"""Sizes of the benchmark: the full run, the quick one, and the tiny one of the tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The recipes of each section, and the time for each measurement.

    seconds: that timing a recipe takes, a row size; finalists take more. mnist_epochs: 0 takes those of `train.py`.
    sentences: of MiniLM. seeds: of the distillation.
    """

    digits: tuple[str, ...]
    mnist: tuple[str, ...]
    minilm: tuple[str, ...]
    seconds: float
    mnist_epochs: int
    sentences: int
    seeds: tuple[int, ...]


FULL = Plan(
    digits=(
        "graph",
        "int8-static",
        "int8-static-percentile",
        "prune-channels-30+int8-static",
        "prune-channels-50+int8-static",
        "prune-channels-70+int8-static",
        "prune-channels-70+graph",
        "fp16",
    ),
    mnist=("graph", "int8-static", "prune-channels-50+int8-static", "prune-channels-70+int8-static", "fp16"),
    minilm=("graph", "int8-dynamic", "int8-dynamic-sensitive", "int8-weights"),
    seconds=2.0,
    mnist_epochs=25,
    sentences=1500,
    seeds=(0, 1, 2),
)

QUICK = Plan(
    digits=("int8-static", "prune-channels-70+int8-static"),
    mnist=("int8-static",),
    minilm=("int8-dynamic",),
    seconds=1.0,
    mnist_epochs=8,
    sentences=500,
    seeds=(0, 1, 2),
)

TINY = Plan(
    digits=("int8-static",),
    mnist=("int8-static",),
    minilm=("int8-dynamic",),
    seconds=0.1,
    mnist_epochs=1,
    sentences=100,
    seeds=(0,),
)
