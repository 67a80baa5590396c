"""Reading of ONNX files, and their form in a package."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper
from tests.lifecycle.onnx_text import write
from tests.onnx_files import save, sequence_of, value

from headrace.contracts import PackageError
from headrace.lifecycle.packages.declared import DeclaredModel, DeclaredTensor
from headrace.lifecycle.packages.formats import onnx_weights, take_in

FLOAT = TensorProto.FLOAT


def constant(name: str, array: ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "package"
    made.mkdir()
    return made


def dims(model: DeclaredModel) -> dict[str, tuple[int | str | None, ...] | None]:
    return {tensor.name: tensor.dims for tensor in (*model.inputs, *model.outputs)}


def run(folder: Path, model: DeclaredModel, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(folder / model.file, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, dict(inputs))
    return outputs


ADD = helper.make_node("Add", ["x", "x"], ["y"])


def test_all_dimensions_are_declared_with_their_symbols(tmp_path: Path, folder: Path) -> None:
    file = save(tmp_path / "m.onnx", [ADD], [value("x", [2, "batch", None, 8])], [value("y", [2, "batch", None, 8])])
    model = take_in(file, folder)
    assert (model.runtime, model.file, model.files, model.labels) == ("onnxruntime", "model.onnx", (), ())
    assert dims(model) == {"x": (2, "batch", None, 8), "y": (2, "batch", None, 8)}
    assert (model.facts["source"], model.facts["opset"]) == ("m.onnx", 18)
    assert (folder / "model.onnx").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("symbol", ["?", "None", "unk", "-1", "floor(height/2) + 1", "s0*2"])
def test_symbols_that_name_nothing_are_no_symbols(tmp_path: Path, folder: Path, symbol: str) -> None:
    file = save(tmp_path / "m.onnx", [ADD], [value("x", ["n", symbol])], [value("y", ["n", symbol])])
    assert dims(take_in(file, folder))["x"] == ("n", None)


@pytest.mark.parametrize("symbol", ["batch", "s77", "DynamicDimension.0", "past seq", "batch-size", "unk__12"])
def test_symbols_that_name_something_are_kept(tmp_path: Path, folder: Path, symbol: str) -> None:
    file = save(tmp_path / "m.onnx", [ADD], [value("x", [symbol, 3])], [value("y", [symbol, 3])])
    assert dims(take_in(file, folder))["x"] == (symbol, 3)


def test_an_unknown_shape_is_none_and_a_single_value_has_no_dimensions(tmp_path: Path, folder: Path) -> None:
    scaled = helper.make_node("Mul", ["x", "k"], ["y"])
    file = save(tmp_path / "m.onnx", [scaled], [value("x", None), value("k", [])], [value("y", None)])
    assert dims(take_in(file, folder)) == {"x": None, "k": (), "y": None}


def test_an_input_with_a_default_is_optional(tmp_path: Path, folder: Path) -> None:
    scaled = helper.make_node("Mul", ["x", "k"], ["y"])
    inputs = [value("x", ["n", 3]), value("k", [1])]
    file = save(
        tmp_path / "m.onnx", [scaled], inputs, [value("y", ["n", 3])], [constant("k", np.array([2], np.float32))]
    )
    assert [(tensor.name, tensor.optional) for tensor in take_in(file, folder).inputs] == [("x", False), ("k", True)]


def test_weights_that_an_exporter_lists_as_inputs_are_none(tmp_path: Path, folder: Path) -> None:
    nodes, inputs, weights, last = [], [value("x", ["n", 4])], [], "x"
    for layer in range(20):
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"h{layer}"]))
        inputs.append(value(f"w{layer}", [4, 4]))
        weights.append(constant(f"w{layer}", np.eye(4, dtype=np.float32)))
        last = f"h{layer}"
    file = save(tmp_path / "m.onnx", nodes, inputs, [value(last, ["n", 4])], weights)
    assert [tensor.name for tensor in take_in(file, folder).inputs] == ["x"]


def test_an_optional_tensor_is_an_optional_input(tmp_path: Path, folder: Path) -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["n", 3]))
    given = helper.make_graph([helper.make_node("OptionalGetElement", ["o"], ["t"])], "t", [], [value("t", ["n", 3])])
    absent = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "e", [], [value("e", ["n", 3])])
    nodes = [
        helper.make_node("OptionalHasElement", ["o"], ["has"]),
        helper.make_node("If", ["has"], ["y"], then_branch=given, else_branch=absent),
    ]
    file = save(
        tmp_path / "m.onnx", nodes, [value("x", ["n", 3]), helper.make_value_info("o", kind)], [value("y", ["n", 3])]
    )
    (_, optional) = take_in(file, folder).inputs
    assert optional == DeclaredTensor(name="o", datatype="FP32", dims=("n", 3), optional=True)


def test_sequences_are_declared_with_the_dimensions_of_one_tensor(tmp_path: Path, folder: Path) -> None:
    same = helper.make_node("Identity", ["x"], ["y"])
    file = save(tmp_path / "m.onnx", [same], [sequence_of("x", ["n", 3])], [sequence_of("y", None)])
    model = take_in(file, folder)
    assert model.inputs == (DeclaredTensor(name="x", datatype="FP32", dims=("n", 3), sequence=True),)
    assert model.outputs == (DeclaredTensor(name="y", datatype="FP32", dims=None, sequence=True),)


@pytest.mark.parametrize(
    ("attribute", "labels"),
    [({"classlabels_int64s": [3, 7]}, ("3", "7")), ({"classlabels_strings": ["no", "ja"]}, ("no", "ja"))],
    ids=["numbers", "text"],
)
def test_a_zipmap_becomes_the_table_that_it_is_made_of(
    tmp_path: Path, folder: Path, attribute: dict[str, list[int]] | dict[str, list[str]], labels: tuple[str, str]
) -> None:
    key = TensorProto.INT64 if "classlabels_int64s" in attribute else TensorProto.STRING
    entry = helper.make_map_type_proto(key, helper.make_tensor_type_proto(FLOAT, []))
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"]),
        helper.make_node("ArgMax", ["s"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["s"], ["p"], domain="ai.onnx.ml", **attribute),
    ]
    outputs = [
        value("label", ["n"], TensorProto.INT64),
        helper.make_value_info("p", helper.make_sequence_type_proto(entry)),
    ]
    file = save(tmp_path / "m.onnx", nodes, [value("x", ["n", 2])], outputs)
    model = take_in(file, folder)
    assert model.labels == labels
    assert [(tensor.name, tensor.datatype) for tensor in model.outputs] == [("label", "INT64"), ("p", "FP32")]
    found = dims(model)["p"]
    assert found is not None
    assert found[-1] == 2
    x = np.array([[0, 1], [2, 0]], np.float32)
    (rows,) = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(["p"], {"x": x})
    (_, table) = run(folder, model, {"x": x})
    assert [{str(key): score for key, score in row.items()} for row in rows] == [
        dict(zip(labels, row, strict=True)) for row in table
    ]


def test_a_dict_as_input_is_refused_with_a_command_that_works(tmp_path: Path, folder: Path) -> None:
    kind = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOAT, []))
    vector = helper.make_node("DictVectorizer", ["d"], ["v"], domain="ai.onnx.ml", string_vocabulary=["a", "b"])
    double = helper.make_node("Add", ["v", "v"], ["y"])
    file = save(tmp_path / "m.onnx", [vector, double], [helper.make_value_info("d", kind)], [value("y", [None, 2])])
    with pytest.raises(PackageError, match=r"input 'd' of type map\(string.*cut the graph after") as caught:
        take_in(file, folder)
    onnx.utils.extract_model(file, tmp_path / "m-cut.onnx", ["v"], ["y"], check_model=False)
    assert "['v'], ['y'], check_model=False" in caught.value.message
    assert [tensor.name for tensor in take_in(tmp_path / "m-cut.onnx", folder).inputs] == ["v"]


def test_an_input_that_never_holds_a_value_is_refused(tmp_path: Path, folder: Path) -> None:
    joined = helper.make_node("Concat", ["x", "past"], ["y"], axis=1)
    file = save(tmp_path / "m.onnx", [joined], [value("x", ["n", 3]), value("past", ["n", 0])], [value("y", ["n", 3])])
    with pytest.raises(PackageError, match=r"input 'past' of shape .*, which never holds a value; cut the graph"):
        take_in(file, folder)


def with_weights(tmp_path: Path, location: str = "m.onnx.data") -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    weights = [constant("w", np.full((4, 4), 3, np.float32)), constant("b", np.arange(4, dtype=np.float32))]
    options: dict[str, Any] = {"save_as_external_data": True, "size_threshold": 0, "location": location}
    return save(tmp_path / "m.onnx", nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], weights, **options)


def point(tensor: onnx.TensorProto, location: str, **place: int) -> None:
    del tensor.external_data[:]
    for key, text in {"location": location, **place}.items():
        tensor.external_data.add(key=key, value=str(text))


def in_two_files(tmp_path: Path) -> Path:
    file = with_weights(tmp_path)
    model = onnx.load(file, load_external_data=False)
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    for tensor, location in zip(model.graph.initializer, ("parts/w.bin", "./parts/deep/../deep/b.bin"), strict=True):
        fields = {entry.key: entry.value for entry in tensor.external_data}
        raw = (tmp_path / "m.onnx.data").read_bytes()[int(fields["offset"]) :][: int(fields["length"])]
        (tmp_path / location).write_bytes(b"12345678" + raw)
        point(tensor, location, offset=8, length=len(raw))
    (tmp_path / "m.onnx.data").unlink()
    file.write_bytes(model.SerializeToString())
    return file


EXPECTED = np.array([[12, 13, 14, 15]], np.float32)
ONES = {"x": np.ones((1, 4), np.float32)}


@pytest.mark.parametrize("make", [with_weights, in_two_files])
def test_weights_beside_the_file_are_taken_into_it(tmp_path: Path, folder: Path, make: Callable[[Path], Path]) -> None:
    model = take_in(make(tmp_path), folder)
    assert model.files == ()
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    np.testing.assert_array_equal(run(folder, model, ONES)[0], EXPECTED)


@pytest.mark.parametrize(
    ("make", "files"),
    [
        (with_weights, ("weights/m.onnx.data",)),
        (in_two_files, ("weights/parts/deep/b.bin", "weights/parts/w.bin")),
        (lambda path: with_weights(path, "model.toml"), ("weights/model.toml",)),
    ],
    ids=["one", "two", "named as the manifest"],
)
def test_weights_that_one_file_can_not_hold_stay_files_of_their_own(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], files: tuple[str, ...]
) -> None:
    file = make(tmp_path)
    monkeypatch.setattr(onnx_weights, "MAX_FILE_BYTES", file.stat().st_size + 10)
    model = take_in(file, folder)
    assert model.files == files
    shutil.rmtree(tmp_path / "parts", ignore_errors=True)
    file.unlink()
    np.testing.assert_array_equal(run(folder, model, ONES)[0], EXPECTED)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "parts/../../secret.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, folder: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(1000))
    (tmp_path / "models").mkdir()
    file = with_weights(tmp_path / "models")
    model = onnx.load(file, load_external_data=False)
    point(model.graph.initializer[0], location, offset=0, length=64)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=r"outside the folder of the model; put that file beside"):
        take_in(file, folder)


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "models").mkdir()
    file = with_weights(tmp_path / "models")
    data = file.with_name("m.onnx.data")
    data.rename(tmp_path / "elsewhere.data")
    data.symlink_to(tmp_path / "elsewhere.data")
    with pytest.raises(PackageError, match="a link that leads out of the folder"):
        take_in(file, folder)


def test_a_model_and_weights_that_are_both_links_into_a_cache_are_taken(tmp_path: Path, folder: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    file = with_weights(blobs)
    for name in ("m.onnx", "m.onnx.data"):
        (blobs / name).rename(blobs / f"sha-of-{name}")
        (snapshot / name).symlink_to(blobs / f"sha-of-{name}")
    model = take_in(snapshot / file.name, folder)
    np.testing.assert_array_equal(run(folder, model, ONES)[0], EXPECTED)


def test_weights_that_are_missing_or_cut_short_or_a_pointer_are_named(tmp_path: Path, folder: Path) -> None:
    file = with_weights(tmp_path)
    data = file.with_name("m.onnx.data")
    data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(PackageError, match=r"m\.onnx\.data has 40 bytes, but .* wants 64 of them.* cut short"):
        take_in(file, folder)
    data.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(PackageError, match=r"m\.onnx\.data holds no model, but Git LFS's pointer.*git lfs pull"):
        take_in(file, folder)
    data.unlink()
    with pytest.raises(PackageError, match=r"m\.onnx\.data can't be read: it does not exist"):
        take_in(file, folder)


@pytest.mark.parametrize("content", [b"not a model", b"\x08\x07\x12\xff\xff\xff\xff", b"\0" * 1000])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, folder: Path, content: bytes) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(content)
    with pytest.raises(PackageError, match=r"m\.onnx is not an ONNX (?:file|model)") as caught:
        take_in(file, folder)
    assert "\n" not in caught.value.message


def test_a_truncated_file_is_refused(tmp_path: Path, folder: Path) -> None:
    file = save(tmp_path / "m.onnx", [ADD], [value("x", ["n", 4])], [value("y", ["n", 4])])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(PackageError, match="download or copy it again"):
        take_in(file, folder)


def test_an_operator_of_a_foreign_domain_is_named(tmp_path: Path, folder: Path) -> None:
    inner = helper.make_node("Tokenize", ["x"], ["t"], domain="com.example.text")
    branch = helper.make_graph([inner], "b", [], [value("t", ["n"])])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"])], "e", [], [value("e", ["n"])])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other)
    inputs = [value("x", ["n"]), value("c", [], TensorProto.BOOL)]
    file = save(tmp_path / "m.onnx", [choice], inputs, [value("y", ["n"])], domains=["com.example.text"])
    with pytest.raises(PackageError, match=r"operator Tokenize of the domain 'com\.example\.text' needs a library"):
        take_in(file, folder)


@pytest.mark.parametrize(("opset", "ir"), [(18, 99), (99, 9)], ids=["IR", "opset"])
def test_a_file_newer_than_onnx_runtime_asks_for_a_newer_one(tmp_path: Path, folder: Path, opset: int, ir: int) -> None:
    file = save(tmp_path / "m.onnx", [ADD], [value("x", ["n", 4])], [value("y", ["n", 4])], opset=opset, ir=ir)
    with pytest.raises(PackageError, match=r"newer than the installed version: pip install -U onnxruntime"):
        take_in(file, folder)


def test_nothing_is_printed_while_a_file_is_refused(
    tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = save(
        tmp_path / "m.onnx", [helper.make_node("Nothing", ["x"], ["y"])], [value("x", ["n"])], [value("y", ["n"])]
    )
    with pytest.raises(PackageError, match=r"can't load .*m\.onnx: .*Nothing"):
        take_in(file, folder)
    assert capfd.readouterr() == ("", "")


def test_a_model_without_inputs_is_refused(tmp_path: Path, folder: Path) -> None:
    node = helper.make_node("Constant", [], ["y"], value=constant("c", np.array([1], np.float32)))
    with pytest.raises(PackageError, match="has no inputs, so there is nothing to ask it"):
        take_in(save(tmp_path / "m.onnx", [node], [], [value("y", [1])]), folder)


def test_an_input_of_no_values_is_declared_as_it_is(tmp_path: Path, folder: Path) -> None:
    graph = "g (float[n,3] x, int64[0] axes) => (float[n,3] y) { y = ReduceSum <noop_with_empty_axes = 1> (x, axes) }"
    assert take_in(write(tmp_path / "m.onnx", graph), folder).inputs[1].dims == (0,)
