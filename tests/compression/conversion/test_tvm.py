"""Conversion to TVM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.compression.onnx_models import answers, bytes_of, context_of, model_of, package_of, random

from headrace.compression.conversion.tvm_library import TvmLibrary
from headrace.compression.data.dataset import Splits
from headrace.compression.errors import CompressionError, MissingLibrary, NotApplicable
from headrace.compression.steps import StepContext
from headrace.contracts import ModelPackage


def test_a_library_answers_as_its_source_did_and_warns(
    digits_package: ModelPackage, context: StepContext, splits: Splits
) -> None:
    before = bytes_of(digits_package)
    package = TvmLibrary().convert(digits_package, context)
    package.verify()
    assert package.manifest.runtime == "tvm"
    assert bytes_of(digits_package) == before
    for rows in (1, 3, 64):
        inputs = splits.test.take(slice(0, rows)).inputs
        want, have = answers(digits_package, inputs), answers(package, inputs)
        assert np.array_equal(want["label"], have["label"])
        assert np.allclose(want["scores"], have["scores"], atol=1e-5)
    warning = package.manifest.provenance["steps"][-1]["warning"]
    assert "40 times slower" in warning
    assert "native code" in warning


def test_an_operator_that_tvm_lacks_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    text = "made (float[rows, 3] x) => (float[rows, 3] y) { y = LpNormalization(x) }"
    package = package_of(model_of(text), tmp_path)
    context = context_of(tmp_path, {"x": random(4, 3)})
    with pytest.raises(CompressionError, match="LpNormalization"):
        TvmLibrary().convert(package, context)
    assert list(context.folder.iterdir()) == []


def test_without_a_linker_it_says_so(
    digits_package: ModelPackage, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(NotApplicable, match=r"C\+\+ compiler"):
        TvmLibrary().convert(digits_package, context)


def test_a_missing_library_is_named_with_its_extra(
    digits_package: ModelPackage, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.compression.conversion.verify.find_spec", lambda _name: None)
    with pytest.raises(MissingLibrary, match=r"headrace\[tvm\]"):
        TvmLibrary().convert(digits_package, context)
