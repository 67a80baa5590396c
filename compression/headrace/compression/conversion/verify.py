"""Verification of converted models: their outputs are those of the source, each on its own runtime."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from headrace.compression.errors import CompressionError, MissingLibrary
from headrace.compression.export.parity import check_parity
from headrace.compression.onnx_model.verify import load, proof_batches, run
from headrace.compression.steps import StepContext
from headrace.contracts import HeadraceError, ModelPackage

#: Largest difference of an output that is allowed, in units of 1 + its largest absolute value: sums in other orders.
TOLERANCE = 1e-4


def need(what: str, extra: str, *modules: str) -> None:
    """Raise MissingLibrary when a module that an extra brings isn't installed. what: that needs it."""
    if any(find_spec(module) is None for module in modules):
        raise MissingLibrary(what, extra)


@contextlib.contextmanager
def kept_if_proven(folder: Path) -> Iterator[None]:
    """Remove a folder if the block raises."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def prove_same(product: ModelPackage, source: ModelPackage, context: StepContext, tolerance: float, what: str) -> None:
    """Run both on 1, 3 and 64 of the same rows and compare all outputs.

    tolerance: as of `check_parity`. what: the name of the product in errors.
    Raises CompressionError when it can't be loaded, fails on some number of rows, or differs.
    """
    before = load(source, context.threads)
    try:
        try:
            after = load(product, context.threads)
        except HeadraceError as exc:
            raise CompressionError(f"{what} can't be served: {exc}") from exc
        try:
            for batch in proof_batches(source, context, before):
                found = run(after, batch, what)
                check_parity(run(before, batch, "the model"), found, tolerance, what)
        finally:
            after.close()
    finally:
        before.close()
