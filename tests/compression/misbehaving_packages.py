"""Packages of the misbehaving runtime, and the environment in which processes find it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.contracts import ModelPackage, TensorSpec, read_package
from headrace.contracts.package.manifest import BatchingAdvice, Manifest, sha256_of, write_manifest

MakePackage = Callable[..., ModelPackage]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the runtime a plug-in of processes that are started from now on."""
    info = folder / "misbehaving-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[headrace.runtimes]\nmisbehaving = misbehaving_runtime:MisbehavingRuntime\n"
    )
    shutil.copy(Path(__file__).with_name("misbehaving_runtime.py"), folder)
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
