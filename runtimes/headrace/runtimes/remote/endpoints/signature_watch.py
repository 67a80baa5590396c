"""Changes of a model's tensors since its package was made, as after a reload of the server."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.contracts.errors import quoted
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.runtimes.remote.base import RemoteSignature


def difference(manifest: Manifest, remote: RemoteSignature) -> str:
    """Return how the server's model differs from a package, naming the tensor; "" if requests fit and so do answers.

    A server that doesn't know its tensors differs in nothing.
    """
    if not remote.inputs and not remote.outputs:
        return ""
    constants = {constant.name: constant.datatype for constant in manifest.constants}
    inputs = {spec.name: spec for spec in remote.inputs}
    for name, datatype in constants.items():
        if name not in inputs:
            return f"there is no input {name!r}, which the package sets"
        if inputs[name].datatype != datatype:
            return f"input {name!r} is {inputs[name].datatype}, but the package sets it as {datatype}"
    known = {spec.name for spec in manifest.inputs} | constants.keys()
    more = [spec.name for spec in remote.inputs if spec.name not in known and not spec.optional]
    if more:
        return f"it takes an input {quoted(more[0])}, which model.toml hasn't"
    return _first("input", manifest.inputs, remote.inputs) or _first(
        "output", manifest.signature.outputs, remote.outputs
    )


def _first(kind: str, wanted: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> str:
    by_name = {spec.name: spec for spec in found}
    for spec in wanted:
        have = by_name.get(spec.name)
        if have is None:
            if spec.optional:
                continue
            names = ", ".join(quoted(name) for name in list(by_name)[:8])
            return f"there is no {kind} {spec.name!r}; its {kind}s are: {names}"
        if have.datatype != spec.datatype or not _agree(spec, have):
            return f"{kind} {have.describe()}, but model.toml says {spec.describe()}"
    return ""


def _agree(spec: TensorSpec, have: TensorSpec) -> bool:
    if spec.per_request or have.any_shape or have.per_request:
        return True
    one, other = spec.shape, have.shape
    if len(one) == len(other):
        return all(-1 in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))
    # Some servers write [rows, 1] for [rows].
    return [size for size in one if size != 1] == [size for size in other if size != 1]


def adopted(manifest: Manifest, remote: RemoteSignature) -> Signature | None:
    """Return the signature of a package that goes by what the server says now; None if the package can't.

    What the package says of a tensor besides datatype and shape stays.
    """
    keep = manifest.store.keep
    if not remote.inputs or not remote.outputs or set(keep) - {spec.name for spec in remote.outputs}:
        return None
    return Signature(
        inputs=_renewed(manifest.inputs, remote.inputs), outputs=_renewed(manifest.outputs, remote.outputs)
    )


def _renewed(before: Sequence[TensorSpec], now: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    known = {spec.name: spec for spec in before}
    return tuple(
        msgspec.structs.replace(spec, allow_nan=known[spec.name].allow_nan) if spec.name in known else spec
        for spec in now
    )
