"""What a measurement says, and that a model under measurement can do no harm."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compression.misbehaving_packages import install, package_of
from tests.eventually import eventually

from headrace.compression.benchmarking.compare import SAME, Measurement, RowFigures, faster, measure
from headrace.compression.benchmarking.inputs import tiled
from headrace.compression.benchmarking.protocol import Block
from headrace.compression.benchmarking.ratio import Ratio, ratio_of
from headrace.compression.benchmarking.timing import Timing, timing_of
from headrace.compression.data.dataset import Dataset
from headrace.compression.errors import CompressionError, DataError
from headrace.contracts import ModelPackage, PackageError, Tensors, TensorSpec

#: Enough for a figure, and too little for one to rely on.
SHORT_S = 0.02

SECONDS = st.floats(1e-6, 10.0)


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModelPackage]:
    """Make packages that behave as asked."""
    install(tmp_path / "plugin", monkeypatch)
    return lambda name="misbehaving", **says: package_of(tmp_path / name, **says)


@pytest.fixture
def rows() -> Tensors:
    return {"x": np.ones((3, 2), np.float32)}


def compared(low: float, median: float = 1.5) -> Measurement:
    timing = Timing(0.001, 0.001, 0.002, 8000.0, 100)
    figures = RowFigures(8, timing, timing, Ratio(median, low, 2.0, 20))
    return Measurement(None, None, (figures, RowFigures(64, timing)), None)  # type: ignore[arg-type]


def test_a_measurement_has_all_figures_of_both_and_survives_json(digits_package: ModelPackage, digits: Dataset) -> None:
    found = measure(digits_package, digits_package, inputs=digits.inputs, row_sizes=(1, 8), seconds=SHORT_S)
    assert [figures.rows for figures in found.rows] == [1, 8]
    for figures in found.rows:
        assert figures.baseline is not None
        assert figures.ratio is not None
        assert figures.ratio.low <= figures.ratio.median <= figures.ratio.high
        assert figures.candidate.seconds > 0
        assert 0 < figures.candidate.median_seconds <= figures.candidate.p95_seconds
        assert figures.candidate.rows_per_second == pytest.approx(figures.rows / figures.candidate.seconds)
        assert figures.candidate.runs >= figures.ratio.pairs
    model = found.candidate
    assert (model.model, model.version, model.sha256) == ("digits", "1", digits_package.manifest.sha256)
    assert (model.runtime, model.file_bytes) == ("onnxruntime", digits_package.size_bytes)
    assert model.runtime_version
    assert model.load_seconds > 0
    assert model.peak_bytes > model.library_bytes > 0
    assert found.conditions.threads == (1,)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Measurement) == found


def test_without_a_baseline_there_is_no_ratio(misbehaving: Callable[..., ModelPackage], rows: Tensors) -> None:
    seen: list[tuple[int, int]] = []
    found = measure(
        misbehaving(),
        inputs=rows,
        row_sizes=[4, 1, 4],
        seconds=SHORT_S,
        progress=lambda done, of, _: seen.append((done, of)),
    )
    assert found.baseline is None
    assert [(figures.rows, figures.ratio) for figures in found.rows] == [(1, None), (4, None)]
    assert seen == [(0, 2), (1, 2), (2, 2)]
    # The version is that of the plug-in, for a runtime that nobody knows; here only the children have it.
    assert found.candidate.runtime == "misbehaving"
    with pytest.raises(CompressionError, match="no baseline"):
        faster(found, 1)


def test_who_sleeps_longer_is_slower(misbehaving: Callable[..., ModelPackage], rows: Tensors) -> None:
    quick, slow = misbehaving("quick", sleep_s=0.001), misbehaving("slow", sleep_s=0.03)
    found = measure(quick, slow, inputs=rows, row_sizes=(1,), seconds=SHORT_S)
    assert faster(found, 1)


@pytest.mark.parametrize(("low", "expected"), [(0.9, False), (1.0, False), (SAME, False), (1.03, True)])
def test_faster_is_what_even_the_low_end_says(low: float, expected: bool) -> None:
    assert faster(compared(low), 8) is expected


def test_what_was_not_measured_is_not_guessed() -> None:
    with pytest.raises(CompressionError, match=r"batches of 9 rows were not measured; those of 8, 64 were"):
        faster(compared(2.0), 9)


@pytest.mark.parametrize(
    ("misbehaviour", "message"),
    [
        ("segfault", r"misbehaving 1 \(misbehaving\) crashed with SIGSEGV while it ran batches of 4 rows"),
        ("kill", r"crashed with SIGKILL while it ran batches of 4 rows; often there is not enough memory"),
        ("exit", r"ended its process while it ran batches of 4 rows.*\(its last words: no more of this\)"),
        ("raise", r"it failed while it ran batches of 4 rows: these rows are odd$"),
        ("memory", r"it failed while it ran batches of 4 rows: no room for so many"),
    ],
)
def test_a_model_that_misbehaves_is_an_error_that_says_how(
    misbehaving: Callable[..., ModelPackage], rows: Tensors, misbehaviour: str, message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        measure(misbehaving(misbehaviour=misbehaviour, at=4), inputs=rows, row_sizes=(1, 4), seconds=SHORT_S)


def test_a_model_that_hangs_is_given_up(misbehaving: Callable[..., ModelPackage], rows: Tensors) -> None:
    with pytest.raises(CompressionError, match=r"nothing was heard for 0\.5 s while it was loaded"):
        measure(misbehaving(misbehaviour="hang", at=0), inputs=rows, answer_s=0.5)


def test_a_crash_while_loading_is_told_apart(misbehaving: Callable[..., ModelPackage], rows: Tensors) -> None:
    with pytest.raises(CompressionError, match="crashed with SIGSEGV while it was loaded"):
        measure(misbehaving(misbehaviour="segfault", at=0), inputs=rows)


def test_a_library_may_talk_on_standard_output(
    misbehaving: Callable[..., ModelPackage], rows: Tensors, capfd: pytest.CaptureFixture[str]
) -> None:
    found = measure(misbehaving(misbehaviour="chatter"), inputs=rows, row_sizes=(1,), seconds=SHORT_S)
    assert found.rows[0].candidate.runs
    assert capfd.readouterr().out == ""


def test_a_runtime_that_nobody_has_is_named(tmp_path: Path, rows: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(CompressionError, match="no runtime is called 'misbehaving'"):
        measure(package_of(tmp_path / "misbehaving"), inputs=rows)


def test_rows_that_do_not_fit_are_refused_before_anything_starts(digits_package: ModelPackage) -> None:
    with pytest.raises(DataError, match="the rows to measure digits with don't fit it: input 'image' is missing"):
        measure(digits_package, inputs={"x": np.ones((3, 2), np.float32)})


@pytest.mark.parametrize("sizes", [(), (0, 1), (-1,)])
def test_impossible_row_sizes_are_refused(digits_package: ModelPackage, digits: Dataset, sizes: tuple[int]) -> None:
    with pytest.raises(CompressionError, match="row sizes of at least 1"):
        measure(digits_package, inputs=digits.inputs, row_sizes=sizes)


def test_a_damaged_package_is_refused(misbehaving: Callable[..., ModelPackage], rows: Tensors) -> None:
    package = misbehaving()
    package.file.write_text("{ }")
    with pytest.raises(PackageError, match="does not match its checksum"):
        measure(package, inputs=rows)


def test_a_model_under_measurement_dies_with_whoever_measures(
    misbehaving: Callable[..., ModelPackage], tmp_path: Path
) -> None:
    package = misbehaving(misbehaviour="hang")
    code = f"""
        from pathlib import Path
        import numpy as np
        from headrace.compression.benchmarking.compare import measure
        from headrace.contracts import read_package
        measure(read_package(Path({str(package.folder)!r})), inputs={{"x": np.ones((1, 2), np.float32)}})
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        child = psutil.Process(_pid_of_hanging(package, parent))
        parent.send_signal(signal.SIGKILL)
        child.wait(30)
    finally:
        parent.kill()
        parent.wait()
    assert not child.is_running()


def _pid_of_hanging(package: ModelPackage, parent: subprocess.Popen[bytes]) -> int:
    """Wait until the model hangs, and return the process it hangs in."""
    file = package.folder / "pid"
    eventually(lambda: file.exists() or parent.poll() is not None, 120, "the model to hang")
    assert parent.poll() is None
    return int(file.read_text())


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=30))
def test_a_ratio_lies_in_its_interval_and_turns_over_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    baseline, candidate = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ratio = ratio_of(baseline, candidate)
    assert ratio.low <= ratio.median <= ratio.high
    assert ratio.pairs == len(pairs)
    assert ratio_of(baseline, candidate) == ratio
    assert ratio_of([3 * seconds for seconds in baseline], candidate).median == pytest.approx(3 * ratio.median)


@given(st.lists(SECONDS, min_size=1, max_size=30))
def test_a_model_is_as_fast_as_itself(blocks: list[float]) -> None:
    ratio = ratio_of(blocks, blocks)
    assert (ratio.low, ratio.median, ratio.high) == (1, 1, 1)


def test_a_disturbance_that_lasts_cancels_out_of_the_ratio() -> None:
    pace = [1.0] * 5 + [4.0] * 5
    ratio = ratio_of([0.02 * slow for slow in pace], [0.01 * slow for slow in pace])
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((2, 2, 2))


def test_runs_that_were_interrupted_do_not_count_as_the_time_of_a_run() -> None:
    clock = (0.002,) * 4 + (0.010,) * 6
    timing = timing_of(8, [Block(clock, clock, 0), Block(clock[1:], clock[1:], 0)])
    assert (timing.seconds, timing.rows_per_second) == pytest.approx((0.002, 4000))
    assert (timing.median_seconds, timing.p95_seconds, timing.runs) == (0.010, 0.010, 19)


def test_time_that_others_had_the_core_for_is_not_that_of_a_run() -> None:
    timing = timing_of(8, [Block((0.010, 0.012, 0.014), (0.004, 0.004, 0.004), 0)])
    assert (timing.seconds, timing.median_seconds) == pytest.approx((0.004, 0.012))


def test_rows_are_repeated_in_order_and_may_be_written_to() -> None:
    spec = TensorSpec(name="x", datatype="FP32")
    given = np.arange(3, dtype=np.float32)
    given.flags.writeable = False
    found = tiled({"x": given}, 7, [spec])["x"]
    assert found.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert found.flags.writeable
    assert tiled({"x": given}, 2, [spec])["x"].tolist() == [0, 1]
