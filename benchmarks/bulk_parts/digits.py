"""(a) The demo's digits, many times over, Parquet to Parquet: bound by all that is not the model."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from benchmarks.bulk_parts import inputs
from benchmarks.bulk_parts.contest import bare_loop, contest
from benchmarks.bulk_parts.stage import ROOT, Stage

PACKAGE = ROOT / "cli/headrace/cli/demo/data/models/digits/2"


def package(models: Path, batch_rows: int) -> Path:
    """Write the demo's package, with batches of so many rows; return its ONNX file."""
    folder = models / "digits" / "2"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PACKAGE, folder)
    toml = folder / "model.toml"
    text = toml.read_text("utf-8")
    toml.write_text(text.replace("max_rows = 64\n", f"max_rows = {batch_rows}\n", 1), "utf-8")
    return folder / "model.onnx"


def run(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """Let headrace and the bare loop take turns."""
    source = inputs.digits(stage.data, options.digits_copies)
    model = package(stage.models, options.digits_batch_rows)
    more = ["--batch-rows", str(options.digits_batch_rows)]
    return contest(stage, options, "digits", source, bare_loop(stage, "digits", source, model, more), keep=["id"])
