"""Conversion to OpenVINO, in float and in int8."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tests.compression.onnx_models import answers, bytes_of, context_of, model_of, package_of, random

from headrace.compression.conversion.openvino_ir import OpenVinoInt8, OpenVinoIR
from headrace.compression.data.dataset import Splits
from headrace.compression.errors import CompressionError, DataError, MissingLibrary, NotApplicable
from headrace.compression.quantization import StaticInt8
from headrace.compression.steps import PackageStep, StepContext
from headrace.contracts import ModelPackage

ROOT = Path(__file__).parents[3]

#: Scores weigh values, as in a transformer's attention.
ATTENTION = """made (float[rows, 4, 8] x) => (float[rows, 4, 8] y) {
    q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)
    t = Transpose<perm=[0, 2, 1]>(k)
    s = MatMul(q, t)
    p = Softmax<axis=-1>(s)
    y = MatMul(p, v)
}"""


def attention(folder: Path) -> ModelPackage:
    return package_of(
        model_of(ATTENTION, {name: random(8, 8, seed=i) for i, name in enumerate(("wq", "wk", "wv"))}), folder
    )


def accuracy(package: ModelPackage, splits: Splits) -> float:
    assert splits.test.labels is not None
    return float((answers(package, splits.test.inputs)["label"] == splits.test.labels).mean())


def test_an_openvino_model_answers_as_its_source_did(
    digits_package: ModelPackage, context: StepContext, splits: Splits
) -> None:
    before = bytes_of(digits_package)
    package = OpenVinoIR().convert(digits_package, context)
    package.verify()
    assert package.manifest.runtime == "openvino"
    assert list(package.manifest.files) == ["model.bin"]
    assert package.manifest.signature == digits_package.manifest.signature
    assert bytes_of(digits_package) == before
    for rows in (1, 3, 64):
        inputs = splits.test.take(slice(0, rows)).inputs
        want, have = answers(digits_package, inputs), answers(package, inputs)
        assert np.array_equal(want["label"], have["label"])
        assert np.allclose(want["scores"], have["scores"], atol=1e-5)
    step = package.manifest.provenance["steps"][-1]
    assert step["step"] == "OpenVinoIR"
    assert "openvino" in step["versions"]


def test_fp16_weights_make_the_file_smaller(digits_package: ModelPackage, context: StepContext, splits: Splits) -> None:
    full = OpenVinoIR().convert(digits_package, context)
    half = OpenVinoIR(weights="fp16").convert(digits_package, context)
    assert half.size_bytes < 0.7 * full.size_bytes
    assert accuracy(half, splits) == accuracy(full, splits)


def test_int8_is_small_and_right_and_says_nothing(
    digits_package: ModelPackage, context: StepContext, splits: Splits, capfd: pytest.CaptureFixture[str]
) -> None:
    package = OpenVinoInt8().convert(digits_package, context)
    assert capfd.readouterr() == ("", "")
    package.verify()
    weights = package.folder / "model.bin"
    assert weights.stat().st_size < 0.3 * digits_package.size_bytes
    assert accuracy(package, splits) >= accuracy(digits_package, splits) - 0.01
    step = package.manifest.provenance["steps"][-1]
    assert (step["step"], step["transformer"], step["calibration_rows"]) == ("OpenVinoInt8", False, 256)


@pytest.mark.parametrize("step", [OpenVinoIR(), OpenVinoInt8()], ids=["float", "int8"])
def test_the_same_model_and_rows_give_the_same_bytes(
    step: PackageStep, digits_package: ModelPackage, context: StepContext
) -> None:
    first = bytes_of(step.convert(digits_package, context))
    assert bytes_of(step.convert(digits_package, context)) == first


def test_calibration_reports_how_far_it_is(digits_package: ModelPackage, context: StepContext) -> None:
    seen: list[tuple[int, int, str]] = []
    told = StepContext(context.folder, context.data, progress=lambda *what: seen.append(what))
    OpenVinoInt8().convert(digits_package, told)
    assert seen[0][1:] == (256, "calibration")
    assert max(done for done, *_ in seen) == 255


def test_attention_is_quantized_as_a_transformer(tmp_path: Path) -> None:
    package = attention(tmp_path)
    context = context_of(tmp_path, {"x": random(64, 4, 8)})
    product = OpenVinoInt8().convert(package, context)
    assert product.manifest.provenance["steps"][-1]["transformer"] is True
    want, have = (answers(each, {"x": random(5, 4, 8, seed=9)})["y"] for each in (package, product))
    assert np.corrcoef(want.ravel(), have.ravel())[0, 1] > 0.99


def test_an_int8_onnx_model_can_move_to_openvino(
    digits_package: ModelPackage, context: StepContext, splits: Splits
) -> None:
    small = StaticInt8().convert(digits_package, context)
    package = OpenVinoIR().convert(small, context)
    assert accuracy(package, splits) >= accuracy(digits_package, splits) - 0.01
    with pytest.raises(NotApplicable, match="quantized already"):
        OpenVinoInt8().convert(small, context)
    with pytest.raises(NotApplicable, match="starts from an ONNX package"):
        OpenVinoIR().convert(package, context)


def test_too_few_rows_and_wrong_ones_are_refused(digits_package: ModelPackage, tmp_path: Path) -> None:
    few = context_of(tmp_path, {"image": random(8, 1, 8, 8)})
    with pytest.raises(DataError, match="at least 32 rows"):
        OpenVinoInt8().convert(digits_package, few)
    holes = random(64, 1, 8, 8)
    holes[3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        OpenVinoInt8().convert(digits_package, context_of(tmp_path, {"image": holes}))
    assert not few.folder.exists()


def test_an_operator_that_openvino_lacks_is_named(tmp_path: Path) -> None:
    package = package_of(model_of("made (float[rows, 3, 3] x) => (float[rows] y) { y = Det(x) }"), tmp_path)
    context = context_of(tmp_path, {"x": random(64, 3, 3)})
    with pytest.raises(CompressionError, match="Det"):
        OpenVinoIR().convert(package, context)


def test_a_missing_library_is_named_with_its_extra(
    digits_package: ModelPackage, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.compression.conversion.verify.find_spec", lambda _name: None)
    with pytest.raises(MissingLibrary, match=r"headrace\[openvino\]"):
        OpenVinoIR().convert(digits_package, context)


def test_nothing_is_told_to_anybody_nor_written_into_the_home(digits_package: ModelPackage, tmp_path: Path) -> None:
    script = f"""
        from pathlib import Path
        import numpy as np
        from tests.compression.onnx_models import context_of
        from headrace.compression.conversion.openvino_ir import OpenVinoInt8
        from headrace.contracts import read_package
        rows = np.random.default_rng(0).random((32, 1, 8, 8), np.float32)
        context = context_of(Path({str(tmp_path)!r}), {{"image": rows}})
        OpenVinoInt8().convert(read_package(Path({str(digits_package.folder)!r})), context)
        import os, openvino_telemetry
        assert not openvino_telemetry.Telemetry().consent
        assert not {{"NNCF_CI", "CI"}} & set(os.environ)
    """
    home = tmp_path / "home"
    home.mkdir()
    without = {name: value for name, value in os.environ.items() if name not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env={**without, "HOME": str(home)}, cwd=ROOT, check=True
    )
    assert not (home / "intel").exists()
