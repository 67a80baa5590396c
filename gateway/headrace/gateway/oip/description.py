"""Descriptions of the server and of models, as the Open Inference Protocol and Triton's extensions have them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.contracts.tensors.datatypes import DTYPES
from headrace.contracts.tensors.oip_http import BINARY_ONLY

#: Extensions of the protocol that work here, by the names that Triton gave them.
EXTENSIONS: Final = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)

#: Most values of an example call; larger inputs come without one.
_EXAMPLE_VALUES: Final = 1024

#: A size for each dimension that varies, in an example call.
_EXAMPLE_SIZE: Final = 2


def server_metadata(version: str) -> dict[str, Any]:
    """Return the description of the server. version: of headrace."""
    return {"name": "headrace", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(
    name: str, versions: Sequence[str], platform: str, signature: Signature, labels: Sequence[str]
) -> dict[str, Any]:
    """Return the description of a model. Shapes are whole, -1 for the rows and whatever varies.

    labels: class names in the order of an output's last dimension.
    """
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [_tensor(spec) for spec in signature.inputs],
        "outputs": [_tensor(spec) for spec in signature.outputs],
        **({"parameters": {"labels": list(labels)}} if labels else {}),
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(_shape(spec))}


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    # The protocol has no word for any number of dimensions.
    return (-1,) if spec.any_shape else spec.whole_shape(-1)


def model_config(
    name: str, versions: Sequence[str], platform: str, signature: Signature, max_rows: int
) -> dict[str, Any]:
    """Return a model as Triton's configuration has it.

    max_rows: most rows of a batch, 0 where it isn't known. Dimensions come without rows where every tensor has them
    first; else max_batch_size is 0, as Triton has it for models that don't batch, and dimensions are whole.
    """
    batches = max_rows > 0 and signature.has_rows_first
    return {
        "name": name,
        "platform": platform,
        "backend": "headrace",
        "version_policy": {"specific": {"versions": [int(each) for each in versions if each.isdecimal()]}},
        "max_batch_size": max_rows if batches else 0,
        "input": [_config_tensor(spec, batches) | {"optional": spec.optional} for spec in signature.inputs],
        "output": [_config_tensor(spec, batches) for spec in signature.outputs],
        **({"dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": 0}} if batches else {}),
    }


def _config_tensor(spec: TensorSpec, batches: bool) -> dict[str, Any]:
    shape = spec.shape if batches else _shape(spec)
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": list(shape)}


def example_request(signature: Signature) -> dict[str, Any] | None:
    """Return the JSON of a request with one row of zeros; None where that would be long, or is impossible in JSON."""
    inputs = []
    for spec in signature.inputs:
        if spec.optional:
            continue
        if spec.datatype in BINARY_ONLY or spec.any_shape or spec.datatype not in DTYPES:
            return None
        shape = [_EXAMPLE_SIZE if size == -1 else size for size in spec.whole_shape(1)]
        count = int(np.prod(shape))
        if count > _EXAMPLE_VALUES:
            return None
        zero: object = "" if spec.datatype == "BYTES" else False if spec.datatype == "BOOL" else 0
        inputs.append({"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": [zero] * count})
    return {"inputs": inputs}


def example_curl(url: str, signature: Signature) -> str:
    """Return a command that sends an example request, "" where there is none. url: of the model's `infer`."""
    request = example_request(signature)
    if request is None:
        return ""
    return f"curl {shlex.quote(url)} -d {shlex.quote(orjson.dumps(request).decode())}"


def repository_entry(name: str, version: str, *, ready: bool, reason: str) -> Mapping[str, str]:
    """Return a model as the repository index lists it. reason: why it isn't ready."""
    return {"name": name, "version": version, "state": "READY" if ready else "UNAVAILABLE", "reason": reason}
