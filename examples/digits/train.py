"""Train the demo's digit classifier, export it to ONNX and write its model package; rerunnable, seeds fixed.

    pip install "headrace[worker,examples]"
    python examples/digits/train.py                  # writes the package that `headrace demo` serves
    python examples/digits/train.py --models DIR     # writes DIR/digits/1 instead

A small convolutional network of ours (39 thousand weights) on the first 898 of the 1,797 digits; the other 899
are held out, as in scikit-learn's classifier example, and other people wrote them. Everything was chosen on
the first half alone; the held-out half is read once, for the accuracy that the package states, measured
with ONNX Runtime on the exported file. The image goes in as FP32 [rows, 1, 8, 8] scaled to 0..1; the label
(argmax) and the ten scores (softmax) come out, so that a row in Postgres reads by itself.
"""

from __future__ import annotations

import argparse
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import tomli_w
import torch
from data import DEMO_DATA, DIGITS, TRAIN_ROWS
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from headrace.contracts.package.manifest import BatchingAdvice, Manifest, read_package, sha256_of
from headrace.contracts.package.signature import TensorSpec

SEED = 0
EPOCHS = 120
BATCH_ROWS = 64

#: Weight of the past in the running average of the weights that is kept in the end (Polyak averaging).
AVERAGE_DECAY = 0.995

#: The held-out accuracy below which the script refuses to write a package.
LEAST_ACCURACY = 0.97

#: Row counts at which the exported file must agree with torch: alone, odd, and a full batch.
CHECKED_ROWS = (1, 7, 64)

#: Another CPU rounds differently, by about 1e-6. When the best two scores of every held-out image are further apart
#: than this, each CPU and each batch size finds the same label, and the demo may demand the exact count of hits.
LEAST_MARGIN = 1e-4


class DigitNet(nn.Module):
    """Three convolutions and one linear layer: [rows, 1, 8, 8] in 0..1 → logits [rows, 10]."""

    def __init__(self) -> None:
        """Start from random weights; `torch.manual_seed` settles them."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(48, 48, 3, padding=1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(),
        )
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.4), nn.Linear(48 * 4 * 4, 10))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits [rows, 10] for images [rows, 1, 8, 8]."""
        logits: Tensor = self.classify(self.features(image))
        return logits


class Served(nn.Module):
    """The network as it is packaged, with argmax and softmax inside the graph."""

    def __init__(self, network: DigitNet) -> None:
        """network: trained, and used as it is."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels INT64 [rows] and scores FP32 [rows, 10] for images [rows, 1, 8, 8]."""
        logits = self.network(image)
        return logits.argmax(dim=1), logits.softmax(dim=1)


def read_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images [1797, 8, 8] with values 0..16 and labels [1797] from the demo's data file."""
    with np.load(DIGITS) as file:
        return file["images"], file["labels"]


def as_input(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale images to the model's input: FP32 [rows, 1, 8, 8] in 0..1."""
    return (images.astype(np.float32) / np.float32(16))[:, None]


def distort(images: Tensor, random: torch.Generator) -> Tensor:
    """Turn, scale, shear and shift each image a little, as other people's hands would."""

    def spread(width: float) -> Tensor:
        return (torch.rand(len(images), generator=random) * 2 - 1) * width

    angle, shear, across, down = spread(0.25), spread(0.2), 1 + spread(0.15), 1 + spread(0.15)
    matrix = torch.stack(
        [
            torch.stack([across * angle.cos(), -angle.sin() + shear, spread(0.15)], dim=1),
            torch.stack([angle.sin(), down * angle.cos(), spread(0.15)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    noise = torch.randn(moved.shape, generator=random) * 0.05
    return (moved + noise).clamp(0, 1)


def shuffled_batches(rows: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yield the row numbers of one epoch in random order, a batch at a time."""
    yield from torch.randperm(rows, generator=random).split(BATCH_ROWS)


def fit(images: NDArray[np.float32], labels: NDArray[np.uint8], seed: int = SEED) -> DigitNet:
    """Train on images [rows, 1, 8, 8] and labels [rows]; the same seed on the same machine gives the same weights."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    random = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    network = DigitNet()
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY), use_buffers=True
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    steps = EPOCHS * -(-len(x) // BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
    network.train()
    for _ in range(EPOCHS):
        for rows in shuffled_batches(len(x), random):
            loss = functional.cross_entropy(network(distort(x[rows], random)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
    trained = average.module
    assert isinstance(trained, DigitNet)
    return trained.eval()


def export(network: DigitNet, file: Path) -> None:
    """Write the network as one ONNX file, fp32, with a free number of rows."""
    example = (torch.zeros(2, 1, 8, 8),)
    torch.onnx.export(
        Served(network).eval(),
        example,
        file,
        dynamo=True,
        external_data=False,
        input_names=["image"],
        output_names=["label", "scores"],
        dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
        verbose=False,
    )
    forget_traces(file)


def forget_traces(file: Path) -> None:
    """Remove the exporter's stack traces: they name folders of the machine it ran on, and vary between machines."""
    model = onnx.load(file)
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, file)
    if b"train.py" in file.read_bytes():
        raise SystemExit(
            f"{file} still names a source file; forget_traces misses a place where the exporter keeps them"
        )


def run(file: Path, images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return labels [rows] and scores [rows, 10] of the exported file, from ONNX Runtime on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    label, scores = session.run(["label", "scores"], {"image": images})
    return label, scores


def check_export(network: DigitNet, file: Path, images: NDArray[np.float32]) -> None:
    """Compare the file with torch on real images, at several row counts; some exports are silently wrong."""
    for rows in CHECKED_ROWS:
        given = images[:rows]
        label, scores = run(file, given)
        with torch.no_grad():
            expected = network(torch.from_numpy(given)).softmax(dim=1).numpy()
        np.testing.assert_allclose(scores, expected, atol=1e-5, err_msg=f"the export differs from torch at {rows} rows")
        np.testing.assert_array_equal(label, expected.argmax(axis=1))


def measure(file: Path, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> dict[str, Any]:
    """Count the hits of the file on held-out images [rows, 1, 8, 8]; refuse a result another CPU might not repeat."""
    found, scores = run(file, images)
    hits = int((found == labels).sum())
    best = np.sort(scores, axis=1)
    margin = float((best[:, -1] - best[:, -2]).min())
    if margin < LEAST_MARGIN:
        raise SystemExit(
            f"two scores of an image are only {margin:.1e} apart: hits may differ between CPUs; change SEED"
        )
    if hits < LEAST_ACCURACY * len(labels):
        raise SystemExit(
            f"only {hits} of {len(labels)} held-out images are right; at least {LEAST_ACCURACY:.0%} must be"
        )
    return {
        "accuracy": hits / len(labels),
        "accuracy_hits": hits,
        "accuracy_rows": len(labels),
        "smallest_margin": float(f"{margin:.2g}"),
    }


def provenance(measured: dict[str, Any]) -> dict[str, Any]:
    """Record in `model.toml` how the model was made."""
    return {
        "data": "Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak; UCI; CC BY 4.0), "
        "the 1,797 digits of scikit-learn's load_digits",
        "data_sha256": sha256_of(DIGITS),
        "split": "rows 0 to 897 train, rows 898 to 1796 held out (not shuffled)",
        "train_rows": TRAIN_ROWS,
        "script": "examples/digits/train.py",
        "seed": SEED,
        "epochs": EPOCHS,
        "precision": "fp32",
        **measured,
        "accuracy_measured_with": "ONNX Runtime on the held-out rows",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "onnx", "onnxruntime", "onnxscript", "numpy")},
    }


def write_package(folder: Path, measured: dict[str, Any]) -> None:
    """Write `model.toml` beside `model.onnx` and read the package back as a worker does."""
    manifest = Manifest(
        name="digits",
        version="1",
        runtime="onnxruntime",
        file="model.onnx",
        sha256=sha256_of(folder / "model.onnx"),
        inputs=(TensorSpec(name="image", datatype="FP32", shape=(1, 8, 8), allow_nan=False),),
        outputs=(TensorSpec(name="label", datatype="INT64"), TensorSpec(name="scores", datatype="FP32", shape=(10,))),
        labels=tuple("0123456789"),
        batching=BatchingAdvice(max_rows=64, max_wait_ms=2.0),
        provenance=provenance(measured),
    )
    (folder / "model.toml").write_text(tomli_w.dumps(msgspec.to_builtins(manifest)), "utf-8")
    read_package(folder).verify()


def main() -> None:
    """Train, export, check, measure, and put the package in place."""
    parser = argparse.ArgumentParser(description="Train the demo's digit classifier and write its model package.")
    parser.add_argument("--models", type=Path, default=DEMO_DATA / "models", help="model folder (default: the demo's)")
    models: Path = parser.parse_args().models
    torch.set_num_threads(1)
    images, labels = read_digits()
    inputs = as_input(images)
    network = fit(inputs[:TRAIN_ROWS], labels[:TRAIN_ROWS])

    # Everything is made beside the package and moved in when it is whole: a failed run leaves the old one.
    folder = models / "digits/1"
    fresh = folder.with_name(".1.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    export(network, fresh / "model.onnx")
    check_export(network, fresh / "model.onnx", inputs[TRAIN_ROWS:])
    measured = measure(fresh / "model.onnx", inputs[TRAIN_ROWS:], labels[TRAIN_ROWS:])
    write_package(fresh, measured)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    print(
        f"{folder}: {measured['accuracy_hits']} of {measured['accuracy_rows']} held-out images right "
        f"({measured['accuracy']:.2%}), {(folder / 'model.onnx').stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
