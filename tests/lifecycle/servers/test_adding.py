"""Packages of models on servers: what is asked, tried and written, and each error in one line."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.lifecycle.servers.served import Serve, Served, by_oip, by_tfserving
from tests.runtimes.remote.grpc.scripted import ScriptedServer
from tests.runtimes.remote.http.scripted import Asked, Reaction, reply
from tests.runtimes.remote.http.scripted import ScriptedServer as HttpServer

from headrace.contracts import ModelDirectory, ModelPackage, PackageError
from headrace.contracts.errors import ConfigurationError
from headrace.contracts.package.server import Server
from headrace.lifecycle.packages.adding import PackageOptions
from headrace.lifecycle.packages.registry import add_remote_model, notes_of, promote, remove_model


def on(*endpoints: str, model: str = "m", **more: Any) -> Server:
    return Server(endpoints=endpoints, model=model, **more)


def server_of(package: ModelPackage) -> Server:
    assert isinstance(package.manifest.server, Server)
    return package.manifest.server


def test_the_protocol_and_the_tensors_are_found_out(models: ModelDirectory, serve: Serve) -> None:
    package = add_remote_model(on(serve(Served(most_rows=32))), models)
    manifest = package.manifest
    assert (package.name, package.version, manifest.runtime) == ("m", "1", "oip")
    assert [spec.describe() for spec in (*manifest.inputs, *manifest.outputs)] == [
        "x FP32 [rows, 4]",
        "y FP32 [rows, 4]",
    ]
    assert (manifest.batching.max_rows, manifest.batching.independent_rows) == (32, True)
    assert manifest.provenance["trial"]["verdict"] == "independent"
    assert (manifest.file, package.size_bytes, notes_of(package)) == ("", 0, [])


def test_tensorflow_serving_is_told_by_what_it_answers(models: ModelDirectory, serve: Serve) -> None:
    package = add_remote_model(on(serve(Served(), by_tfserving), label="stable"), models, name="resnet", max_rows=16)
    manifest = package.manifest
    server = server_of(package)
    assert (manifest.name, manifest.runtime, server.label, server.model) == (
        "resnet", "tfserving", "stable", "m",
    )  # fmt: skip
    assert manifest.batching.max_rows == 16
    assert manifest.provenance["version_when_added"] == "7"


def test_a_server_over_http_is_asked_too(models: ModelDirectory) -> None:
    metadata = {
        "name": "m",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }

    def answer(asked: Asked) -> Reaction:
        if asked.method == "GET":
            return reply(body=json.dumps({"name": "s"} if asked.path == "/v2" else metadata).encode())
        tensor = json.loads(asked.body)["inputs"][0]
        return reply(body=json.dumps({"model_name": "m", "outputs": [{**tensor, "name": "y"}]}).encode())

    server = HttpServer(answer)
    try:
        package = add_remote_model(on(str(server.address)), models)
    finally:
        server.stop()
    assert package.manifest.runtime == "oip"
    assert package.manifest.provenance["trial"] == {"verdict": "independent", "rows_compared": 4}


def test_few_batches_are_sent(models: ModelDirectory, serve: Serve) -> None:
    served = Served()
    add_remote_model(on(serve(served)), models)
    assert len(served.calls) <= 12


def test_rows_that_depend_on_each_other_run_alone(models: ModelDirectory, serve: Serve) -> None:
    package = add_remote_model(on(serve(Served(run=lambda x: x - x.mean(axis=0)))), models)
    assert not package.manifest.batching.independent_rows
    assert "rows depend on each other" in notes_of(package)[0]


def test_a_person_decides_about_rows(models: ModelDirectory, serve: Serve) -> None:
    alone = add_remote_model(on(serve(Served())), models, independent_rows=False)
    assert not alone.manifest.batching.independent_rows
    shared = add_remote_model(on(serve(Served(run=lambda x: x - x.mean(axis=0)))), models, independent_rows=True)
    assert shared.manifest.batching.independent_rows
    assert "as you said" in notes_of(shared)[0]


def test_rows_that_do_not_run_are_taken_for_independent_and_noted(models: ModelDirectory, serve: Serve) -> None:
    package = add_remote_model(on(serve(Served(refusal="x is out of range"))), models)
    assert package.manifest.batching.independent_rows
    assert re.search(r"none of the trial's rows run \(.*x is out of range\)", notes_of(package)[0])


def test_a_sample_is_what_the_trial_runs(models: ModelDirectory, serve: Serve, tmp_path: Path) -> None:
    seen = []

    def run(x: NDArray[Any]) -> NDArray[Any]:
        seen.append(x.copy())
        return x

    np.savez(tmp_path / "rows.npz", x=np.full((2, 3), 7, np.float32))
    served = Served(run=run, shape=(-1, -1))
    package = add_remote_model(on(serve(served)), models, sample=tmp_path / "rows.npz")
    assert all((np.abs(x - 7) < 0.01).all() for x in seen)
    assert package.manifest.inputs[0].sample_shape == (3,)
    served.refusal = "not this"
    with pytest.raises(PackageError, match=r"can't run the sample: .*not this; give inputs that it takes"):
        add_remote_model(on(serve(served)), models, sample=tmp_path / "rows.npz")


def test_a_fixed_batch_becomes_its_row_sizes(models: ModelDirectory, serve: Serve) -> None:
    package = add_remote_model(on(serve(Served(shape=(4, 3)))), models)
    assert (package.manifest.batching.row_sizes, package.manifest.batching.max_rows) == ((4,), 4)
    assert package.manifest.inputs[0].shape == (3,)


def test_a_size_that_varies_is_kept_as_the_server_runs_it(models: ModelDirectory, serve: Serve) -> None:
    package = add_remote_model(on(serve(Served(shape=(-1, -1)))), models)
    assert package.manifest.inputs[0].shape == (-1,)
    assert package.manifest.inputs[0].sample_shape == (16,)


def test_all_endpoints_must_have_the_same_model(models: ModelDirectory, serve: Serve) -> None:
    first, same, other = serve(Served()), serve(Served(most_rows=8)), serve(Served(shape=(-1, 5)))
    package = add_remote_model(on(first, same), models)
    assert server_of(package).endpoints == (first, same)
    assert package.manifest.batching.max_rows == 8
    with pytest.raises(
        PackageError, match=rf"{other} has another model 'm' than {first}: input x FP32 \[rows, 5\], not"
    ):
        add_remote_model(on(first, other), models)
    tensorflow = serve(Served(), by_tfserving)
    with pytest.raises(PackageError, match=rf"{tensorflow} doesn't answer as {first} does, by oip"):
        add_remote_model(on(first, tensorflow), models)


def test_an_unknown_model_is_named(models: ModelDirectory, serve: Serve) -> None:
    with pytest.raises(PackageError, match=r"'nope' is not found; load the model there, or correct --remote-name"):
        add_remote_model(on(serve(Served()), model="nope"), models)
    with pytest.raises(PackageError, match=r"Unrecognized servable version label: canary"):
        add_remote_model(on(serve(Served(), by_tfserving), label="canary"), models)
    assert not models.names()


def test_nothing_that_listens_is_one_line(models: ModelDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for scheme in ("grpc", "http"):
        with pytest.raises(PackageError, match=r"efused; start the server, or correct address") as caught:
            add_remote_model(on(f"{scheme}://127.0.0.1:{port}"), models)
        assert "\n" not in caught.value.message


def test_a_server_without_descriptions_is_named(models: ModelDirectory) -> None:
    server = ScriptedServer({})
    try:
        with pytest.raises(PackageError, match=r"doesn't describe the model 'm' .* write model\.toml by hand"):
            add_remote_model(on(str(server.address)), models)
    finally:
        server.stop()


def test_scalars_are_refused_by_name(models: ModelDirectory, serve: Serve) -> None:
    with pytest.raises(PackageError, match=r"has no rows in its input 'x', a scalar"):
        add_remote_model(on(serve(Served(shape=()))), models)


def test_options_of_files_are_refused(models: ModelDirectory, serve: Serve) -> None:
    options: list[PackageOptions] = [{"rows_at": {"x": 1}}, {"constants": {"x": 1}}]
    for option in options:
        with pytest.raises(PackageError, match=r"is for model files"):
            add_remote_model(on(serve(Served())), models, **option)
    with pytest.raises(PackageError, match=r"--keep names 'z', but the model's outputs are y"):
        add_remote_model(on(serve(Served())), models, keep=["z"])


def test_credentials_come_from_the_environment(
    models: ModelDirectory, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = on(serve(Served()), credentials="LAB")
    with pytest.raises(ConfigurationError, match=r"HEADRACE_SERVER_CREDENTIALS_LAB is not set"):
        add_remote_model(server, models)
    monkeypatch.setenv("HEADRACE_SERVER_CREDENTIALS_LAB", "bearer secret-token")
    package = add_remote_model(server, models)
    assert "secret-token" not in (package.folder / "model.toml").read_text("utf-8")


def test_packages_without_a_file_are_promoted_and_removed(models: ModelDirectory, serve: Serve, tmp_path: Path) -> None:
    package = add_remote_model(on(serve(Served())), models)
    package.verify()
    elsewhere = ModelDirectory(tmp_path / "elsewhere")
    assert promote(package, elsewhere).manifest.server == package.manifest.server
    remove_model(models, "m", "1")
    assert not models.names()


def test_both_protocols_on_one_port_are_told_apart_by_the_kind(models: ModelDirectory, serve: Serve) -> None:
    address = serve(Served(), lambda served: {**by_oip(served), **by_tfserving(served)})
    assert add_remote_model(on(address), models, "tfserving").manifest.runtime == "tfserving"
    assert add_remote_model(on(address), models).manifest.runtime == "oip"
