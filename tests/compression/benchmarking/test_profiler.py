"""What a profile measures, what it advises, and what it leaves in the package."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compression.misbehaving_packages import install, package_of

from headrace.compression.benchmarking.batch_advice import Point, advise, fit_line
from headrace.compression.benchmarking.profiler import Profile, default_threads, profile, write_profile
from headrace.compression.data.dataset import Dataset
from headrace.compression.data.random_rows import random_rows
from headrace.compression.errors import CompressionError, DataError
from headrace.contracts import ModelPackage, PackageError, TensorSpec, read_package
from headrace.contracts.package.manifest import write_manifest
from headrace.contracts.package.processor import place_of
from headrace.lifecycle.packages.batch_sizes import WORKER_S, knee_of

#: Enough for a figure, and too little for one to rely on.
SHORT_S = 0.01

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Curve = list[tuple[int, float]]


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModelPackage]:
    """Make packages that behave as asked."""
    install(tmp_path / "plugin", monkeypatch)
    return lambda **says: package_of(tmp_path / "misbehaving", **says)


@pytest.fixture
def own_digits(digits_package: ModelPackage, tmp_path: Path) -> ModelPackage:
    """A package of this test's own."""
    return read_package(shutil.copytree(digits_package.folder, tmp_path / "models/digits/1"))


def curve(seconds: Callable[[int], float], sizes: Sequence[int] = SIZES) -> Curve:
    return [(rows, seconds(rows)) for rows in sizes]


def points(threads: int, seconds: Callable[[int], float], sizes: Sequence[int] = SIZES) -> list[Point]:
    return [Point(threads, rows, took, took, took, rows / took, 1000) for rows, took in curve(seconds, sizes)]


@given(st.floats(0, 1), st.floats(1e-6, 1), st.sets(st.integers(1, 512), min_size=2, max_size=12))
def test_a_line_is_found_again(fixed: float, per_row: float, sizes: set[int]) -> None:
    found = fit_line([(rows, fixed + per_row * rows) for rows in sizes])
    assert found == pytest.approx((fixed, per_row), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("outlier", range(len(SIZES)))
def test_one_disturbed_size_hardly_bends_the_line(outlier: int) -> None:
    taken = curve(lambda rows: 0.008 + 0.001 * rows)
    taken[outlier] = (taken[outlier][0], 50 * taken[outlier][1])
    assert fit_line(taken) == pytest.approx((0.008, 0.001), rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(1e-6, 100)), min_size=1, max_size=12))
def test_a_line_never_has_a_negative_part_and_always_takes_time(taken: Curve) -> None:
    fixed, per_row = fit_line(taken)
    assert fixed >= 0
    assert per_row >= 0
    assert fixed + per_row > 0


def test_one_size_alone_counts_as_per_row() -> None:
    assert fit_line([(8, 0.004)]) == (0, 0.0005)


def test_the_advice_is_the_knee_of_the_best_threads_with_the_line_up_to_it() -> None:
    advice = advise([*points(1, lambda rows: 0.02 + 0.004 * rows), *points(2, lambda rows: 0.02 + 0.0025 * rows)])
    assert (advice.threads, advice.knee_rows) == (2, 64)
    assert (advice.seconds_fixed, advice.seconds_per_row) == pytest.approx((0.02, 0.0025))
    # Half of the fixed part is the longest wait that can pay.
    assert advice.max_wait_ms == pytest.approx(10)


def test_threads_that_bring_little_are_not_advised() -> None:
    assert advise([*points(1, lambda rows: 0.001 * rows), *points(4, lambda rows: 0.00095 * rows)]).threads == 1


def test_batches_of_a_tiny_model_are_large_because_each_costs_the_worker_something() -> None:
    advice = advise(points(1, lambda rows: 1e-5 * rows))
    assert advice.knee_rows == 1
    assert advice.max_rows == knee_of(curve(lambda rows: WORKER_S + 1e-5 * rows)) == 256
    assert advise(points(1, lambda rows: 0.1 * rows)).max_rows == 1


def test_the_line_leaves_out_sizes_that_no_worker_will_run() -> None:
    advice = advise(points(1, lambda rows: 0.04 + 0.01 * rows if rows <= 32 else 0.1 * rows))
    assert advice.max_rows == 32
    assert (advice.seconds_fixed, advice.seconds_per_row) == pytest.approx((0.04, 0.01))


def test_nobody_is_advised_to_wait_for_ever() -> None:
    assert advise(points(1, lambda _: 60.0)).max_wait_ms == 50


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 256), st.floats(1e-6, 100)), min_size=1, max_size=20))
def test_any_points_give_advice_that_a_package_can_hold(taken: list[tuple[int, int, float]]) -> None:
    advice = advise([Point(threads, rows, took, took, took, rows / took, 0) for threads, rows, took in taken])
    assert advice.threads in {threads for threads, _, _ in taken}
    assert advice.max_rows in {rows for threads, rows, _ in taken if threads == advice.threads}
    assert advice.seconds_fixed >= 0
    assert advice.seconds_per_row >= 0
    assert 0 <= advice.max_wait_ms <= 50


def test_default_threads_double_from_one() -> None:
    assert default_threads()[0] == 1
    assert all(after == 2 * before for before, after in zip(default_threads(), default_threads()[1:], strict=False))


def test_a_profile_has_a_point_for_each_size_and_number_of_threads(
    digits_package: ModelPackage, digits: Dataset
) -> None:
    shares: list[float] = []
    found = profile(
        digits_package,
        rows=(4, 1),
        threads=(2, 1),
        inputs=digits.inputs,
        seconds=SHORT_S,
        watch=lambda _, share: shares.append(share),
    )
    assert [(point.threads, point.rows) for point in found.points] == [(1, 1), (1, 4), (2, 1), (2, 4)]
    assert all(point.seconds > 0 and 0 < point.median_seconds <= point.p95_seconds for point in found.points)
    assert all(point.peak_bytes > found.library_bytes > 0 for point in found.points)
    assert (found.model, found.version, found.runtime, found.inputs) == ("digits", "1", "onnxruntime", "given")
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert msgspec.json.decode(msgspec.json.encode(found), type=Profile) == found


def test_the_package_keeps_the_advice_and_the_figures_and_its_checksum(own_digits: ModelPackage) -> None:
    found = profile(own_digits, rows=(1, 2), threads=(1,), seconds=SHORT_S)
    written = write_profile(own_digits, found)
    written.verify()
    batching = read_package(own_digits.folder).manifest.batching
    assert batching.max_rows == found.advice.max_rows
    assert (batching.seconds_fixed, batching.seconds_per_row) == (
        found.advice.seconds_fixed,
        found.advice.seconds_per_row,
    )
    assert (batching.threads, batching.measured_on) == (1, place_of("cpu"))
    assert batching.max_wait_ms == own_digits.manifest.batching.max_wait_ms
    record = written.manifest.provenance["profile"]
    assert record["processor"] == found.conditions.processor
    assert [(point["threads"], point["rows"]) for point in record["points"]] == [(1, 1), (1, 2)]
    assert written.manifest.provenance["seed"] == own_digits.manifest.provenance["seed"]
    assert sorted(path.name for path in own_digits.folder.iterdir()) == ["model.onnx", "model.toml"]


def test_the_profile_of_another_model_is_not_written(own_digits: ModelPackage) -> None:
    found = profile(own_digits, rows=(1,), threads=(1,), seconds=SHORT_S)
    before = (own_digits.folder / "model.toml").read_bytes()
    with pytest.raises(PackageError, match="another model than the one that was measured"):
        write_profile(own_digits, msgspec.structs.replace(found, sha256="0" * 64))
    # What stands in the way of the new file could as well be a full disk.
    (own_digits.folder / ".model.toml").mkdir()
    with pytest.raises(PackageError, match=r"can't be written: .* the profile is not kept"):
        write_profile(own_digits, found)
    assert (own_digits.folder / "model.toml").read_bytes() == before


def test_the_climb_ends_where_memory_does(misbehaving: Callable[..., ModelPackage]) -> None:
    found = profile(misbehaving(misbehaviour="memory", at=8), rows=(1, 4, 8, 16), threads=(1,), seconds=SHORT_S)
    assert [point.rows for point in found.points] == [1, 4]
    assert "batches of 8 rows or more were left out" in found.notes[0]
    assert found.advice.max_rows <= 4


def test_a_model_without_memory_for_one_row_has_no_profile(misbehaving: Callable[..., ModelPackage]) -> None:
    with pytest.raises(CompressionError, match="no room for so many"):
        profile(misbehaving(misbehaviour="memory"), rows=(1, 4), threads=(1,), seconds=SHORT_S)


def test_fixed_sizes_are_the_only_ones_that_are_measured(misbehaving: Callable[..., ModelPackage]) -> None:
    package = misbehaving(row_sizes=(4, 8))
    assert [point.rows for point in profile(package, threads=(1,), seconds=SHORT_S).points] == [4, 8]
    with pytest.raises(CompressionError, match="runs batches of 4, 8 rows only"):
        profile(package, rows=(1, 4), threads=(1,))


def test_random_rows_have_a_size_where_the_model_leaves_it_open(misbehaving: Callable[..., ModelPackage]) -> None:
    found = profile(misbehaving(shape=(-1,)), rows=(1,), threads=(1,), seconds=SHORT_S)
    assert found.inputs == "random"
    assert found.points


def test_a_model_that_refuses_all_random_rows_asks_for_real_ones(
    misbehaving: Callable[..., ModelPackage], digits: Dataset
) -> None:
    package = misbehaving(shape=(-1,), misbehaviour="raise")
    with pytest.raises(CompressionError, match="these rows are odd; give it real rows to run"):
        profile(package, rows=(1,), threads=(1,))
    with pytest.raises(DataError, match="input 'x' is missing"):
        profile(package, inputs=digits.inputs, threads=(1,))


def with_specs(package: ModelPackage, *specs: TensorSpec) -> ModelPackage:
    write_manifest(package.folder, msgspec.structs.replace(package.manifest, inputs=specs))
    return read_package(package.folder)


def test_sizes_that_are_known_to_run_are_the_ones_measured(misbehaving: Callable[..., ModelPackage]) -> None:
    package = misbehaving(shape=(-1, -1))
    sized = partial(TensorSpec, name="x", datatype="FP32", shape=(-1, -1), sample_shape=(5, 9))
    named = with_specs(package, sized(symbols=("len", "")))
    found = profile(named, rows=(1,), threads=(1,), seconds=SHORT_S)
    assert found.sizes == {"len": 5, "x[2]": 9}
    assert found.notes[0] == (
        "these figures are for len = 5, x[2] = 9, and other sizes take other times; measure rows like yours with "
        "--data FILE"
    )
    assert write_profile(named, found).manifest.provenance["profile"]["sizes"] == {"len": 5, "x[2]": 9}
    moved = with_specs(package, sized(rows_at=1))
    assert profile(moved, rows=(1,), threads=(1,), seconds=SHORT_S).sizes == {"x[0]": 5, "x[2]": 9}


def test_sizes_of_real_rows_are_named_and_nothing_more_asked_for(misbehaving: Callable[..., ModelPackage]) -> None:
    inputs = {"x": np.ones((4, 7), np.float32)}
    found = profile(misbehaving(shape=(-1,)), rows=(1,), threads=(1,), inputs=inputs, seconds=SHORT_S)
    assert found.sizes == {"x[1]": 7}
    assert not any("--data" in note for note in found.notes)


def test_sizes_that_never_vary_are_not_named(misbehaving: Callable[..., ModelPackage]) -> None:
    found = profile(misbehaving(), rows=(1,), threads=(1,), seconds=SHORT_S)
    assert found.sizes == {}
    assert not any("figures are for" in note for note in found.notes)


def test_sizes_of_one_name_are_the_same_in_every_input() -> None:
    length = partial(TensorSpec, datatype="FP32", shape=(-1,), symbols=("len",))
    specs = (
        length(name="a", sample_shape=(6,)),
        length(name="b"),
        TensorSpec(name="k", datatype="INT64", per_request=True),
        TensorSpec(name="left", datatype="FP32", shape=(2,), optional=True),
    )
    made = random_rows(specs, 3, 16)
    assert {name: array.shape for name, array in made.items()} == {"a": (3, 6), "b": (3, 6), "k": ()}
