"""Write the digits of scikit-learn into the data file of `headrace demo`, the same bytes every time.

    pip install "headrace[examples]"
    python examples/digits/data.py

The file is a plain .npz: `images` uint8 [1797, 8, 8] with values 0 to 16, `labels` uint8 [1797], in
scikit-learn's order. It is not compressed inside (the wheel is): zlib's output differs between builds.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEMO_DATA = Path(__file__).parents[2] / "cli/headrace/cli/demo/data"
DIGITS = DEMO_DATA / "digits.npz"

#: Images 0 to 897 train, 898 to 1796 are held out: `train_test_split(test_size=0.5, shuffle=False)` as in
#: scikit-learn's classifier example. Writers differ between the halves, so this is harder than a random split.
TRAIN_ROWS = 898


def from_scikit_learn() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images [1797, 8, 8] and labels [1797] as scikit-learn ships them."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.uint8), bunch.target.astype(np.uint8)


def npz_bytes(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> bytes:
    """Pack both arrays into an .npz whose bytes depend on nothing but them: no clock, no compressor."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in (("images", images), ("labels", labels)):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue())
    return buffer.getvalue()


def main() -> None:
    """Write the file that `--output` names."""
    parser = argparse.ArgumentParser(description="Write the digits of scikit-learn as the demo's data file.")
    parser.add_argument("--output", type=Path, default=DIGITS, help="where to write (default: %(default)s)")
    output: Path = parser.parse_args().output
    images, labels = from_scikit_learn()
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(npz_bytes(images, labels))
    print(f"{output}: {len(images)} images, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
