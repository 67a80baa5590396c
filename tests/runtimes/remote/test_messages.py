"""Messages of the servers: beside the official ones in a process, and equal to them byte by byte."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.runtimes.remote.equality import same
from tests.runtimes.remote.golden_cases import KINDS, tensor

from headrace.contracts import TensorSpec
from headrace.runtimes.remote.messages import tfserving
from headrace.runtimes.remote.tfserving.calls import Target, check_status, read_answer

GOLDEN = {
    name: base64.b64decode(text)
    for name, text in json.loads(Path(__file__).with_name("tensorflow_serving.json").read_text()).items()
}
TARGET = Target("digits", "serving_default", version="7")

#: Registers every message in the pool of all, under the file names of ours as well, as another library might.
BESIDE = """
from importlib.resources import files
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, wrappers_pb2
for name in ("tfserving", "oip"):
    data = files("headrace.runtimes.remote.messages").joinpath(name + ".binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        for message in file.message_type:
            message.field.add(name="another", number=999, type="TYPE_BOOL", label="LABEL_OPTIONAL")
        if not file.name.startswith("google/"):
            descriptor_pool.Default().Add(file)
from headrace.runtimes.remote.messages import oip, tfserving
official = descriptor_pool.Default().FindMessageTypeByName("tensorflow.TensorProto")
assert "another" in official.fields_by_name
assert "another" not in tfserving.TensorProto.DESCRIPTOR.fields_by_name
assert tfserving.TensorProto.DESCRIPTOR.full_name == "tensorflow.TensorProto"
assert oip.ModelInferRequest(id="7").SerializeToString() == bytes([26, 1, 55])
"""


def test_other_messages_of_the_same_names_may_be_in_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("connection", ["tfserving.grpc", "oip.grpc"])
def test_a_connection_loads_no_library_that_it_does_not_need(connection: str) -> None:
    code = f"import headrace.runtimes.remote.{connection}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "grpc" in loaded
    # Each of them takes as long as all of headrace's own modules here.
    needless = {"tensorflow", "pydantic", "importlib.metadata", "google.protobuf.descriptor_pb2"}
    assert not needless & set(loaded)


def test_a_request_is_that_of_the_official_messages_byte_by_byte() -> None:
    # Entries of a map have no order of their own; the official bytes have them sorted.
    inputs = {kind: tensor(kind) for kind in sorted(KINDS)}
    assert TARGET.predict_request(inputs, ["y", "z"]) == GOLDEN["request"]


@pytest.mark.parametrize("form", ["response_content", "response_values"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_answers_of_the_official_messages_are_read_in_both_forms(form: str, kind: str) -> None:
    answer = read_answer(GOLDEN[form])
    assert answer.version == "7"
    expected = tensor(kind)
    found = answer.outputs[kind]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert same(found, expected)


def test_the_official_metadata_is_a_signature() -> None:
    found = TARGET.read_metadata(GOLDEN["metadata"], "digits")
    assert found.inputs == (TensorSpec(name="image", datatype="FP32", shape=(8, 8)),)
    assert found.outputs == (TensorSpec(name="label", datatype="FP32"),)
    assert (found.version, found.platform, found.max_rows) == ("7", "tensorflow", 0)


def test_the_official_status_of_a_loaded_model_is_ready() -> None:
    check_status(GOLDEN["status"], "digits")


def test_numbers_of_datatypes_are_those_of_tensorflow() -> None:
    assert {kind: tfserving.DATA_TYPES[kind] for kind in ("DT_FLOAT", "DT_BFLOAT16", "DT_UINT64")} == {
        "DT_FLOAT": 1,
        "DT_BFLOAT16": 14,
        "DT_UINT64": 23,
    }
    assert np.dtype(KINDS["DT_FLOAT"][0]) == np.float32
