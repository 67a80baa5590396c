"""SavedModels that a server has loaded, by name, version and label."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.internal.containers import MessageMap
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tests.servers.tfserving.batching import Batcher, describe
from tests.servers.tfserving.tensors import Tensors


@dataclass(frozen=True)
class ModelConfig:
    """A model as the server is told to serve it. delay_s: for how long each batch keeps the device busy."""

    name: str
    base_path: str
    version_labels: dict[str, int] = field(default_factory=dict)
    batching: dict[str, Any] | None = None
    delay_s: float = 0.0


class Servable:
    """One version of a model, in a TensorFlow session of its own."""

    def __init__(self, config: ModelConfig, version: int) -> None:
        self.version = version
        self._delay_s = config.delay_s
        self._batcher = Batcher(describe(config.batching)) if config.batching else None
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            graph = tf.compat.v1.saved_model.load(self._session, ["serve"], f"{config.base_path}/{version}")
        self.signatures: MessageMap[str, SignatureDef] = graph.signature_def

    def signature(self, name: str) -> SignatureDef:
        """Return a signature by its name, or the default one."""
        key = name or "serving_default"
        if key not in self.signatures:
            raise tf.errors.FailedPreconditionError(None, None, f'Serving signature key "{key}" not found.')
        return self.signatures[key]

    def run(self, signature_name: str, inputs: Tensors, output_filter: tuple[str, ...]) -> Tensors:
        """Return the outputs that are asked for. Raises tf.errors.OpError."""
        signature = self.signature(signature_name)
        _check_names(signature, inputs, output_filter)
        names = output_filter or tuple(sorted(signature.outputs))

        def run_session(batch: Tensors) -> Tensors:
            return self._run_session(signature, batch, names)

        for name, array in inputs.items():
            _check(signature, name, array)
        if self._batcher is None:
            return run_session(inputs)
        return self._batcher.run((signature_name, names), inputs, run_session)

    def _run_session(self, signature: SignatureDef, inputs: Tensors, names: tuple[str, ...]) -> Tensors:
        time.sleep(self._delay_s)
        feeds = {signature.inputs[name].name: array for name, array in inputs.items()}
        outputs = self._session.run([signature.outputs[name].name for name in names], feeds)
        return {name: np.asarray(array) for name, array in zip(names, outputs, strict=True)}


def _check_names(signature: SignatureDef, inputs: Tensors, output_filter: tuple[str, ...]) -> None:
    wanted, given = set(signature.inputs), set(inputs)
    if len(wanted) != len(given):
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"input size does not match signature: {len(given)}!={len(wanted)} len({{{_listed(given)}}}) != "
            f"len({{{_listed(wanted)}}}). Sent extra: {{{_listed(given - wanted)}}}. "
            f"Missing but required: {{{_listed(wanted - given)}}}.",
        )
    for name in sorted(given - wanted):
        text = f"input tensor alias not found in signature: {name}. Inputs expected to be in the set "
        raise tf.errors.InvalidArgumentError(None, None, f"{text}{{{_listed(wanted)}}}.")
    for name in output_filter:
        if name not in signature.outputs:
            text = f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
            raise tf.errors.InvalidArgumentError(None, None, f"{text}{{{_listed(set(signature.outputs))}}}.")


def _check(signature: SignatureDef, name: str, array: np.ndarray[Any, Any]) -> None:
    spec = signature.inputs[name]
    kind = tf.as_dtype(spec.dtype)
    given = tf.string if array.dtype.kind == "O" else tf.as_dtype(array.dtype)
    if kind != given:
        text = f"Expects arg[0] to be {kind.name} but {given.name} is provided"
        raise tf.errors.InvalidArgumentError(None, None, text)
    shape = tf.TensorShape(spec.tensor_shape)
    if not shape.is_compatible_with(array.shape):
        text = f"Incompatible shapes: the signature has {shape} for {name}, and {list(array.shape)} was fed"
        raise tf.errors.InvalidArgumentError(None, None, text)


def _listed(names: set[str]) -> str:
    return ",".join(sorted(names))


class Registry:
    """What the server serves; a new configuration loads and unloads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._configs: dict[str, ModelConfig] = {}
        self._servables: dict[str, dict[int, Servable]] = {}

    def configure(self, configs: list[ModelConfig]) -> None:
        """Load what is new, unload what is gone; what stays is served meanwhile."""
        for config in configs:
            known = self._servables.get(config.name, {})
            same = self._configs.get(config.name) == config
            versions = sorted(int(path.name) for path in Path(config.base_path).iterdir() if path.name.isdigit())
            loaded = {
                version: known[version] if same and version in known else Servable(config, version)
                for version in versions
            }
            with self._lock:
                self._configs[config.name], self._servables[config.name] = config, loaded
        with self._lock:
            for name in set(self._configs) - {config.name for config in configs}:
                del self._configs[name], self._servables[name]

    def config(self, name: str) -> ModelConfig | None:
        """Return the configuration of a model that is served."""
        with self._lock:
            return self._configs.get(name)

    def versions(self, name: str) -> list[int]:
        """Return the loaded versions of a model. Raises tf.errors.NotFoundError."""
        with self._lock:
            versions = self._servables.get(name)
        if not versions:
            raise tf.errors.NotFoundError(None, None, f"Could not find any versions of model {name}")
        return sorted(versions, reverse=True)

    def find(self, spec: ModelSpec) -> Servable:
        """Return the version that is asked for, the latest by default. Raises tf.errors.OpError."""
        with self._lock:
            versions = dict(self._servables.get(spec.name, {}))
            labels = self._configs[spec.name].version_labels if spec.name in self._configs else {}
        if spec.WhichOneof("version_choice") == "version_label":
            if spec.version_label not in labels:
                text = f"Unrecognized servable version label: {spec.version_label}"
                raise tf.errors.InvalidArgumentError(None, None, text)
            version = labels[spec.version_label]
        elif spec.HasField("version"):
            version = spec.version.value
        elif versions:
            version = max(versions)
        else:
            raise tf.errors.NotFoundError(None, None, f"Servable not found for request: Latest({spec.name})")
        if version not in versions:
            text = f"Servable not found for request: Specific({spec.name}, {version})"
            raise tf.errors.NotFoundError(None, None, text)
        return versions[version]
