"""Makes the `.tflite` files that the tests here read.

litert-torch needs gigabytes and an environment of its own, so the files (4 kB each) are kept beside this script:

    python -m venv /tmp/litert && /tmp/litert/bin/pip install litert-torch==0.10.0 numpy
    /tmp/litert/bin/python tests/runtimes/make_litert_fixture.py

`small_net` takes any number of rows; `small_net_frozen` one row only, as files do that were converted without
`dynamic_shapes`; `small_net_stuck` three rows only though it says that it takes any. The label
comes out as INT32: litert-torch narrows whole numbers unless told otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import litert_torch
import torch

HERE = Path(__file__).parent

if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    from small_net import Flattening, SmallNet

    rows = ({0: torch.export.Dim("rows")},)
    three, one = (torch.rand(3, 1, 8, 8),), (torch.rand(1, 1, 8, 8),)
    network = SmallNet().eval()
    litert_torch.convert(network, three, dynamic_shapes=rows).export(str(HERE / "small_net.tflite"))
    litert_torch.convert(network, one).export(str(HERE / "small_net_frozen.tflite"))
    litert_torch.convert(Flattening().eval(), three, dynamic_shapes=rows).export(str(HERE / "small_net_stuck.tflite"))
