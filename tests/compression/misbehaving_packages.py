"""Packages of the misbehaving runtime, and the environment in which processes find it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.compression.misbehaving_runtime import MisbehavingRuntime
from tests.plugin import write_plugin

from headrace.contracts import ModelPackage, TensorSpec, read_package
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest

MakePackage = Callable[..., ModelPackage]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the runtime a plug-in of processes that are started from now on."""
    write_plugin(folder, MisbehavingRuntime)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def package_of(
    folder: Path, shape: tuple[int, ...] = (2,), row_sizes: tuple[int, ...] = (), **says: object
) -> ModelPackage:
    """Make a package whose model behaves as `says` says."""
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps(says))
    write_manifest(
        folder,
        Manifest(
            name="misbehaving",
            version="1",
            runtime="misbehaving",
            file="model.json",
            sha256=sha256_of(folder / "model.json"),
            inputs=(TensorSpec(name="x", datatype="FP32", shape=shape, allow_nan=False),),
            outputs=(TensorSpec(name="y", datatype="FP32", shape=shape, allow_nan=True),),
            batching=BatchingAdvice(row_sizes=row_sizes, max_rows=row_sizes[-1] if row_sizes else 64),
        ),
    )
    return read_package(folder)
