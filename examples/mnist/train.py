"""Train the network for MNIST, and keep its weights; rerunnable, seeds fixed.

    pip install "headrace[examples]"
    python examples/mnist/train.py                   # into .headrace/examples/mnist, a minute on two cores

The test rows are held out; they are read once, for the printed accuracy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import data
import numpy as np
import torch
from network import FOLDER, WEIGHTS, MnistNet, save
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SEED = 0
EPOCHS = 25
BATCH_ROWS = 64


def distort(images: Tensor, random: torch.Generator) -> Tensor:
    """Turn, scale and shift each image a little, as other people's hands would."""

    def spread(width: float) -> Tensor:
        return (torch.rand(len(images), generator=random) * 2 - 1) * width

    angle, across, down = spread(0.2), 1 + spread(0.1), 1 + spread(0.1)
    matrix = torch.stack(
        [
            torch.stack([across * angle.cos(), -angle.sin(), spread(0.12)], dim=1),
            torch.stack([angle.sin(), down * angle.cos(), spread(0.12)], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def fit(images: NDArray[np.float32], labels: NDArray[np.int64], epochs: int) -> MnistNet:
    """Train on images [rows, 1, 28, 28] and labels [rows]; on the same machine the same weights come out."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    network = MnistNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    steps = epochs * -(-len(x) // BATCH_ROWS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=random).split(BATCH_ROWS):
            loss = functional.cross_entropy(network(distort(x[rows], random)), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def read(file: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images and labels of a part."""
    with np.load(file) as arrays:
        return arrays["image"], arrays["label"]


def make(folder: Path, epochs: int) -> tuple[int, int]:
    """Write rows and weights into a folder; gives how many of how many test rows are right."""
    data.write(folder)
    network = fit(*read(folder / "train.npz"), epochs)
    save(network, folder / WEIGHTS)
    images, labels = read(folder / "test.npz")
    with torch.no_grad():
        found = network(torch.from_numpy(images)).argmax(dim=1).numpy()
    return int((found == labels).sum()), len(labels)


def main() -> None:
    """Write rows and weights into the folder that `--folder` names."""
    parser = argparse.ArgumentParser(description="Train the network for MNIST.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the rows (default: %(default)s)")
    options = parser.parse_args()
    folder: Path = options.folder
    hits, rows = make(folder, options.epochs)
    print(f"{folder / WEIGHTS}: {hits} of {rows} test images right ({hits / rows:.2%})")


if __name__ == "__main__":
    main()
