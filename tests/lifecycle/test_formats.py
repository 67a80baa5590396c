"""Files of every format that is served, and the word for those that aren't."""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.runtimes.conftest import HERE, save_pt2, write_onnx, write_openvino, write_pt2, write_tvm

from headrace.contracts import ModelDirectory, PackageError
from headrace.lifecycle.packages.declared import DeclaredTensor
from headrace.lifecycle.packages.formats import take_in
from headrace.lifecycle.packages.formats.unsupported import REFUSED
from headrace.lifecycle.packages.registry import add_model
from headrace.runtimes.loading import load_model

SAVED_MODEL = HERE / "recurrent_saved_model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "package"
    made.mkdir()
    return made


def dims(tensors: tuple[DeclaredTensor, ...]) -> dict[str, object]:
    return {tensor.name: (tensor.datatype, tensor.dims) for tensor in tensors}


def images(rows: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(rows).normal(size=(rows, 1, 8, 8)).astype(np.float32)}


def recurrent_step(x: np.ndarray, h: np.ndarray, k: np.ndarray) -> dict[str, np.ndarray]:
    w = (np.arange(16, dtype=np.float32) / 16).reshape(4, 4)
    return {"y": (h.sum(0) + x) @ w * k, "h1": h + x[None]}


def recurrent_inputs(rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(rows)
    x, h = random.normal(size=(rows, 4)), random.normal(size=(2, rows, 4))
    return {"x": x.astype(np.float32), "h": h.astype(np.float32), "k": np.array([2.5], np.float32)}


def test_a_pt2_program_declares_its_symbols_and_numbers_a_tuple(tmp_path: Path, folder: Path) -> None:
    (file,) = write_pt2(tmp_path)
    model = take_in(file, folder)
    (image,) = model.inputs
    assert image.dims is not None
    rows = image.dims[0]
    assert isinstance(rows, str)
    assert (model.runtime, model.file, image.dims) == ("torch", "model.pt2", (rows, 1, 8, 8))
    assert dims(model.outputs) == {"output_0": ("INT64", (rows,)), "output_1": ("FP32", (rows, 10))}


def test_a_pt2_program_that_returns_a_dict_has_its_keys_as_names(tmp_path: Path, folder: Path) -> None:
    import torch

    class Named(torch.nn.Module):
        def forward(self, a: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"double": a * 2, "half": a / 2}

    rows = torch.export.Dim("rows")
    program = torch.export.export(Named(), (torch.rand(3, 2),), dynamic_shapes=({0: rows},))
    model = take_in(save_pt2(tmp_path, program), folder)
    assert [tensor.name for tensor in model.outputs] == ["double", "half"]


def test_a_pt2_program_of_bf16_says_what_can_not_be_taken(tmp_path: Path, folder: Path) -> None:
    import torch

    class Half(torch.nn.Module):
        def forward(self, a: torch.Tensor) -> torch.Tensor:
            return a.to(torch.bfloat16)

    file = save_pt2(tmp_path, torch.export.export(Half(), (torch.rand(3, 2),)))
    with pytest.raises(PackageError, match=r"output 'output' of torch\.bfloat16.*serve the model as ONNX"):
        take_in(file, folder)


@pytest.mark.parametrize("kind", ["bf16", "u4"])
def test_an_openvino_model_of_datatypes_that_numpy_lacks_says_what_can_not_be_taken(
    tmp_path: Path, folder: Path, kind: str
) -> None:
    import openvino as ov
    from openvino import opset13 as ops

    x = ops.parameter([-1, 3], getattr(ov.Type, kind), name="x")
    y = ops.convert(x, np.float32)
    ov.save_model(ov.Model([y], [x], "m"), tmp_path / "m.xml", compress_to_fp16=False)
    with pytest.raises(PackageError, match=rf"input 'x' of {kind}, which no request can hold; convert the model"):
        take_in(tmp_path / "m.xml", folder)


def test_a_pickled_checkpoint_named_pt2_is_not_read(tmp_path: Path, folder: Path) -> None:
    import torch

    torch.save({"weight": torch.ones(2)}, tmp_path / "m.pt2")
    with pytest.raises(PackageError, match=r"m\.pt2 is"):
        take_in(tmp_path / "m.pt2", folder)


def test_an_openvino_model_comes_with_its_weights(tmp_path: Path, folder: Path) -> None:
    file, _ = write_openvino(tmp_path)
    model = take_in(file, folder)
    assert (model.runtime, model.file, model.files) == ("openvino", "model.xml", ("model.bin",))
    assert dims(model.inputs) == {"image": ("FP32", (None, 1, 8, 8))}
    assert dims(model.outputs) == {"label": ("INT64", (None,)), "scores": ("FP32", (None, 10))}
    file.with_suffix(".bin").unlink()
    with pytest.raises(PackageError, match=r"weights .*model\.bin of .*model\.xml are missing; copy both files"):
        take_in(file, folder)


def test_openvino_inputs_without_names_get_those_of_their_operators(tmp_path: Path) -> None:
    import openvino as ov
    from openvino import opset13 as ops

    x = ops.parameter([-1, 4], np.float32, name="features")
    y = ops.relu(x, name="positive")
    ov.save_model(ov.Model([y], [x], "unnamed"), tmp_path / "m.xml", compress_to_fp16=False)
    package = add_model(tmp_path / "m.xml", ModelDirectory(tmp_path / "models"))
    assert [spec.describe() for spec in package.manifest.inputs] == ["features FP32 [rows, 4]"]
    model = load_model(package, "cpu", 1)
    (values,) = model.infer({"features": np.array([[-1, 2, -3, 4]], np.float32)}).values()
    np.testing.assert_array_equal(values, [[0, 2, 0, 4]])


def test_of_several_names_of_a_port_the_operator_s_own_is_taken(tmp_path: Path, folder: Path) -> None:
    import openvino as ov
    from openvino import opset13 as ops

    x = ops.parameter([-1, 4], np.float32, name="features")
    x.output(0).get_tensor().set_names({"a", "features", "features:0"})
    y = ops.relu(x, name="positive")
    y.output(0).get_tensor().set_names({"long_name", "y"})
    ov.save_model(ov.Model([y], [x], "m"), tmp_path / "m.xml", compress_to_fp16=False)
    model = take_in(tmp_path / "m.xml", folder)
    assert ([model.inputs[0].name], [model.outputs[0].name]) == (["features"], ["y"])


@pytest.mark.parametrize(
    ("source", "runtime"),
    [(SAVED_MODEL, "openvino"), (HERE / "recurrent.tflite", "litert")],
    ids=["SavedModel", "LiteRT"],
)
def test_a_recurrent_model_of_tensorflow_is_added_and_answers_right(tmp_path: Path, source: Path, runtime: str) -> None:
    package = add_model(source, ModelDirectory(tmp_path / "models"), name="recurrent")
    assert package.manifest.runtime == runtime
    specs = {spec.name: spec for spec in (*package.manifest.inputs, *package.manifest.outputs)}
    assert {name: spec.row_axis for name, spec in specs.items()} == {"x": 0, "h": 1, "k": None, "y": 0, "h1": 1}
    assert package.manifest.batching.independent_rows
    model = load_model(package, "cpu", 1)
    for rows in (1, 5, 2):
        inputs = recurrent_inputs(rows)
        found = model.infer(inputs)
        for name, expected in recurrent_step(**inputs).items():
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5)


def test_the_part_of_a_savedmodel_asks_for_its_folder(folder: Path) -> None:
    with pytest.raises(PackageError, match=r"a part of a SavedModel; add the folder that holds it: .*recurrent_saved"):
        take_in(SAVED_MODEL / "saved_model.pb", folder)


def test_a_savedmodel_without_openvino_names_both_ways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        PackageError, match=r'headrace\[openvino\]"; or convert it yourself .*-m tf2onnx.convert --saved-mo'
    ):
        take_in(SAVED_MODEL, folder)


def message(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2, len(content)]) + content


def test_a_savedmodel_of_several_signatures_names_them(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "two"
    source.mkdir()
    signatures = b"".join(message(5, message(1, name)) for name in (b"encode", b"decode", b"__saved_model_init_op"))
    (source / "saved_model.pb").write_bytes(b"\x08\x01" + message(2, signatures))
    with pytest.raises(PackageError, match=r"signatures decode, encode, of which .*--signature_def decode"):
        take_in(source, folder)


def test_a_savedmodel_that_keeps_a_state_is_refused_since_its_conversion_would_answer_wrongly(folder: Path) -> None:
    with pytest.raises(PackageError, match=r"keeps a state between calls \(AssignAddVariableOp\)"):
        take_in(HERE / "counting_saved_model", folder)


def test_a_file_that_keeps_a_state_is_added_with_a_word_on_it(folder: Path) -> None:
    assert "each run starts anew" in take_in(HERE / "counting.tflite", folder).facts["state"]
    assert "state" not in take_in(HERE / "recurrent.tflite", folder).facts


def test_a_damaged_savedmodel_is_refused(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "two"
    source.mkdir()
    (source / "saved_model.pb").write_bytes(b"\xff" * 30)
    with pytest.raises(PackageError, match=r"OpenVINO can't convert .*two: .*; try tf2onnx") as caught:
        take_in(source, folder)
    assert "\n" not in caught.value.message


def test_litert_has_the_names_of_its_signature_and_no_sizes_that_are_only_the_example_s(folder: Path) -> None:
    model = take_in(HERE / "two_outputs.tflite", folder)
    assert (dims(model.inputs), [tensor.name for tensor in model.outputs]) == (
        {"x": ("FP32", (None, 4))},
        ["alpha", "zeta"],
    )
    assert dims(take_in(HERE / "small_net.tflite", folder).outputs) == {
        "output_0": ("INT32", (None,)),
        "output_1": ("FP32", (None, None)),
    }


def test_a_litert_file_with_several_signatures_names_them(folder: Path) -> None:
    with pytest.raises(PackageError, match="has the signatures first, second, of which a package serves one"):
        take_in(HERE / "two_signatures.tflite", folder)


def test_a_damaged_litert_file_is_refused(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "m.tflite"
    file.write_bytes((HERE / "small_net.tflite").read_bytes()[:200])
    with pytest.raises(PackageError, match=r"LiteRT can't load .*m\.tflite"):
        take_in(file, folder)


def test_a_tvm_library_is_described_by_a_sample(tmp_path: Path, folder: Path) -> None:
    (library,) = write_tvm(tmp_path)
    with pytest.raises(PackageError, match=r"doesn't tell what it takes; give --sample FILE\.npz"):
        take_in(library, folder)
    np.savez(tmp_path / "sample.npz", image=images(3)["image"])
    models = ModelDirectory(tmp_path / "models")
    package = add_model(library, models, name="small", sample=tmp_path / "sample.npz")
    assert [spec.describe() for spec in package.manifest.inputs] == ["image FP32 [rows, 1, 8, 8]"]
    assert [spec.describe() for spec in package.manifest.outputs] == [
        "output_0 INT64 [rows]",
        "output_1 FP32 [rows, 10]",
    ]


def test_a_tvm_library_refuses_another_sample(tmp_path: Path, folder: Path) -> None:
    (library,) = write_tvm(tmp_path)
    np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
    with pytest.raises(PackageError, match="takes 1 inputs, but the sample has 2: a, b"):
        take_in(library, folder, sample=tmp_path / "two.npz")
    np.savez(tmp_path / "wide.npz", image=np.ones((1, 3, 8, 8), np.float32))
    with pytest.raises(PackageError, match=r"can't run the sample"):
        take_in(library, folder, sample=tmp_path / "wide.npz")


def test_an_archive_of_tvm_is_added_and_another_archive_is_not(tmp_path: Path, folder: Path) -> None:
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    (source,) = write_onnx(tmp_path)
    file = tmp_path / "small.tar"
    tvm.relax.build(from_onnx(onnx.load(source)), target="llvm").export_library(str(file))
    np.savez(tmp_path / "sample.npz", image=images(3)["image"])
    model = take_in(file, folder, sample=tmp_path / "sample.npz")
    assert (model.file, model.inputs[0].dims) == ("model.tar", (None, 1, 8, 8))
    file.write_bytes(tarred())
    with pytest.raises(PackageError, match=r"small\.tar is an archive, but none that TVM wrote; unpack it"):
        take_in(file, folder)
    file.write_bytes(b"\x1f\x8b\x08" + bytes(100))
    with pytest.raises(PackageError, match=r"small\.tar is a damaged archive"):
        take_in(file, folder)


def test_an_archive_without_a_suffix_that_tells_is_to_be_unpacked(tmp_path: Path, folder: Path) -> None:
    for name, content in (("m.zip", zipped()), ("m.tgz", b"\x1f\x8b\x08" + bytes(100))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PackageError, match=r"is a (?:zip|gzip) archive.*unpack it"):
            take_in(tmp_path / name, folder)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", "x")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            (HERE / "small_net.tflite").read_bytes(),
            r"a TensorFlow Lite model, whatever its name says; rename it",
        ),
        (zipped(), "a zip archive"),
        (tarred(), "a tar archive.*unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"an HDF5 file \(Keras\)"),
        (b"\x7fELF" + bytes(100), "a library of native code"),
        (b"GGUF" + bytes(100), "a GGUF file"),
        (b"\x1f\x8b\x08" + bytes(100), "a gzip archive.*unpack it"),
        (pickle.dumps({"a": 1}), "a Python pickle"),
        (b'<?xml version="1.0"?><net/>', r"an XML file.*rename it to \.xml"),
        (b"\n<!DOCTYPE html><html>", "a web page.*download the model file itself"),
        (bytes(4) + b"ORTM" + bytes(100), r"ONNX Runtime's own format \(\.ort\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "holds no model, but Git LFS.*`git lfs pull`"),
        (b"", "is empty; download or copy it again"),
    ],
    ids=["tflite", "zip", "tar", "hdf5", "elf", "gguf", "gzip", "pickle", "xml", "html", "ort", "lfs", "empty"],
)
def test_a_file_of_another_format_named_onnx_is_recognised(
    tmp_path: Path, folder: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    with pytest.raises(PackageError, match=words) as caught:
        take_in(file, folder)
    assert "\n" not in caught.value.message
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "step"),
    [
        (".h5", r"keras.*\.export\('"),
        (".keras", r"keras.*\.export\('"),
        (".pb", "tf2onnx.convert --graphdef"),
        (".pt", "torch.export.save"),
        (".pth", "torch.export.save"),
        (".safetensors", "optimum-cli export onnx --model"),
        (".gguf", "llama.cpp"),
        (".joblib", "skl2onnx.to_onnx"),
        (".pkl", "skl2onnx.to_onnx"),
        (".mlmodel", "onnxmltools.convert_coreml"),
        (".engine", "headrace worker --device tensorrt"),
        (".plan", "headrace worker --device tensorrt"),
        (".trt", "headrace worker --device tensorrt"),
    ],
)
def test_a_format_that_is_not_served_names_the_next_step(tmp_path: Path, folder: Path, suffix: str, step: str) -> None:
    file = tmp_path / f"net{suffix}"
    file.write_bytes(b"\x01\x02\x03\x04 some bytes")
    with pytest.raises(PackageError, match=step) as caught:
        take_in(file, folder)
    assert str(file) in caught.value.message
    assert "{" not in caught.value.message
    assert "\n" not in caught.value.message


def test_no_served_format_is_refused_by_its_name() -> None:
    assert not set(REFUSED) & {".onnx", ".tflite", ".pt2", ".xml", ".so", ".tar"}


def test_an_onnx_file_may_have_any_other_suffix(tmp_path: Path, folder: Path) -> None:
    (file,) = write_onnx(tmp_path)
    for name in ("model", "model.ONNX", "model.v2", "model.model"):
        assert take_in(file.replace(tmp_path / name), folder).runtime == "onnxruntime"
        file = tmp_path / name


def test_a_folder_without_a_savedmodel_names_the_files_in_it(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "repository" / "onnx"
    source.mkdir(parents=True)
    with pytest.raises(PackageError, match=r"is a folder without a model: there is no saved_model\.pb"):
        take_in(source.parent, folder)
    write_onnx(source)
    with pytest.raises(PackageError, match=r"is a folder; add the model file itself: .*repository/onnx/model\.onnx"):
        take_in(source.parent, folder)


@pytest.mark.parametrize(
    ("source", "library", "extra"),
    [("small_net.tflite", "ai_edge_litert", "litert"), ("model.pt2", "torch", "torch"), ("model.so", "tvm", "tvm")],
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, library: str, extra: str
) -> None:
    file = tmp_path / source
    file.write_bytes({".tflite": bytes(4) + b"TFL3", ".pt2": zipped(), ".so": b"\x7fELF"}[file.suffix])
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PackageError, match=rf'needs {library}, which is not .*pip install "headrace\[{extra}\]"'):
        take_in(file, folder)
