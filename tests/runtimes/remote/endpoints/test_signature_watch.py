"""Tensors of a reloaded model: the same, others by name, or taken over."""

from __future__ import annotations

import pytest

from headrace.contracts import TensorSpec
from headrace.contracts.package.manifest import Constant, Manifest, StoreAdvice
from headrace.contracts.package.server import Server
from headrace.runtimes.remote.base import RemoteSignature
from headrace.runtimes.remote.endpoints.signature_watch import adopted, difference

X = TensorSpec(name="x", datatype="FP32", shape=(4,), allow_nan=False)
Y = TensorSpec(name="y", datatype="FP32", shape=(-1,))
Z = TensorSpec(name="z", datatype="INT64")
MANIFEST = Manifest(
    name="m",
    version="1",
    runtime="oip",
    server=Server(endpoints=("http://localhost:1",), model="m"),
    inputs=(X,),
    outputs=(Y,),
)


def spec(name: str, datatype: str = "FP32", *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def remote(inputs: tuple[TensorSpec, ...] = (X,), outputs: tuple[TensorSpec, ...] = (Y,)) -> RemoteSignature:
    return RemoteSignature(inputs=inputs, outputs=outputs)


@pytest.mark.parametrize(
    "same",
    [
        remote(),
        remote((spec("x", "FP32", -1),)),
        remote((spec("x", "FP32", 4, 1),)),
        remote(outputs=(spec("more"), spec("y", "FP32", 7))),
        remote((), ()),
    ],
)
def test_what_requests_and_answers_still_fit_is_no_difference(same: RemoteSignature) -> None:
    assert difference(MANIFEST, same) == ""


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (remote((spec("x", "FP64", 4),)), r"input x FP64 [rows, 4], but model.toml says x FP32 [rows, 4]"),
        (remote((spec("x", "FP32", 5),)), r"input x FP32 [rows, 5]"),
        (remote((X, Z)), "it takes an input 'z', which model.toml hasn't"),
        (remote((Z,)), "it takes an input 'z'"),
        (remote(outputs=(Z,)), "there is no output 'y'; its outputs are: 'z'"),
        (remote(outputs=(spec("y", "FP16", -1),)), "output y FP16"),
    ],
)
def test_another_tensor_is_named(other: RemoteSignature, words: str) -> None:
    assert words in difference(MANIFEST, other)


def test_a_constant_is_an_input_of_the_server() -> None:
    import msgspec

    manifest = msgspec.structs.replace(MANIFEST, constants=(Constant(name="rate", datatype="INT64", value=[16000]),))
    assert difference(manifest, remote((X, spec("rate", "INT64")))) == ""
    assert "no input 'rate'" in difference(manifest, remote())
    assert "'rate' is FP32" in difference(manifest, remote((X, spec("rate"))))


def test_only_outputs_that_are_kept_matter() -> None:
    import msgspec

    manifest = msgspec.structs.replace(MANIFEST, outputs=(Y, Z), store=StoreAdvice(keep=("y",)))
    assert difference(manifest, remote()) == ""
    assert adopted(manifest, remote(outputs=(Z,))) is None


def test_a_new_signature_is_taken_over_with_what_the_package_knows_beside_it() -> None:
    found = adopted(MANIFEST, remote((spec("x", "FP32", 5), Z), (spec("w"),)))
    assert found is not None
    assert [(each.name, each.shape, each.allow_nan) for each in found.inputs] == [("x", (5,), False), ("z", (), True)]
    assert [each.name for each in found.outputs] == ["w"]
    assert adopted(MANIFEST, remote((), ())) is None
