"""Text from outside is data: to Postgres, to Redis, to the file system."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import stat
import uuid
from pathlib import Path

import numpy as np
import onnx
import psycopg
import pytest
import redis
from onnx import TensorProto, helper, numpy_helper
from pydantic import SecretStr
from tests.fuzz import seeds

from headrace.cli.stack.stack import LocalStack, StackOptions
from headrace.contracts import InvalidRequest, ModelDirectory, PackageError, Settings, UnknownModel, read_package
from headrace.contracts.ids import row_id
from headrace.contracts.message import decode_header
from headrace.contracts.package.manifest import sha256_of
from headrace.contracts.tensors.codec import datatypes_line
from headrace.lifecycle.packages.registry import add_model
from headrace.producers import Client
from headrace.results_store import BatchRows, Row, StoreReader, StoreWriter
from headrace.runtimes.local.onnx import OnnxRuntime

SQL = [
    "'; DROP TABLE predictions; --",
    "' OR '1'='1",
    "x') ON CONFLICT DO UPDATE SET state = 'succeeded'; --",
    "\\'; SELECT pg_sleep(10); --",
    "$$; COPY predictions TO PROGRAM 'id' $$",
    "%s %(row)s :row {0} \\copy",
    "\t\\N\n\\.",
]


def batch(text: str) -> BatchRows:
    now = dt.datetime.now(dt.UTC).timestamp()
    row = Row(
        id=row_id(text),
        foreign_id=text,
        state="succeeded",
        outputs=json.dumps({text: [[1]]}).encode(),
        datatypes=datatypes_line({text: np.zeros(1)}),
        submitted_at=now,
        job_id=text,
        row_index=0,
    )
    return BatchRows(
        model=text,
        version=text,
        rows=[row],
        started_at=now,
        finished_at=now,
        batch_id=uuid.uuid4(),
        batch_rows=1,
        worker=text,
    )


@pytest.mark.parametrize("text", SQL)
def test_sql_in_names_ids_and_filters_is_stored_and_found_as_text(migrated_url: str, text: str) -> None:
    with StoreWriter(migrated_url) as writer, StoreReader(migrated_url) as reader:
        writer.write([batch(text), batch("another")])
        with psycopg.connect(migrated_url, autocommit=True) as connection:
            columns = connection.execute(
                "SELECT model, version, job_id, foreign_id, worker FROM predictions WHERE model <> 'another'"
            ).fetchall()
            count = connection.execute("SELECT count(*) FROM predictions").fetchone()
        assert columns == [(text,) * 5]
        assert count == (2,)
        assert [found.id for found in reader.find(model=text)] == [text]
        assert [found.id for found in reader.find(job_id=text)] == [text]
        assert [found.id for found in reader.read_job(text)] == [text]
        assert reader.find(model=text + "x") == []
        assert not reader.cancel(text, text)
        assert reader.cancel(text + "x", text)
        with pytest.raises(InvalidRequest):
            reader.find(state=text)


@pytest.mark.parametrize(
    "inbox", ["headrace:leases", "celery-task-meta-x", "infer.double", "headrace:inbox:\r\nDEL x", "x"]
)
def test_a_request_can_name_no_key_as_its_inbox_but_an_inbox(inbox: str) -> None:
    with pytest.raises(InvalidRequest, match="malformed"):
        decode_header({"inbox": inbox})


@pytest.mark.parametrize(
    "model", ["../x", "a/b", "infer.x\x06\x163", "x\r\nFLUSHALL", "*", "", "a" * 101, "..", "a..b", "-"]
)
def test_a_client_sends_to_no_queue_that_is_not_a_models(broker_url: str, model: str) -> None:
    settings = Settings(broker_url=SecretStr(broker_url), models=Path("nowhere"))
    with Client(settings) as client, pytest.raises(InvalidRequest):
        client.submit(model, {"x": np.ones((1, 4), np.float32)})
    with redis.Redis.from_url(broker_url) as broker:
        assert broker.keys("infer*") == []


# -- model packages ------------------------------------------------------------


def package(root: Path, file: str = "model.onnx", **changes: str) -> Path:
    folder = root / "double" / "1"
    folder.mkdir(parents=True)
    text = seeds.MODEL_TOML
    for old, new in {'file = "model.onnx"': f'file = "{file}"', **changes}.items():
        text = text.replace(old, new)
    (folder / "model.toml").write_text(text)
    return folder


@pytest.mark.parametrize(
    "file", ["../../../secret", "/etc/hostname", "a/../../../secret", "link/secret", "link", "\\u0000", "."]
)
def test_a_package_reads_no_file_outside_its_folder(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = package(tmp_path / "models", file)
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(PackageError) as caught:
        read_package(folder).verify()
    assert "secret" not in caught.value.message.replace(file, "")


def test_a_model_file_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = package(tmp_path / "models")
    (folder / "model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(PackageError, match="outside the package's folder"):
        read_package(folder)


@pytest.mark.parametrize("name", ["..", ".", "../models/double", "/etc", "double/..", "a\x00b", ""])
def test_no_name_or_version_leads_out_of_the_model_directory(tmp_path: Path, name: str) -> None:
    package(tmp_path / "models")
    models = ModelDirectory(tmp_path / "models")
    with pytest.raises(UnknownModel):
        models.get(name)
    if name:
        with pytest.raises(UnknownModel):
            models.get("double", name)
    with pytest.raises(PackageError):
        models.versions(name)


def onnx_with_weights_at(location: str) -> onnx.ModelProto:
    """`y = x + w`, whose weights lie in another file."""
    weights = numpy_helper.from_array(np.ones(4, np.float32), "w")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weights.external_data.add(key=key, value=value)
    spec = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", spec[:1], spec[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    "location", ["../../../secret.bin", "{root}/secret.bin", "link.bin", "sub/../../../../secret.bin"]
)
def test_an_onnx_file_takes_no_weights_from_outside_its_package(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    folder = package(tmp_path / "models")
    (folder / "sub").mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    onnx.save(onnx_with_weights_at(location.format(root=tmp_path)), folder / "model.onnx")
    manifest = folder / "model.toml"
    checksum = sha256_of(folder / "model.onnx")
    manifest.write_text(re.sub('sha256 = ".*"', f'sha256 = "{checksum}"', manifest.read_text()))
    loaded = read_package(folder)
    loaded.verify()
    with pytest.raises(PackageError):
        OnnxRuntime("cpu", 1).load(loaded)


@pytest.mark.parametrize("location", ["../secret.bin", "{root}/secret.bin", "link.bin"])
def test_adding_a_model_takes_in_no_weights_from_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    source = tmp_path / "given"
    source.mkdir()
    (source / "link.bin").symlink_to(tmp_path / "secret.bin")
    (source / "m.onnx").write_bytes(onnx_with_weights_at(location.format(root=tmp_path)).SerializeToString())
    with pytest.raises(PackageError):
        add_model(source / "m.onnx", ModelDirectory(tmp_path / "models"))
    assert ModelDirectory(tmp_path / "models").names() == []


# -- the local stack ------------------------------------------------------------


def test_the_local_stack_is_open_to_its_user_only(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        with LocalStack(tmp_path / "home", tmp_path / "models", StackOptions(processes=0, flower_port=None)) as stack:
            host = psycopg.conninfo.conninfo_to_dict(stack.address.database_url)["host"]
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode)
                for path in (stack.home / "stack.json", stack.home / "valkey", Path(str(host)))
            }
            assert stack.address.broker_url.startswith("redis://127.0.0.1:")
            data = stat.S_IMODE((stack.postgres.data).stat().st_mode)
    finally:
        os.umask(previous)
    assert modes.pop("stack.json") == 0o600
    assert all(mode & 0o066 == 0 for mode in (*modes.values(), data)), modes
