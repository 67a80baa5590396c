"""Write the demo's digits as inputs of the network, for compressing it.

    python examples/digits/rows.py                   # into .headrace/examples/digits

`train.npz` holds the 898 rows that the network was trained on, `test.npz` the 899 of other people: `image` FP32
[rows, 1, 8, 8] in 0..1, `label` INT64 [rows].
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

DIGITS = Path(__file__).parents[2] / "cli/headrace/cli/demo/data/digits.npz"

#: As in `data.py`.
TRAIN_ROWS = 898

FOLDER = Path(".headrace/examples/digits")


def write(folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(DIGITS) as file:
        images = (file["images"].astype(np.float32) / np.float32(16))[:, None]
        labels = file["labels"].astype(np.int64)
    np.savez(folder / "train.npz", image=images[:TRAIN_ROWS], label=labels[:TRAIN_ROWS])
    np.savez(folder / "test.npz", image=images[TRAIN_ROWS:], label=labels[TRAIN_ROWS:])


def main() -> None:
    """Write the files into the folder that `--folder` names."""
    parser = argparse.ArgumentParser(description="Write the demo's digits as the network takes them.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: %(default)s)")
    folder: Path = parser.parse_args().folder
    write(folder)
    print(f"{folder}: train.npz and test.npz")


if __name__ == "__main__":
    main()
