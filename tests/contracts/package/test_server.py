"""`[server]` of a package: a model on a model server instead of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w

from headrace.contracts import ConfigurationError, ModelPackage, PackageError, read_package
from headrace.contracts.package.credentials import authorization_of
from headrace.contracts.package.manifest import write_manifest

SERVER = {"endpoints": ["grpc://localhost:8500"], "model": "resnet"}


def package(folder: Path, server: dict[str, Any] | None = None, **fields: Any) -> ModelPackage:
    folder.mkdir(exist_ok=True)
    tensor = {"datatype": "FP32", "shape": [4]}
    document = {
        "name": "resnet",
        "version": "1",
        "runtime": "tfserving",
        "inputs": [{"name": "x", **tensor}],
        "outputs": [{"name": "y", **tensor}],
        **({} if server is None else {"server": server}),
        **fields,
    }
    (folder / "model.toml").write_text(tomli_w.dumps(document))
    return read_package(folder)


def test_a_package_with_a_server_needs_no_file(tmp_path: Path) -> None:
    found = package(tmp_path, SERVER)
    found.verify()
    assert found.size_bytes == 0
    server = found.manifest.server
    assert server
    assert (server.endpoints, server.model) == (("grpc://localhost:8500",), "resnet")
    assert (server.signature_name, server.max_in_flight, server.nan) == ("serving_default", 0, "allow")


def test_it_is_written_and_read_as_it_was(tmp_path: Path) -> None:
    found = package(tmp_path, {**SERVER, "label": "stable", "max_in_flight": 8, "credentials": "LAB"})
    write_manifest(tmp_path, found.manifest)
    assert read_package(tmp_path).manifest == found.manifest
    assert "sha256" not in (tmp_path / "model.toml").read_text()


@pytest.mark.parametrize(
    ("server", "fields", "message"),
    [
        (None, {}, "file and sha256, or a .server."),
        (SERVER, {"file": "model.onnx", "sha256": "0"}, "model file and a .server."),
        ({**SERVER, "endpoints": []}, {}, "needs endpoints"),
        ({**SERVER, "endpoints": ["grpc://a:1", "grpc://a:1"]}, {}, "twice"),
        ({**SERVER, "model": ""}, {}, "name of a model"),
        ({**SERVER, "version": "2", "label": "stable"}, {}, "leave one out"),
        ({**SERVER, "max_in_flight": 65}, {}, "max_in_flight must be 1 to 64"),
        ({**SERVER, "credentials": "hunter 2"}, {}, "never stand here"),
        ({**SERVER, "flavor": "vanilla"}, {}, "flavor"),
        ({**SERVER, "token": "hunter2"}, {}, "unknown field `token`"),
    ],
)
def test_what_no_server_can_have_is_refused(
    tmp_path: Path, server: dict[str, Any] | None, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageError, match=message) as raised:
        package(tmp_path, server, **fields)
    assert "hunter" not in raised.value.message


def test_the_checksum_is_that_of_the_model_wherever_it_is(tmp_path: Path) -> None:
    def checksum(**server: object) -> str:
        return package(tmp_path, {**SERVER, **server}).manifest.checksum

    plain = checksum()
    assert checksum(endpoints=["grpc://elsewhere:8500"], max_in_flight=3, credentials="LAB") == plain
    others = [checksum(model="b"), checksum(version="2"), checksum(label="2"), checksum(signature_name="s")]
    assert len({plain, *others}) == 5


def test_the_checksum_of_a_package_with_a_file_stays_what_it_was(tmp_path: Path) -> None:
    found = package(tmp_path, file="model.onnx", sha256="00")
    assert found.manifest.checksum == "f7a08ddf0baea854d185038fccf174be828dd23da676b1dd362a9688ef47cb9f"
    assert msgspec.structs.replace(found.manifest, sha256="01").checksum != found.manifest.checksum


def test_credentials_become_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SERVER_CREDENTIALS_LAB", "bearer abc.def")
    monkeypatch.setenv("HEADRACE_SERVER_CREDENTIALS_OTHER", "basic me:secret:word")
    assert authorization_of("") == ""
    assert authorization_of("LAB") == "Bearer abc.def"
    assert authorization_of("OTHER") == "Basic bWU6c2VjcmV0OndvcmQ="


@pytest.mark.parametrize(
    "value", ["", "hunter2", "bearer", "basic hunter2", "digest a:hunter2", "bearer hunter2\nX: y"]
)
def test_wrong_credentials_are_named_and_never_quoted(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HEADRACE_SERVER_CREDENTIALS_LAB", value)
    with pytest.raises(ConfigurationError, match="HEADRACE_SERVER_CREDENTIALS_LAB") as raised:
        authorization_of("LAB")
    assert "hunter2" not in raised.value.message
