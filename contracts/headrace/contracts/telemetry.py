"""The telemetry of OpenVINO and NNCF, switched off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: OpenVINO's Python package writes `~/intel` and sends an event as soon as it is imported, unless it runs in CI; NNCF
#: leaves it be in its own CI. Neither has another switch but a file in the user's home.
_SWITCHES: Final = {"CI": "true", "NNCF_CI": "1"}


@contextmanager
def untracked() -> Iterator[None]:
    """Import openvino and nncf within this: their decision at import holds for the process."""
    before = {name: os.environ.get(name) for name in _SWITCHES}
    os.environ.update(_SWITCHES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
