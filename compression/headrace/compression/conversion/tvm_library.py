"""TVM (experimental): ONNX packages as native code, compiled on this machine for its kind of processor."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from headrace.compression.conversion.verify import TOLERANCE, kept_if_proven, need, prove_same
from headrace.compression.data.row_layout import without_constants
from headrace.compression.errors import CompressionError, NotApplicable
from headrace.compression.onnx_model.failure_messages import versioned
from headrace.compression.onnx_model.source import read_model
from headrace.compression.silence import quieted
from headrace.compression.steps import StepContext, step_record
from headrace.contracts import ModelPackage
from headrace.contracts.formatting import first_line
from headrace.lifecycle.packages.registry import derive_package

if TYPE_CHECKING:
    import onnx

EXTRA: Final = "tvm"

LIBRARY_FILE: Final = "model.so"

#: What can link; TVM looks for the same, and dies of a TypeError without.
_LINKERS: Final = ("g++", "gcc", "clang++", "clang", "c++", "cc")

#: What the record and the report say of every such package.
WARNING: Final = (
    "experimental: without tuning, TVM's code is about 40 times slower than ONNX Runtime; the package holds native "
    "code, which runs as soon as it is loaded: take such packages only from those whose programs you would run"
)


@dataclass(frozen=True)
class TvmLibrary:
    """Compile with TVM. target: as TVM writes it; `llvm` makes code for any processor of this family.

    tolerance: largest difference allowed, in units of 1 + the output's largest absolute value.
    """

    target: str = "llvm"
    tolerance: float = TOLERANCE

    def convert(self, package: ModelPackage, context: StepContext) -> ModelPackage:
        """Return the package for TVM.

        Raises NotApplicable for what isn't an ONNX package; CompressionError naming operators that TVM hasn't, when it
        can't compile here, or when outputs differ or some number of rows fails.
        """
        source = read_model(package, "TvmLibrary")
        need("conversion for TVM", EXTRA, "tvm")
        _need_linker()
        _order(source, package)
        folder = context.step_dir(self)
        context.progress(0, 0, "compiling with TVM")
        with kept_if_proven(folder):
            file = self._compile(source, folder / LIBRARY_FILE)
            facts = {"warning": WARNING, **_versions()}
            product = derive_package(package, folder, [file], runtime="tvm", step=step_record(self) | facts)
            product = without_constants(product)
            prove_same(product, package, context, self.tolerance, "the TVM library")
        return product

    def _compile(self, source: onnx.ModelProto, file: Path) -> Path:
        # TVM's passes tell what they found nothing to do with.
        with quieted("tvm"):
            import tvm
            from tvm.relax.frontend.onnx import from_onnx

            if self.target.startswith("llvm") and tvm.get_global_func("target.build.llvm", allow_missing=True) is None:
                raise NotApplicable("this build of TVM has no LLVM, so it can't compile; install another one")
            try:
                module = from_onnx(source, keep_params_in_input=False)
            except Exception as exc:  # TVM raises its own classes and plain ones.
                raise CompressionError(
                    f"{versioned('apache-tvm')} can't read this model: {_cause(exc)}; serve it with onnxruntime, or "
                    "export it without them"
                ) from exc
            try:
                tvm.relax.build(module, target=self.target).export_library(str(file))
            except Exception as exc:  # As above; and whatever the linker says.
                raise CompressionError(
                    f"{versioned('apache-tvm')} can't compile this model: {_cause(exc)}; serve it with onnxruntime or "
                    "openvino"
                ) from exc
        return file


def _need_linker() -> None:
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", *_LINKERS)):
        raise NotApplicable("TVM needs a C++ compiler to link its code, and there is none here; install g++ or clang")


def _order(source: onnx.ModelProto, package: ModelPackage) -> None:
    """Bring inputs and outputs into the package's order, since a library keeps no names."""
    weights = {tensor.name for tensor in source.graph.initializer}
    for values, specs in (
        (source.graph.input, package.manifest.inputs),
        (source.graph.output, package.manifest.outputs),
    ):
        by_name = {value.name: value for value in values}
        kept = [by_name.pop(spec.name) for spec in specs]
        others = [value for value in values if value.name in by_name and value.name in weights]
        ordered = [type(value).FromString(value.SerializeToString()) for value in (*kept, *others)]
        del values[:]
        values.extend(ordered)


def _cause(exc: Exception) -> str:
    """Return the line of the cause; those before it are TVM's call stack."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return next((line for line in lines if "not supported" in line or "Error" in line), first_line(exc))


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {"versions": {"apache-tvm": version("apache-tvm")}}
