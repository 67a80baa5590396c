"""`headrace models` with models on servers: `add --server`, `show`, `check`, `list`, `rm`."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import Outcome
from tests.lifecycle.servers.served import Serve, Served, by_tfserving, servers

from headrace.cli.commands.models.calls import calls_of
from headrace.contracts import Tensors, TensorSpec, read_package
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.server import Server


@pytest.fixture
def serve() -> Iterator[Serve]:
    with servers() as start:
        yield start


@pytest.fixture
def address(serve: Serve, home: Path) -> str:
    return serve(Served(most_rows=8))


def test_add_asks_the_server_and_says_how_to_call_it(
    headrace: Callable[..., Outcome], address: str, home: Path
) -> None:
    done = headrace("models", "add", "--server", address, "--remote-name", "m", "--name", "resnet")
    assert done.code == 0
    assert "added resnet 1" in done.err
    for words in ("x FP32 [rows, 4]", "y FP32 [rows, 4]", "m, by oip", address, "at most 8 rows"):
        assert words in done.out
    assert "echo '{\"x\": [[0.0, 0.0, 0.0, 0.0]]}' | headrace predict resnet -" in done.out


def test_every_option_reaches_the_package(
    headrace: Callable[..., Outcome], serve: Serve, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_SERVER_CREDENTIALS_LAB", "bearer top-secret")
    first, second = serve(Served(), by_tfserving), serve(Served(), by_tfserving)
    words = ("--label", "stable", "--signature", "serving_default", "--kind", "tfserving", "--credentials", "LAB")
    more = ("--max-in-flight", 3, "--max-rows", 16, "--keep", "y", "--alone", "--json")
    done = headrace("models", "add", "--server", first, "--server", second, "--remote-name", "m", *words, *more)
    assert done.code == 0
    manifest = read_package(home / "models/m/1").manifest
    assert manifest.server == Server(
        endpoints=(first, second), model="m", label="stable", credentials="LAB", max_in_flight=3
    )
    assert (manifest.store.keep, manifest.batching.independent_rows) == (("y",), False)
    assert done.json()["server"]["endpoints"] == [first, second]
    shown = headrace("models", "show", "m")
    assert "HEADRACE_SERVER_CREDENTIALS_LAB" in shown.out
    assert (
        "top-secret" not in done.out + done.err + shown.out + shown.err + (home / "models/m/1/model.toml").read_text()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a model FILE, or --server and --remote-name"),
        (("--server", "grpc://h:1"), "name the model as the server calls it"),
        (("{file}", "--server", "grpc://h:1", "--remote-name", "m"), "give a FILE or --server, not both"),
        (("{file}", "--remote-name", "m"), "it needs --server, and no FILE"),
        (("{file}", "--max-in-flight", "2"), "it needs --server, and no FILE"),
        (("--server", "grpc://h:1", "--remote-name", "m", "--kind", "oip", "--label", "a"), "only TensorFlow Serving"),
        (
            ("--server", "grpc://h:1", "--remote-name", "m", "--version-of-server", "1", "--label", "a"),
            "a label names a version",
        ),
    ],
)
def test_misuse_is_told(
    headrace: Callable[..., Outcome], double: Path, home: Path, words: tuple[str, ...], message: str
) -> None:
    done = headrace("models", "add", *(word.format(file=double) for word in words))
    assert done.code == 2
    assert message in done.line


def test_a_failure_is_one_line(headrace: Callable[..., Outcome], address: str) -> None:
    done = headrace("models", "add", "--server", address, "--remote-name", "nope")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "'nope' is not found; load the model there, or correct --remote-name" in done.err
    assert headrace("models", "add", "--server", "ftp://host", "--remote-name", "m").code == 1


def test_check_tells_what_came_and_which_size_pays(headrace: Callable[..., Outcome], address: str) -> None:
    headrace("models", "add", "--server", address, "--remote-name", "m")
    done = headrace("models", "check", "m")
    assert done.code == 0
    assert re.search(r"answered +1 row in [\d.]+ ms", done.out)
    assert re.search(r"version there +3 *\n", done.out)
    assert "y FP32 [1, 4]" in done.out
    assert "pays" in done.out
    answer = headrace("models", "check", "m", "--json").json()["answer"]
    assert [timing["rows"] for timing in answer["timings"]] == [1, 2, 4, 8]
    assert answer["pays"] in {1, 2, 4, 8}
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 4]}]


def test_check_of_a_file(headrace: Callable[..., Outcome], double: Path, home: Path) -> None:
    headrace("models", "add", double, "--max-rows", 2)
    np.savez("rows.npz", x=np.ones((3, 4)))
    done = headrace("models", "check", "double", "--sample", "rows.npz")
    assert "answered  3 rows" in done.out
    assert headrace("models", "check", "nope").code == 1


def test_packages_without_a_file_are_listed_shown_and_removed(
    headrace: Callable[..., Outcome], address: str, home: Path
) -> None:
    headrace("models", "add", "--server", address, "--remote-name", "m")
    assert "x FP32 [rows, 4]" in headrace("models", "list").out
    assert headrace("models", "list", "--json").json()[0]["runtime"] == "oip"
    assert f'endpoints = ["{address}"]' in headrace("models", "show", "m", "--toml").out
    assert headrace("models", "rm", "m", "1", "--yes").code == 0
    assert not (home / "models/m").exists()


def manifest_of(*inputs: TensorSpec) -> Manifest:
    output = TensorSpec(name="y", datatype="FP32")
    return Manifest(
        name="m", version="1", runtime="onnxruntime", file="f", sha256="0", inputs=inputs, outputs=(output,)
    )


SMALL = (
    TensorSpec(name="x's", datatype="FP16", shape=(2,)),
    TensorSpec(name="t", datatype="BYTES", shape=(-1,)),
    TensorSpec(name="b", datatype="BOOL"),
    TensorSpec(name="k", datatype="INT64", shape=(2,), per_request=True),
)
LARGE = (
    TensorSpec(name="x", datatype="FP16", shape=(3, 20)),
    TensorSpec(name="t", datatype="BYTES", shape=(2,)),
    TensorSpec(name="left $one", datatype="UINT8", shape=(-1,), sample_shape=(5,)),
)
WITHOUT_NUMPY = (*LARGE[1:], TensorSpec(name="x", datatype="BF16", shape=(3, 20)))


@pytest.mark.parametrize("inputs", [SMALL, LARGE, WITHOUT_NUMPY])
def test_calls_work_as_they_stand(inputs: tuple[TensorSpec, ...], home: Path) -> None:
    manifest = manifest_of(*inputs)
    python, shell = calls_of(manifest)
    sent: dict[str, Tensors] = {}

    class Client:
        def predict(self, name: str, tensors: Mapping[str, Any]) -> None:
            sent.update({name: manifest.signature.check_inputs(tensors)})

    code = "\n".join(line for line in python if "headrace" not in line)
    exec(code, {"Client": Client})
    assert sent["m"].keys() == {spec.name for spec in inputs}
    if len(shell) == 1:
        said = subprocess.run(
            shell[0].partition(" | ")[0], shell=True, check=True, capture_output=True, text=True
        ).stdout
        manifest.signature.check_inputs(json.loads(said))
        return
    subprocess.run(shell[0], shell=True, check=True)
    assert shlex.split(shell[1]) == ["headrace", "predict", "m", "--npz", "rows.npz"]
    with np.load("rows.npz", allow_pickle=False) as archive:
        manifest.signature.check_inputs({name: archive[name] for name in archive.files})
