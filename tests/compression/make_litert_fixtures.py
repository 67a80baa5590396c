"""Makes `litert_frozen.tflite` and `litert_expand.tflite`: 11 rows each, as litert-torch leaves them.

litert-torch needs gigabytes and an environment of its own, so the files (a few kB) are kept beside this script:

    make test-converters ARGS=--collect-only
    .venv-litert/litert-*/bin/python tests/compression/make_litert_fixtures.py

The first attends (RESHAPE, SLICE, BATCH_MATMUL, what a transformer has); the second repeats a token over the rows.
"""

from __future__ import annotations

from pathlib import Path

import litert_torch
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent

ROWS = 11


class Attending(nn.Module):
    """[rows, 4, 8] → [rows, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x).mean(1)).softmax(1)
        return y


class Repeating(nn.Module):
    """[rows, 4] → [rows, 2, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x[:, None]], 1)


if __name__ == "__main__":
    torch.manual_seed(0)
    for name, network, shape in (("frozen", Attending(), (ROWS, 4, 8)), ("expand", Repeating(), (ROWS, 4))):
        litert_torch.convert(network.eval(), (torch.rand(shape),)).export(str(HERE / f"litert_{name}.tflite"))
