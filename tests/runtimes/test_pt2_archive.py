"""Archives that would run code while torch reads them are refused before torch does."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.runtimes.conftest import package_of
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from headrace.contracts import ModelPackage, PackageError
from headrace.runtimes.local.pt2_archive import check_archive
from headrace.runtimes.local.torch_program import TorchRuntime

#: What the forged archives would run. It appears when something did.
RAN: list[str] = []


class Canary:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return RAN.append, ("unpickled",)


class Record:
    """One archive's records, to be forged and written again."""

    def __init__(self, file: Path) -> None:
        reader = PT2ArchiveReader(str(file))
        self.files = {name: reader.read_bytes(name) for name in reader.get_file_names()}

    def program(self) -> dict[str, Any]:
        program: dict[str, Any] = json.loads(self.files["models/model.json"])
        return program

    def save(self, file: Path) -> None:
        with PT2ArchiveWriter(str(file)) as writer:
            for name, data in self.files.items():
                # The writer adds these itself.
                if not name.startswith(".data/") and name != "byteorder":
                    writer.write_bytes(name, data)


@pytest.fixture
def record(packages: Callable[[str], ModelPackage]) -> Record:
    return Record(packages("torch").file)


@pytest.fixture
def refused(tmp_path: Path, record: Record) -> Callable[[], str]:
    """Save the forged records and load them as a worker does; give the refusal."""

    def load() -> str:
        RAN.clear()
        folder = tmp_path / "forged" / "1"
        folder.mkdir(parents=True)
        record.save(folder / "model.pt2")
        with pytest.raises(PackageError, match="is refused, since reading it could run code") as caught:
            TorchRuntime("cpu", 1).load(package_of(folder, "torch", folder / "model.pt2"))
        assert RAN == []
        return caught.value.message

    return load


def test_the_forgery_itself_does_no_harm(tmp_path: Path, record: Record) -> None:
    record.save(tmp_path / "model.pt2")
    check_archive(tmp_path / "model.pt2")


def test_pickled_weights(refused: Callable[[], str], record: Record) -> None:
    name = "data/weights/model_weights_config.json"
    config = json.loads(record.files[name])
    config["config"]["conv.weight"]["use_pickle"] = True
    record.files[name] = json.dumps(config).encode()
    record.files["data/weights/weight_0"] = pickle.dumps(Canary())
    assert "'conv.weight' is pickled" in refused()


@pytest.mark.parametrize("name", ["data/constants/custom_obj_0", "data/constants/opaque_obj_0"])
def test_pickled_objects(refused: Callable[[], str], record: Record, name: str) -> None:
    record.files[name] = pickle.dumps(Canary())
    assert "a pickled object" in refused()


@pytest.mark.parametrize("name", ["data/weights/model.pt", "data/constants/model.pt"])
def test_weights_as_old_versions_wrote_them(refused: Callable[[], str], record: Record, name: str) -> None:
    record.files[name] = pickle.dumps(Canary())
    assert "as old versions of torch wrote" in refused()


def test_native_code(refused: Callable[[], str], record: Record) -> None:
    record.files["data/aotinductor/model/model.so"] = b"\x7fELF"
    assert "compiled native code" in refused()


def test_example_inputs_that_are_objects(refused: Callable[[], str], record: Record) -> None:
    buffer = io.BytesIO()
    torch.save(((Canary(),), {}), buffer)
    record.files["data/sample_inputs/model.pt"] = buffer.getvalue()
    assert "example inputs are objects" in refused()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getpid()",
        "Symbol('s0').__class__",
        "[1 for _ in ()]",
        "S('__import__')",
        "Symbol('__import__(1)')",
        "(lambda: 1)()",
        "s0; 1",
    ],
)
def test_shape_expressions_that_are_more(refused: Callable[[], str], record: Record, text: str) -> None:
    program = record.program()
    sizes = program["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
    sizes[0]["as_expr"]["expr_str"] = text
    record.files["models/model.json"] = json.dumps(program).encode()
    assert "where a program has no such thing" in refused()


@pytest.mark.parametrize(
    "target",
    ["torch.hub.load", "torch.load", "_operator.attrgetter", "torch.ops.load_library", "#torch.x", "os.system"],
)
def test_calls_of_what_is_no_operator(refused: Callable[[], str], record: Record, target: str) -> None:
    program = record.program()
    program["graph_module"]["graph"]["nodes"][0]["target"] = target
    record.files["models/model.json"] = json.dumps(program).encode()
    assert target in refused()


def test_names_that_would_become_source(refused: Callable[[], str], record: Record) -> None:
    text = json.dumps(record.program()).replace('"relu"', '"relu = print(1); relu"')
    record.files["models/model.json"] = text.encode()
    assert "print(1)" in refused()


def test_containers_that_would_be_imported(refused: Callable[[], str], record: Record) -> None:
    program = record.program()
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    spec = {"type": "collections.defaultdict", "context": '{"default_factory_module": "os"}', "children_spec": []}
    signature["out_spec"] = json.dumps([1, spec])
    record.files["models/model.json"] = json.dumps(program).encode()
    assert "defaultdict" in refused()


def test_the_zip_format_of_old_versions(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_state_dict.pt", pickle.dumps(Canary()))
    with pytest.raises(PackageError, match=r"is no \.pt2 program"):
        check_archive(tmp_path / "model.pt2")
