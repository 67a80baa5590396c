"""Writes `tensorflow_serving.json` with the messages of the real tensorflow-serving-api, and compares their fields.

Run in an environment of its own, from the root of the repository:

    python -m venv /tmp/serving && /tmp/serving/bin/pip install tensorflow-serving-api==2.21.0 ml_dtypes
    PYTHONPATH=. /tmp/serving/bin/python tests/runtimes/remote/make_tensorflow_serving_golden.py
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message import Message
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from tests.runtimes.remote.golden_cases import KINDS, single_values, tensor

HERE = Path(__file__).parent
MESSAGES = HERE.parents[2] / "runtimes/headrace/runtimes/remote/messages/tfserving.binpb"


def check_fields(package: str, message: descriptor_pb2.DescriptorProto) -> None:
    """Compare one of headrace's messages with the official one of the same full name."""
    full_name = f"{package}.{message.name}"
    official = descriptor_pb2.DescriptorProto()
    descriptor_pool.Default().FindMessageTypeByName(full_name).CopyToProto(official)
    theirs = {field.number: field for field in official.field}
    for ours in message.field:
        other = theirs[ours.number]
        assert (ours.name, ours.type, ours.label, ours.type_name) == (
            other.name,
            other.type,
            other.label,
            other.type_name,
        ), (full_name, ours, other)
    numbers = {kind.name: {value.name: value.number for value in kind.value} for kind in official.enum_type}
    for kind in message.enum_type:
        assert {value.name: value.number for value in kind.value}.items() <= numbers[kind.name].items()
    for nested in message.nested_type:
        if not nested.options.map_entry:
            check_fields(full_name, nested)


def serialized(message: Message) -> bytes:
    written: bytes = message.SerializeToString(deterministic=True)
    return written


def filled(kind: str, content: bool) -> tensor_pb2.TensorProto:
    value = tensor(kind)
    message = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(kind))
    for size in value.shape:
        message.tensor_shape.dim.add(size=size)
    if content and kind != "DT_STRING":
        message.tensor_content = value.tobytes()
    else:
        getattr(message, KINDS[kind][1]).extend(single_values(kind))
    return message


def request() -> bytes:
    message = predict_pb2.PredictRequest(output_filter=["y", "z"])
    message.model_spec.name = "digits"
    message.model_spec.signature_name = "serving_default"
    message.model_spec.version.value = 7
    for kind in KINDS:
        message.inputs[kind].CopyFrom(filled(kind, content=True))
    return serialized(message)


def response(content: bool) -> bytes:
    message = predict_pb2.PredictResponse()
    message.model_spec.name = "digits"
    message.model_spec.version.value = 7
    for kind in KINDS:
        message.outputs[kind].CopyFrom(filled(kind, content))
    return serialized(message)


def metadata() -> bytes:
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    for name, sizes, side in (("image", (-1, 8, 8), signature.inputs), ("label", (-1,), signature.outputs)):
        side[name].name = f"{name}:0"
        side[name].dtype = types_pb2.DT_FLOAT
        for size in sizes:
            side[name].tensor_shape.dim.add(size=size)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signatures.signature_def["serving_default"].CopyFrom(signature)
    message = get_model_metadata_pb2.GetModelMetadataResponse()
    message.model_spec.name = "digits"
    message.model_spec.version.value = 7
    message.metadata["signature_def"].Pack(signatures)
    return serialized(message)


def status() -> bytes:
    message = get_model_status_pb2.GetModelStatusResponse()
    message.model_version_status.add(version=7, state=30)
    return serialized(message)


def main() -> None:
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(MESSAGES.read_bytes())
    for file in descriptors.file:
        for message in file.message_type if file.package.startswith("tensorflow") else ():
            check_fields(f"{file.package}", message)
    golden = {
        "request": request(),
        "response_content": response(content=True),
        "response_values": response(content=False),
        "metadata": metadata(),
        "status": status(),
    }
    texts = {name: base64.b64encode(written).decode() for name, written in golden.items()}
    (HERE / "tensorflow_serving.json").write_text(json.dumps(texts, indent=1) + "\n")


if __name__ == "__main__":
    main()
