"""Checks for every runtime on a model with rows at another axis, a factor for each request, and fixed rows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.runtimes import recurrent
from tests.runtimes.conftest import RUNTIMES, package_of

from headrace.contracts import ModelPackage, PackageError, Tensors
from headrace.contracts.package.manifest import BatchingAdvice, Constant
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.loading import load_model

#: All compute in FP32, in another order.
TOLERANCE = 1e-4

FOUR = BatchingAdvice(max_rows=4, row_sizes=(4,))


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, runtime: str) -> dict[str, ModelPackage]:
    """The model that takes any number of rows, and the one that takes four, to which batches are padded."""

    def made(rows: int | str, **changes: Any) -> ModelPackage:
        folder = tmp_path_factory.mktemp("models") / "recurrent" / "1"
        folder.mkdir(parents=True)
        files = recurrent.WRITERS[runtime](folder, rows)
        return package_of(folder, runtime, *files, inputs=recurrent.INPUTS, outputs=recurrent.OUTPUTS, **changes)

    return {"free": made("rows"), "fixed": made(4, batching=FOUR)}


@pytest.fixture(params=["free", "fixed"])
def package(packages: dict[str, ModelPackage], request: pytest.FixtureRequest) -> ModelPackage:
    return packages[request.param]


@pytest.fixture
def model(package: ModelPackage) -> Iterator[LoadedModel]:
    loaded = load_model(package, "cpu", 1)
    yield loaded
    loaded.close()


def with_manifest(package: ModelPackage, **changes: Any) -> ModelPackage:
    return msgspec.structs.replace(package, manifest=msgspec.structs.replace(package.manifest, **changes))


def assert_answers(found: Tensors, inputs: Tensors) -> None:
    expected = recurrent.answer(**inputs)
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], array, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 64])
def test_the_rows_of_every_tensor_are_where_they_were(model: LoadedModel, rows: int) -> None:
    inputs = recurrent.request(rows)
    assert_answers(model.infer(inputs), inputs)


def test_the_number_of_rows_and_the_factor_may_change_from_batch_to_batch(model: LoadedModel) -> None:
    for step, rows in enumerate([8, 1, 7, 4, 2, 1, 33]):
        inputs = recurrent.request(rows, step) | {"k": np.array([step], np.float32)}
        assert_answers(model.infer(inputs), inputs)


def test_a_row_has_the_same_answer_alone_and_among_others(model: LoadedModel) -> None:
    inputs = recurrent.request(9)
    together = model.infer(inputs)
    for row in range(9):
        alone = model.infer(recurrent.cut(inputs, row, row + 1))
        for name, array in recurrent.cut(together, row, row + 1).items():
            np.testing.assert_allclose(alone[name], array, rtol=TOLERANCE, atol=TOLERANCE)


def test_extreme_neighbours_change_nothing(model: LoadedModel) -> None:
    inputs = recurrent.request(4)
    beside = {name: array.copy() for name, array in inputs.items()}
    beside["x"][1:] = np.nan
    beside["h"][:, 1:] = np.inf
    alone, found = model.infer(inputs), model.infer(beside)
    for name, array in recurrent.cut(alone, 0, 1).items():
        np.testing.assert_allclose(recurrent.cut(found, 0, 1)[name], array, rtol=TOLERANCE, atol=TOLERANCE)


def test_a_result_is_not_overwritten_by_the_next_run(model: LoadedModel) -> None:
    first = model.infer(recurrent.request(4, 1))
    kept = {name: array.copy() for name, array in first.items()}
    model.infer(recurrent.request(4, 2))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])


def test_inputs_may_be_read_only_and_strided(model: LoadedModel) -> None:
    inputs = recurrent.request(6)
    strided = {"x": np.repeat(inputs["x"], 2, axis=1)[:, ::2], "h": np.repeat(inputs["h"], 2, axis=1)[:, ::2]}
    for array in (*strided.values(), inputs["k"]):
        array.flags.writeable = False
    assert_answers(model.infer(strided | {"k": inputs["k"]}), inputs)


def test_the_state_of_one_answer_is_the_input_of_the_next(model: LoadedModel) -> None:
    state = recurrent.request(3)["h"]
    expected = state
    for step in range(5):
        inputs = recurrent.request(3, step)
        state = model.infer(inputs | {"h": state})["h1"]
        expected = recurrent.answer(**(inputs | {"h": expected}))["h1"]
    np.testing.assert_allclose(state, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"h": np.zeros((2, 6, 4), np.float32)},
        {"h": np.zeros((4, 2, 4), np.float32)},
        {"k": np.zeros(2, np.float32)},
        {"k": np.zeros((), np.float32)},
        {"x": np.zeros((4, 5), np.float32)},
    ],
    ids=["rows", "axis", "factor", "rank", "size"],
)
def test_inputs_that_do_not_fit_are_refused_and_the_model_goes_on(
    packages: dict[str, ModelPackage], wrong: Tensors
) -> None:
    model = load_model(packages["free"], "cpu", 1)
    model.infer(recurrent.request(4))
    with pytest.raises(Exception, match=r"(?i)input|feed|rank|dimension|expected|broadcast"):
        model.infer(recurrent.request(4) | wrong)
    assert_answers(model.infer(recurrent.request(3)), recurrent.request(3))
    model.close()


def test_a_factor_that_the_package_sets_is_in_no_request(package: ModelPackage, runtime: str) -> None:
    constants = (Constant(name="k", datatype="FP32", value=[3.0]),)
    changed = with_manifest(package, inputs=recurrent.INPUTS[:2], constants=constants)
    if runtime == "tvm":
        with pytest.raises(PackageError, match="knows its inputs by their order only"):
            load_model(changed, "cpu", 1)
        return
    model = load_model(changed, "cpu", 1)
    inputs = recurrent.request(5)
    factor = inputs.pop("k")
    assert_answers(model.infer(inputs), inputs | {"k": np.full_like(factor, 3)})
    model.close()


def test_two_models_in_two_threads_do_not_disturb_each_other(packages: dict[str, ModelPackage]) -> None:
    def serve(seed: int) -> bool:
        mine = load_model(packages["free"], "cpu", 1)
        for _ in range(10):
            for rows in range(1, 6):
                inputs = recurrent.request(rows, seed)
                assert_answers(mine.infer(inputs), inputs)
        mine.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(serve, range(2)))


def test_a_file_of_four_rows_is_refused_where_the_package_says_any(
    packages: dict[str, ModelPackage], runtime: str
) -> None:
    package = with_manifest(packages["fixed"], batching=BatchingAdvice())
    # A library of TVM doesn't tell its sizes; it is tried with one row.
    words = "can't run 1 rows" if runtime == "tvm" else r"takes exactly 4 rows.*row_sizes = \[4\]"
    with pytest.raises(PackageError, match=words):
        load_model(package, "cpu", 1)
