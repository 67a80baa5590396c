"""The examples of compression: their rows are what their papers say, and their networks those that are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from examples.mnist.data import PARTS, parts
from examples.mnist.network import MnistNet, Served, load, save, trained

from headrace.compression import CompressionError, Request, load_network, open_source
from headrace.contracts import ModelDirectory

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DIGITS = ROOT / "cli/headrace/cli/demo/data/models/digits/1"


def run(script: str, *words: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_rows_and_the_network_of_the_digits_are_those_of_the_package_in_the_demo(tmp_path: Path) -> None:
    run("digits/rows.py", "--folder", str(tmp_path))
    request = Request(
        str(DIGITS),
        tmp_path / "train.npz",
        tmp_path / "test.npz",
        "label",
        network=f"{EXAMPLES / 'digits/network.py'}:trained",
    )
    # Refuses a network that answers otherwise than the package.
    source, splits = open_source(request, ModelDirectory(tmp_path / "models"), tmp_path / "made", seed=0, threads=1)
    assert source.network is not None
    assert (len(splits.train) + len(splits.selection), len(splits.test)) == (898, 899)
    images = splits.test.inputs["image"]
    assert images.dtype == np.float32
    assert (images.shape[1:], images.min(), images.max()) == ((1, 8, 8), 0.0, 1.0)


def test_the_parts_of_mnist_share_no_row_and_have_every_digit_as_often() -> None:
    labels = np.repeat(np.arange(10), 500)
    found = parts(labels)
    assert {name: len(rows) for name, rows in found.items()} == PARTS
    assert len(set(np.concatenate(list(found.values())).tolist())) == 5000
    assert all(len(set(np.bincount(labels[rows]).tolist())) == 1 for rows in found.values())
    assert all(np.array_equal(rows, parts(labels)[name]) for name, rows in found.items())


def test_weights_of_mnist_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = MnistNet().eval()
    save(network, tmp_path / "weights.npz")
    monkeypatch.setenv("MNIST_WEIGHTS", str(tmp_path / "weights.npz"))
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        label, scores = trained()(images)
        expected = Served(load(tmp_path / "weights.npz"))(images)
        logits = network(images)
    torch.testing.assert_close((label, scores), expected)
    torch.testing.assert_close(scores, logits.softmax(dim=1))
    assert label.tolist() == logits.argmax(dim=1).tolist()


def test_a_network_that_was_not_trained_yet_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_WEIGHTS", str(tmp_path / "none.npz"))
    with pytest.raises(CompressionError, match=r"python examples/mnist/train\.py"):
        load_network(
            f"{EXAMPLES / 'mnist/network.py'}:trained", example={"image": np.zeros((1, 1, 28, 28), np.float32)}
        )


def test_training_writes_rows_and_weights(tmp_path: Path) -> None:
    said = run("mnist/train.py", "--folder", str(tmp_path), "--epochs", "1")
    assert "of 1200 test images right" in said
    rows = {}
    for name, size in (("train", 1900), ("rows", 3800), ("test", 1200)):
        with np.load(tmp_path / f"{name}.npz") as file:
            rows[name] = {image.tobytes() for image in file["image"]}
            assert (file["image"].shape, file["image"].dtype) == ((size, 1, 28, 28), np.float32)
            assert (file["label"].shape, file["label"].dtype) == ((size,), np.int64)
    assert rows["train"] < rows["rows"]
    assert not rows["test"] & rows["rows"]
    load(tmp_path / "weights.npz")
