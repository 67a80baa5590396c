"""What of LiteRT needs no litert-torch: rows, int8, and the environment that isn't there."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from tests.compression.onnx_models import random

from headrace.compression.conversion.environment import converters_folder, litert_python, set_up_litert
from headrace.compression.conversion.litert import _CONVERTER, LiteRtExport, _run_converter
from headrace.compression.conversion.litert_int8 import full_int8, weights_int8
from headrace.compression.conversion.litert_rows import free_rows, rows_to_convert
from headrace.compression.errors import CompressionError, MissingLibrary, NotApplicable
from headrace.compression.networks.network import Network
from headrace.compression.steps import StepContext

TESTS = Path(__file__).parents[2]

#: A convolutional network with dynamic rows: [rows, 1, 8, 8] → label INT32 [rows], scores FP32 [rows, 10].
SMALL_NET = (TESTS / "runtimes/small_net.tflite").read_bytes()

#: Both were converted with so many rows.
ROWS = 11
FROZEN = (TESTS / "compression/litert_frozen.tflite").read_bytes()
EXPAND = (TESTS / "compression/litert_expand.tflite").read_bytes()


def run(content: bytes, array: NDArray[np.float32]) -> list[NDArray[np.generic]]:
    """Run a file as the runtime does: memory laid out for these rows, int8 converted at the edge."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], array.shape)
    interpreter.allocate_tensors()
    if given["dtype"] == np.int8:
        scale, zero = given["quantization"]
        interpreter.set_tensor(given["index"], np.clip(np.rint(array / scale) + zero, -128, 127).astype(np.int8))
    else:
        interpreter.set_tensor(given["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def dtypes(content: bytes) -> tuple[list[str], list[str]]:
    interpreter = Interpreter(model_content=content)
    details = interpreter.get_input_details(), interpreter.get_output_details()
    return tuple([detail["dtype"].__name__ for detail in each] for each in details)  # type: ignore[return-value]


def test_a_freed_file_takes_any_number_of_rows_and_gives_the_same() -> None:
    freed = free_rows(FROZEN, ROWS)
    many = random(64, 4, 8)
    want = np.concatenate([run(FROZEN, np.resize(many[i:], (ROWS, 4, 8)))[0] for i in range(0, 64, ROWS)])[:64]
    for rows in (64, 1, 3, 11):
        (have,) = run(freed, many[:rows])
        assert np.allclose(have, want[:rows], atol=1e-6)
    (detail,) = Interpreter(model_content=freed).get_input_details()
    assert detail["shape_signature"].tolist() == [-1, 4, 8]
    assert free_rows(FROZEN, ROWS) == freed


def test_what_holds_on_to_the_number_of_rows_is_named() -> None:
    with pytest.raises(CompressionError, match="BROADCAST_TO"):
        free_rows(EXPAND, ROWS)


def test_rows_are_told_from_all_other_sizes() -> None:
    assert rows_to_convert([3, 224, 64, -1, 0]) == 11
    assert rows_to_convert([22, 130, 768]) == 17
    with pytest.raises(CompressionError, match="different sizes"):
        rows_to_convert(range(100))


def test_int8_weights_are_smaller_and_nearly_the_same() -> None:
    freed = free_rows(FROZEN, ROWS)
    small = weights_int8(freed)
    assert len(small) < len(freed)
    inputs = random(3, 4, 8)
    assert np.allclose(run(small, inputs)[0], run(freed, inputs)[0], atol=0.05)
    assert weights_int8(freed) == small


@pytest.mark.parametrize(("results", "given"), [("float", "float32"), ("int8", "int8")])
def test_full_int8_takes_int8_and_gives_what_was_asked_for(results: Literal["float", "int8"], given: str) -> None:
    rows = {"image": random(64, 1, 8, 8)}
    small = full_int8(SMALL_NET, rows, results, threads=1)
    assert full_int8(SMALL_NET, rows, results, threads=1) == small
    inputs, outputs = dtypes(small)
    assert inputs == ["int8"]
    assert outputs == ["int32", given]
    many = random(64, 1, 8, 8, seed=1)
    labels, wanted = run(small, many)[0], run(SMALL_NET, many)[0]
    assert (labels == wanted).mean() > 0.9


def test_int8_of_several_inputs_and_many_rows_keeps_their_order(tmp_path: Path) -> None:
    freed = free_rows(FROZEN, ROWS)
    small = full_int8(freed, {"x": random(40, 4, 8)}, "float", threads=1)
    for rows in (1, 3, 64):
        assert run(small, random(rows, 4, 8))[0].shape == (rows, 5)


def test_without_the_environment_the_command_that_makes_it_is_named(
    digits_network: Network, context: StepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CONVERTERS", str(tmp_path / "none"))
    assert converters_folder() == tmp_path / "none"
    with pytest.raises(NotApplicable, match="headrace compress setup litert"):
        LiteRtExport().export(digits_network, context)
    monkeypatch.delenv("HEADRACE_CONVERTERS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert converters_folder() == tmp_path / ".cache/headrace"


def test_a_set_up_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # pip, told to look nowhere.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    said: list[str] = []
    with pytest.raises(CompressionError, match="No matching distribution"):
        set_up_litert(tmp_path / "converters", said.append)
    assert list((tmp_path / "converters").iterdir()) == []
    assert said[0].startswith("Making ")


def test_a_set_up_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable) as missing:
        litert_python(tmp_path)
    folder = next(Path(word) for word in str(missing.value).split() if word.startswith(str(tmp_path)))
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").touch()
    said: list[str] = []
    set_up_litert(tmp_path, said.append)
    assert said == [f"{folder} is there already"]
    assert litert_python(tmp_path) == folder / "bin/python"


def test_an_input_that_varies_beside_the_rows_is_refused(
    digits_network: Network, context: StepContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.compression.conversion.litert.litert_python", lambda: Path(sys.executable))
    varying = dataclasses.replace(digits_network, shapes=((1, -1, -1),))
    with pytest.raises(NotApplicable, match="varies in a dimension other than the rows"):
        LiteRtExport().export(varying, context)


def test_what_the_converter_says_comes_back(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"torch": "1", "inputs": []}')
    # This environment hasn't litert-torch, and the converter starts here as it would there.
    with pytest.raises(CompressionError, match="'digits' can't be converted to LiteRT: No module named 'litert_torch'"):
        _run_converter(Path(sys.executable), tmp_path, "digits")


def test_the_converter_needs_nothing_of_headrace(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"torch": "1", "inputs": []}')
    # -S leaves out what is installed, headrace among it.
    done = subprocess.run([sys.executable, "-I", "-S", str(_CONVERTER), str(tmp_path)], check=False)
    assert done.returncode == 1
    assert "litert_torch" in (tmp_path / "error.json").read_text()


def test_a_missing_library_is_named_with_its_extra(
    digits_network: Network, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.compression.conversion.verify.find_spec", lambda _name: None)
    with pytest.raises(MissingLibrary, match=r"headrace\[litert\]"):
        LiteRtExport().export(digits_network, context)
