"""(c) JPEG files through a small CNN: bound by decoding and by the model at once."""

from __future__ import annotations

import argparse
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.bulk_parts.contest import bare_loop, contest
from benchmarks.bulk_parts.stage import Stage
from onnx import TensorProto, helper, numpy_helper

from headrace.contracts.package.image_recipe import ImageDecode
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest
from headrace.contracts.package.signature import TensorSpec

RESIZE, SIDE = 144, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Channels of the convolutions, each of which halves height and width.
CHANNELS = (3, 32, 64, 128)
CLASSES = 10
SEED = 0

#: Sides of the images; compressed, one has about 20 kB.
SIDES = (240, 320, 400)


def network(file: Path) -> None:
    """Write a CNN with random weights: three convolutions, the mean of each channel, and a linear layer."""
    random = np.random.default_rng(SEED)
    nodes, weights, name = [], [], "image"
    for number, (have, want) in enumerate(itertools.pairwise(CHANNELS)):
        kernel = (random.standard_normal((want, have, 3, 3)) * (2 / (9 * have)) ** 0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"kernel{number}"))
        nodes.append(
            helper.make_node("Conv", [name, f"kernel{number}"], [f"conv{number}"], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        name = f"relu{number}"
    linear = (random.standard_normal((CHANNELS[-1], CLASSES)) * CHANNELS[-1] ** -0.5).astype(np.float32)
    weights.append(numpy_helper.from_array(linear, "linear"))
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "linear"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", CLASSES])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


def package(models: Path, batch_rows: int) -> Path:
    """Write the package; return its ONNX file."""
    folder = models / "pictures" / "1"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    network(folder / "model.onnx")
    decode = ImageDecode(resize=RESIZE, crop=SIDE, mean=MEAN, std=STD)
    write_manifest(
        folder,
        Manifest(
            name="pictures",
            version="1",
            runtime="onnxruntime",
            file="model.onnx",
            sha256=sha256_of(folder / "model.onnx"),
            inputs=(TensorSpec(name="image", datatype="FP32", shape=(3, SIDE, SIDE), decode=decode),),
            outputs=(TensorSpec(name="scores", datatype="FP32", shape=(CLASSES,)),),
            batching=BatchingAdvice(max_rows=batch_rows),
        ),
    )
    return folder / "model.onnx"


def files(data: Path, count: int) -> Path:
    """Write JPEG files with edges, gradients and noise, as photos have."""
    from PIL import Image

    folder = data / f"jpeg-{count}"
    if folder.exists():
        return folder
    making = data / f"jpeg-{count}.making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    random = np.random.default_rng(SEED)
    for number in range(count):
        width, height = random.choice(SIDES, 2)
        rough = Image.fromarray(random.integers(0, 256, (int(height) // 16, int(width) // 16, 3), np.uint8))
        pixels = np.asarray(rough.resize((int(width), int(height)), Image.Resampling.BICUBIC), np.int16)
        noise = random.integers(-12, 13, pixels.shape, np.int16)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(making / f"{number:06}.jpg", quality=85)
    making.rename(folder)
    return folder


def paths(data: Path, folder: Path) -> Path:
    """Write the paths of the files as a column, which is another way to name them."""
    table = data / f"{folder.name}-paths.parquet"
    found = [str(file) for file in sorted(folder.iterdir())]
    pq.write_table(pa.table({"path": found, "image": found}), table)
    return table


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Let headrace and the bare loop take turns."""
    folder = files(stage.data, options.images)
    model = package(stage.models, options.images_batch_rows)
    more = ["--batch-rows", str(options.images_batch_rows), "--resize", str(RESIZE), "--side", str(SIDE)]
    source = paths(stage.data, folder) if options.image_paths else folder
    bare = bare_loop(stage, "images", folder, model, more)
    return contest(stage, options, "pictures", source, bare, keep=["path"])
