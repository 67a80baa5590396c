"""A package is read exactly, or refused with the path and the remedy; no file outside of its folder is ever opened."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts import HeadraceError, ModelDirectory, PackageError, TensorSpec, UnknownModel, read_package
from headrace.contracts.package.manifest import (
    BatchingAdvice,
    Manifest,
    StoreAdvice,
    check_name,
    sha256_of,
    version_key,
)

MODEL = b"not really a model"


def manifest(**changes: Any) -> dict[str, Any]:
    document = {
        "name": "digits",
        "version": "2",
        "runtime": "onnxruntime",
        "file": "model.onnx",
        "sha256": hashlib.sha256(MODEL).hexdigest(),
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 8, 8]}],
        "outputs": [{"name": "label", "datatype": "INT64"}],
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def write(root: Path, **changes: Any) -> Path:
    document = manifest(**changes)
    folder = root / str(document.get("name", "digits")) / str(document.get("version", "2"))
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(MODEL)
    (folder / "model.toml").write_text(tomli_w.dumps(document))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(PackageError) as caught:
        read_package(folder)
    return caught.value.message


def test_a_package_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        labels=["zero", "one"],
        batching={"max_rows": 32, "max_wait_ms": 1.5, "row_sizes": [8, 32], "seconds_fixed": 0.001},
        store={"outputs": "binary"},
        provenance={"accuracy": 0.97, "steps": ["quantize"], "measured": {"rows": 360}},
    )
    package = read_package(folder)
    package.verify()
    assert package.file.read_bytes() == MODEL
    assert (package.name, package.version) == ("digits", "2")
    assert package.manifest == Manifest(
        name="digits",
        version="2",
        runtime="onnxruntime",
        file="model.onnx",
        sha256=hashlib.sha256(MODEL).hexdigest(),
        inputs=(TensorSpec(name="image", datatype="FP32", shape=(1, 8, 8)),),
        outputs=(TensorSpec(name="label", datatype="INT64"),),
        labels=("zero", "one"),
        batching=BatchingAdvice(max_rows=32, max_wait_ms=1.5, row_sizes=(8, 32), seconds_fixed=0.001),
        store=StoreAdvice(outputs="binary"),
        provenance={"accuracy": 0.97, "steps": ["quantize"], "measured": {"rows": 360}},
    )
    assert package.manifest.signature.inputs == package.manifest.inputs
    again = tomli_w.dumps(msgspec.to_builtins(package.manifest))
    (folder / "model.toml").write_text(again)
    assert read_package(folder) == package


def test_a_checksum_may_be_written_in_capitals(tmp_path: Path) -> None:
    read_package(write(tmp_path, sha256=hashlib.sha256(MODEL).hexdigest().upper())).verify()


@pytest.mark.parametrize("content", [MODEL + b"!", MODEL[:-1], b""])
def test_a_changed_model_file_fails_its_checksum(tmp_path: Path, content: bytes) -> None:
    package = read_package(write(tmp_path))
    package.file.write_bytes(content)
    with pytest.raises(PackageError, match=r"does not match its checksum.*headrace models add"):
        package.verify()


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    package = read_package(write(tmp_path))
    package.file.unlink()
    with pytest.raises(PackageError, match=r"model\.onnx can't be read: No such file"):
        package.verify()


def test_a_folder_in_place_of_the_model_file_is_named(tmp_path: Path) -> None:
    for file in (".", "sub"):
        folder = write(tmp_path / f"case{len(file)}", file=file)
        (folder / "sub").mkdir(exist_ok=True)
        with pytest.raises(PackageError, match="can't be read"):
            read_package(folder).verify()


def test_a_package_without_a_model_file_needs_a_server(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="it needs file and sha256, or a"):
        read_package(write(tmp_path, file=""))


def test_a_large_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 3_000_001)
    assert sha256_of(path) == hashlib.sha256(b"x" * 3_000_001).hexdigest()


# Paths out of the folder.


@pytest.mark.parametrize(
    "file",
    [
        "../model.onnx",
        "../../../../etc/passwd",
        "sub/../../model.onnx",
        "..",
        "/etc/passwd",
        "~/../../..",
        "sub/../../2x/m",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    assert "outside the package's folder" in refusal(write(tmp_path, file=file))


def test_an_absolute_path_is_refused_even_into_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "digits" / "2" / "model.onnx"
    assert "outside the package's folder" in refusal(write(tmp_path, file=str(file)))


def test_a_symbolic_link_to_the_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(MODEL)
    folder = write(tmp_path)
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(tmp_path / "secret")
    assert "outside the package's folder" in refusal(folder)


def test_a_linked_folder_to_the_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.onnx").write_bytes(MODEL)
    folder = write(tmp_path, file="weights/model.onnx")
    (folder / "weights").symlink_to(tmp_path / "elsewhere")
    assert "outside the package's folder" in refusal(folder)


def test_links_within_the_folder_and_to_the_folder_are_fine(tmp_path: Path) -> None:
    folder = write(tmp_path / "real", file="link.onnx")
    (folder / "link.onnx").symlink_to("model.onnx")
    (tmp_path / "models").symlink_to(tmp_path / "real")
    ModelDirectory(tmp_path / "models").get("digits").verify()


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, file="a")
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(PackageError):
        read_package(folder).verify()


@pytest.mark.parametrize("file", ["a\0b", "x" * 5000, "x/" * 5000])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(PackageError) as caught:
        read_package(write(tmp_path, file=file)).verify()
    assert len(caught.value.message) <= 1001


# Manifests of the wrong form.


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"sha256": None},
        {"inputs": None},
        {"version": 2},
        {"colour": "green"},
        {"inputs": []},
        {"outputs": []},
        {"inputs": [{"name": "x", "datatype": "FP32"}] * 2},
        {"outputs": [{"name": "x", "datatype": "FP32"}] * 2},
        {"inputs": [{"name": "x", "datatype": "FLOAT"}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["many"]}]},
        {"inputs": [{"name": "x", "datatype": "FP32", "colour": "green"}]},
        {"inputs": [{"name": "x"}]},
        {"inputs": "x"},
        {"batching": {"max_rows": 0}},
        {"batching": {"max_rows": 1.5}},
        {"batching": {"max_wait_ms": -1}},
        {"batching": {"max_wait_ms": float("nan")}},
        {"batching": {"max_wait_ms": float("inf")}},
        {"batching": {"seconds_per_row": -1.0}},
        {"batching": {"seconds_fixed": float("nan")}},
        {"batching": {"row_sizes": [64, 8]}},
        {"batching": {"row_sizes": [0, 64]}},
        {"batching": {"row_sizes": [64, 64]}},
        {"batching": {"row_sizes": [8]}},
        {"batching": {"colour": "green"}},
        {"store": {"outputs": "pickle"}},
        {"labels": [1]},
    ],
    ids=range(29),
)
def test_a_wrong_manifest_is_refused_and_its_path_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write(tmp_path, **changes)
    assert str(folder / "model.toml") in refusal(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"not toml",
        b"\xff\xfe",
        b"a = " + b"[" * 100_000,
        b"a = {b = " * 10_000,
        b"a." * 10_000 + b"b = 1",
        b"a = 1\na = 2",
        b"a = 2026-99-99",
        b"a = " + b"9" * 10_000,
        b"",
        b"name = ",
    ],
    ids=range(10),
)
def test_what_is_no_toml_is_a_package_error(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "model.toml").write_bytes(text)
    assert str(tmp_path / "model.toml") in refusal(tmp_path)


def test_a_missing_manifest_is_a_package_error(tmp_path: Path) -> None:
    assert "headrace models add" in refusal(tmp_path)
    assert "headrace models add" in refusal(tmp_path / "nowhere")
    (tmp_path / "model.toml").mkdir()
    assert "can't be read" in refusal(tmp_path)


@given(
    st.dictionaries(
        st.sampled_from(Manifest.__struct_fields__), st.one_of(st.text(), st.integers(), st.lists(st.text()))
    )
)
def test_any_table_is_a_manifest_or_a_package_error(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("package")
    (folder / "model.toml").write_text(tomli_w.dumps(manifest(**table)), "utf-8")
    with contextlib.suppress(HeadraceError):
        read_package(folder).verify()


# Names and versions.

BAD_NAMES = [
    "",
    ".",
    "..",
    ".a",
    "-a",
    "a/b",
    "a\\b",
    "a..b",
    "../a",
    "a b",
    "a\n",
    "a\0",
    "ü",
    "\u0661",
    "a" * 101,
    None,
    5,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_leave_its_folder_or_queue_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(PackageError, match="is not allowed"):
        check_name("model name", name)
    with pytest.raises(PackageError):
        ModelDirectory(tmp_path).versions(name)
    with pytest.raises(UnknownModel):
        ModelDirectory(tmp_path).get(name)


@pytest.mark.parametrize("name", ["digits", "a", "A.b-c_d", "resnet50.v1", "7", "a" * 100])
def test_an_ordinary_name_is_given_back(name: str) -> None:
    assert check_name("model name", name) == name


@pytest.mark.parametrize("field", ["name", "version"])
def test_a_manifest_with_such_a_name_is_refused(tmp_path: Path, field: str) -> None:
    folder = write(tmp_path)
    for bad in ("a/b", "..", ""):
        (folder / "model.toml").write_text(tomli_w.dumps(manifest(**{field: bad})))
        assert "is not allowed" in refusal(folder)


def test_no_version_is_called_latest(tmp_path: Path) -> None:
    assert "asks for the newest" in refusal(write(tmp_path, version="latest"))


def test_versions_are_ordered_as_people_do(tmp_path: Path) -> None:
    ordered = ["rc", "v9", "v10", "01", "1", "1-rc1", "1.9", "1.10", "2", "2.0", "9", "10", "2026-01-02", "2026-01-10"]
    for version in reversed(ordered):
        write(tmp_path, version=version)
    directory = ModelDirectory(tmp_path)
    assert directory.versions("digits") == ordered
    assert directory.get("digits").version == directory.get("digits", "latest").version == ordered[-1]
    assert directory.get("digits", "9").version == "9"


@given(st.lists(st.text(st.characters(), max_size=8)))
def test_any_versions_can_be_ordered(versions: list[str]) -> None:
    assert sorted(sorted(versions, key=version_key)) == sorted(versions)


def test_a_directory_lists_its_models(tmp_path: Path) -> None:
    write(tmp_path, name="words")
    write(tmp_path, name="digits")
    assert ModelDirectory(tmp_path).names() == ["digits", "words"]


def test_what_is_no_package_is_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (tmp_path / "README").write_text("a file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "digits" / "3").mkdir()
    for partial in (tmp_path / "digits" / ".partial", tmp_path / "digits" / "1²", tmp_path / ".cache" / "1"):
        partial.mkdir(parents=True)
        (partial / "model.toml").write_bytes((folder / "model.toml").read_bytes())
    directory = ModelDirectory(tmp_path)
    assert directory.names() == ["digits"]
    assert directory.versions("digits") == ["2"]
    assert directory.get("digits").version == "2"


def test_an_unknown_model_or_version_is_told_what_there_is(tmp_path: Path) -> None:
    assert ModelDirectory(tmp_path / "nowhere").names() == []
    with pytest.raises(UnknownModel, match="it holds: none"):
        ModelDirectory(tmp_path / "nowhere").get("digits")
    write(tmp_path)
    with pytest.raises(UnknownModel, match=r"no model 'letters' in .*; it holds: digits"):
        ModelDirectory(tmp_path).get("letters")
    for version in ("3", "../digits/2", "x" * 100_000):
        with pytest.raises(UnknownModel, match="it has: 2"):
            ModelDirectory(tmp_path).get("digits", version)


def test_a_package_in_the_wrong_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "digits" / "2").rename(tmp_path / "digits" / "3")
    with pytest.raises(PackageError, match="says digits 2, but lies in digits/3"):
        ModelDirectory(tmp_path).get("digits", "3")
