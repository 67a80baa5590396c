"""Checks that hold for every runtime, on the same small model: the contract of `headrace.runtimes.base`."""

from __future__ import annotations

import gc
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest
from tests.runtimes.conftest import INPUTS, OUTPUTS, RUNTIMES, WRITERS, package_of

from headrace.contracts import ConfigurationError, ModelPackage, PackageError, Tensors
from headrace.contracts.package.manifest import BatchingAdvice, StoreAdvice
from headrace.contracts.package.signature import TensorSpec
from headrace.runtimes.base import LoadedModel, Runtime, find_runtime
from headrace.runtimes.loading import load_model

#: Largest difference of a score from ONNX Runtime's; all compute in FP32, in another order.
TOLERANCE = 1e-5

#: Runs may leave this much behind, in all: allocators keep some pages. A result is 3 kB, so 2,000 are 6 MB.
GROWTH_BYTES = 4 << 20

EXTRAS = {
    "onnxruntime": ("onnxruntime", "worker", "onnx"),
    "torch": ("torch", "torch", "torch_program"),
    "openvino": ("openvino", "openvino", "openvino_model"),
    "litert": ("ai_edge_litert", "litert", "litert_file"),
    "tvm": ("tvm", "tvm", "tvm_library"),
}


def load(package: ModelPackage) -> LoadedModel:
    return load_model(package, "cpu", 1)


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 1, 8, 8)).astype(np.float32)


@pytest.fixture
def model(package: ModelPackage) -> Iterator[LoadedModel]:
    loaded = load(package)
    yield loaded
    loaded.close()


@pytest.fixture
def reference(packages: Callable[[str], ModelPackage]) -> Iterator[LoadedModel]:
    loaded = load(packages("onnxruntime"))
    yield loaded
    loaded.close()


def assert_alike(found: Tensors, expected: Tensors) -> None:
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=0, atol=TOLERANCE)
    # Where two scores are nearly the same either label is right.
    best, second = np.sort(expected["scores"])[:, :-3:-1].T
    clear = best - second > 2 * TOLERANCE
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found["label"][clear], expected["label"][clear])


@pytest.mark.parametrize("rows", [1, 3, 64, 257])
def test_rows_in_are_rows_out_and_the_answers_are_those_of_onnx_runtime(
    model: LoadedModel, reference: LoadedModel, rows: int
) -> None:
    outputs = model.infer({"image": images(rows)})
    assert {name: (array.shape, array.dtype) for name, array in outputs.items()} == {
        "label": ((rows,), np.dtype(np.int64)),
        "scores": ((rows, 10), np.dtype(np.float32)),
    }
    assert_alike(outputs, reference.infer({"image": images(rows)}))


def test_the_number_of_rows_may_change_from_batch_to_batch(model: LoadedModel, reference: LoadedModel) -> None:
    for step, rows in enumerate([64, 1, 7, 64, 2, 1, 1, 33]):
        assert_alike(model.infer({"image": images(rows, step)}), reference.infer({"image": images(rows, step)}))


def test_a_row_has_the_same_answer_alone_and_among_others(model: LoadedModel) -> None:
    batch = model.infer({"image": images(17)})
    alone = [model.infer({"image": images(17)[row : row + 1]}) for row in range(17)]
    np.testing.assert_allclose(batch["scores"], np.concatenate([one["scores"] for one in alone]), atol=TOLERANCE)


def test_a_result_is_not_overwritten_by_the_next_run_and_belongs_to_the_caller(model: LoadedModel) -> None:
    first = model.infer({"image": images(5, 1)})
    kept = {name: array.copy() for name, array in first.items()}
    second = model.infer({"image": images(5, 2)})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not np.shares_memory(array, second[name])


def test_inputs_stay_as_they_are_and_may_be_read_only_or_strided(model: LoadedModel, reference: LoadedModel) -> None:
    expected = reference.infer({"image": images(6)})
    read_only = np.frombuffer(images(6).tobytes(), np.float32).reshape(6, 1, 8, 8)
    assert_alike(model.infer({"image": read_only}), expected)
    strided = np.repeat(images(6), 2, axis=3)[..., ::2]
    assert_alike(model.infer({"image": strided}), expected)
    np.testing.assert_array_equal(strided, images(6))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"picture": images(2)},
        {"image": images(2), "other": images(2)},
        {"image": images(2)[..., :7]},
        {"image": images(2)[:, 0]},
        {"image": images(2).astype(np.float64)},
        {"image": images(2).astype(np.int32)},
    ],
    ids=["missing", "unknown", "extra", "size", "dimensions", "FP64", "INT32"],
)
def test_inputs_that_do_not_fit_are_refused_and_the_model_goes_on(
    model: LoadedModel, reference: LoadedModel, wrong: Tensors
) -> None:
    model.infer({"image": images(2, 9)})
    with pytest.raises(Exception, match=r"(?i)input|feed|rank|dimension|expected"):
        model.infer(wrong)
    assert_alike(model.infer({"image": images(3)}), reference.infer({"image": images(3)}))


def test_two_models_in_two_threads_do_not_disturb_each_other(package: ModelPackage, reference: LoadedModel) -> None:
    expected = [reference.infer({"image": images(rows, rows)}) for rows in range(1, 9)]
    together = threading.Barrier(2)

    def serve(_: int) -> list[Tensors]:
        mine = load(package)
        together.wait(60)
        answers = [mine.infer({"image": images(rows, rows)}) for _ in range(20) for rows in range(1, 9)]
        mine.close()
        return answers

    with ThreadPoolExecutor(2) as pool:
        for answers in pool.map(serve, range(2)):
            for number, answer in enumerate(answers):
                assert_alike_enough(answer, expected[number % 8])


def assert_alike_enough(found: Tensors, expected: Tensors) -> None:
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=0, atol=TOLERANCE)


def test_a_model_that_was_loaded_in_one_thread_runs_in_another(model: LoadedModel, reference: LoadedModel) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert_alike(pool.submit(model.infer, {"image": images(4)}).result(), reference.infer({"image": images(4)}))


def test_the_first_call_of_any_size_is_right(package: ModelPackage, reference: LoadedModel) -> None:
    for rows in (1, 64):
        model = load(package)
        assert_alike(model.infer({"image": images(rows)}), reference.infer({"image": images(rows)}))
        model.close()


def test_closing_twice_is_allowed_and_a_closed_model_says_so(package: ModelPackage) -> None:
    model = load(package)
    model.infer({"image": images(1)})
    model.close()
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.infer({"image": images(1)})


def test_two_thousand_runs_leave_no_memory_behind(model: LoadedModel) -> None:
    process, batch = psutil.Process(), {"image": images(64)}
    for _ in range(200):
        model.infer(batch)
    gc.collect()
    before = process.memory_info().rss
    for _ in range(2000):
        model.infer(batch)
    gc.collect()
    assert process.memory_info().rss - before < GROWTH_BYTES


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, runtime: str) -> None:
    folder = tmp_path / "small" / "1"
    folder.mkdir(parents=True)
    files = [folder / file.name for file in WRITERS[runtime](folder)]
    files[0].write_bytes(b"no model at all " * 20)
    with pytest.raises(PackageError, match=re.escape(str(files[0]))) as caught:
        load(package_of(folder, runtime, *files))
    assert "\n" not in caught.value.message


def test_a_file_with_fewer_outputs_than_the_package_says_is_refused(package: ModelPackage) -> None:
    more = (*OUTPUTS, TensorSpec(name="extra", datatype="FP32"))
    with pytest.raises(PackageError, match=r"extra"):
        load(with_manifest(package, outputs=more))


def test_a_file_with_fewer_inputs_than_the_package_says_is_refused(package: ModelPackage) -> None:
    more = (*INPUTS, TensorSpec(name="extra", datatype="FP32"))
    with pytest.raises(PackageError, match=r"extra|1 inputs, but model\.toml lists 2"):
        load(with_manifest(package, inputs=more))


@pytest.mark.parametrize("datatype", ["BYTES", "BF16"])
@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "onnxruntime"])
def test_datatypes_that_a_runtime_can_not_take_are_named(
    packages: Callable[[str], ModelPackage], runtime: str, datatype: str
) -> None:
    changed = (TensorSpec(name="image", datatype=datatype, shape=(1, 8, 8)),)
    with pytest.raises(PackageError, match=rf"'image' of {datatype}, which .* can't take; serve .* onnxruntime"):
        load(with_manifest(packages(runtime), inputs=changed))


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name != "onnxruntime"])
def test_other_datatypes_than_the_file_has_are_refused(packages: Callable[[str], ModelPackage], runtime: str) -> None:
    changed = (OUTPUTS[0], TensorSpec(name="scores", datatype="INT16", shape=(10,)))
    with pytest.raises(PackageError, match=r"'scores' of FP32, but model\.toml says INT16"):
        load(with_manifest(packages(runtime), outputs=changed))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("device", ["", "tpu", "cpu:1", "cuda:x", "gpu:"])
def test_a_device_that_does_not_exist_is_refused(runtime: str, device: str) -> None:
    with pytest.raises(ConfigurationError, match=r"does not exist.*; use cpu"):
        find_runtime(runtime, device, 1)


@pytest.mark.parametrize(
    ("runtime", "device"), [("torch", "cuda:7"), ("openvino", "gpu:7"), ("openvino", "npu"), ("tvm", "cuda:7")]
)
def test_a_device_that_is_absent_is_named_with_what_to_do(runtime: str, device: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"device '{device}' is not here.*--device cpu"):
        find_runtime(runtime, device, 1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    library, extra, module = EXTRAS[runtime]
    monkeypatch.delitem(sys.modules, f"headrace.runtimes.local.{module}", raising=False)
    for name in [name for name in sys.modules if name == library or name.startswith(f"{library}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf'needs {library}\S*, which is not .* "headrace\[{extra}\]"'):
        find_runtime(runtime, "cpu", 1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_is_one_by_its_protocol(runtime: str) -> None:
    assert isinstance(find_runtime(runtime, "cpu", 0), Runtime)


@pytest.mark.parametrize("runtime", ["torch", "openvino", "litert"])
def test_a_frozen_number_of_rows_is_refused_unless_batches_are_padded_to_it(
    tmp_path: Path, reference: LoadedModel, runtime: str
) -> None:
    rows = 1 if runtime == "litert" else 4
    folder = tmp_path / "small" / "1"
    folder.mkdir(parents=True)
    frozen = package_of(folder, runtime, *WRITERS[runtime](folder, rows))
    with pytest.raises(PackageError, match=rf"takes exactly {rows} rows.*row_sizes = \[{rows}\]"):
        load(frozen)
    model = load(with_manifest(frozen, batching=BatchingAdvice(max_rows=rows, row_sizes=(rows,))))
    for count in (1, rows, 11):
        assert_alike_enough(model.infer({"image": images(count)}), reference.infer({"image": images(count)}))
    with pytest.raises(ValueError, match="input"):
        model.infer({"image": images(rows)[..., :7]})
    model.close()


@pytest.mark.parametrize("keep", [("label",), ("scores",), ("scores", "label")])
def test_only_the_outputs_that_a_package_keeps_come_in_the_file_s_order(
    package: ModelPackage, reference: LoadedModel, keep: tuple[str, ...]
) -> None:
    model = load(with_manifest(package, store=StoreAdvice(keep=keep)))
    found, expected = model.infer({"image": images(5)}), reference.infer({"image": images(5)})
    assert list(found) == [name for name in ("label", "scores") if name in keep]
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_allclose(array, expected[name], atol=TOLERANCE)
    model.close()


def with_manifest(package: ModelPackage, **changes: Any) -> ModelPackage:
    return msgspec.structs.replace(package, manifest=msgspec.structs.replace(package.manifest, **changes))
