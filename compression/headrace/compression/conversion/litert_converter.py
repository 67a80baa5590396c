"""Conversion of a torch program to LiteRT, in litert-torch's own environment: `python litert_converter.py FOLDER`.

Runs where headrace isn't installed, so that it imports nothing of it. FOLDER holds `program.pt2` and `job.json`
({"torch": version, "inputs": [{"datatype", "shape"}, …]}); `model.tflite` is put beside them, or
`error.json` ({"error"}).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> int:
    """Convert; gives the exit code."""
    job: dict[str, Any] = json.loads((folder / "job.json").read_text("utf-8"))
    try:
        _convert(folder, job)
    except Exception as exc:  # noqa: BLE001  (whatever the converter's passes raise; the other side reports it)
        error = {"error": _said_first(exc)}
        (folder / "error.json").write_text(json.dumps(error), "utf-8")
        return 1
    return 0


def _convert(folder: Path, job: dict[str, Any]) -> None:
    import litert_torch  # type: ignore[import-not-found,unused-ignore]
    import torch

    have = torch.__version__.partition("+")[0]
    if have != job["torch"]:
        raise RuntimeError(f"the network comes from torch {job['torch']}, but the converter's environment has {have}")
    module = torch.export.load(folder / "program.pt2").module()
    # Only shapes and datatypes matter: the network is traced, not run.
    inputs = tuple(torch.zeros(each["shape"], dtype=getattr(torch, each["datatype"])) for each in job["inputs"])
    litert_torch.convert(module, inputs).export(str(folder / "model.tflite"))


def _said_first(exc: Exception) -> str:
    lines = [line for line in str(exc).splitlines() if line.strip()]
    return lines[0] if lines else type(exc).__name__


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
