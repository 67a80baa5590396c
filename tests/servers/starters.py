"""The servers of these tests, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from tests.servers.kserve.start import kserve
from tests.servers.mlserver.start import mlserver
from tests.servers.process import ModelServer
from tests.servers.tfserving.start import tfserving
from tests.servers.torchserve.start import torchserve
from tests.servers.triton.start import triton

STARTERS: Final[dict[str, Callable[[Path], ModelServer]]] = {
    "triton": triton,
    "mlserver": mlserver,
    "kserve": kserve,
    "torchserve": torchserve,
    "torchserve-oip": partial(torchserve, protocol="oip"),
    "tfserving": tfserving,
    "tfserving-content": partial(tfserving, as_content=True),
}
