"""torch: programs that `torch.export.save` wrote (`.pt2`)."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from headrace.contracts import ConfigurationError, ModelPackage, PackageError
from headrace.contracts.formatting import first_line
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.fixed_rows import check_row_sizes
from headrace.runtimes.local.devices import split_device
from headrace.runtimes.local.failures import passing_failure
from headrace.runtimes.local.ports import Port, declared_rows, match_outputs, match_ports, refuse_datatypes
from headrace.runtimes.local.positional import PositionalModel
from headrace.runtimes.local.pt2_archive import check_archive

_DTYPES: Final = {
    torch.bool: "?",
    torch.uint8: "u1",
    torch.uint16: "u2",
    torch.uint32: "u4",
    torch.uint64: "u8",
    torch.int8: "i1",
    torch.int16: "i2",
    torch.int32: "i4",
    torch.int64: "i8",
    torch.float16: "f2",
    torch.float32: "f4",
    torch.float64: "f8",
}

#: torch keeps the program that it is reading in a global variable, and refuses a second one meanwhile.
_reading: Final = threading.Lock()


class TorchRuntime:
    """Loads `.pt2` files. Nothing in them is unpickled or evaluated: see `pt2_archive`."""

    def __init__(self, device: str, threads: int) -> None:
        """device: `cpu`, `cuda` or `cuda:N`. threads: of all models in this process, since torch has one setting.

        Raises ConfigurationError when the device is absent.
        """
        kind, index = split_device(device, ("cpu", "cuda"), ("cuda",))
        if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
            raise ConfigurationError(
                f"device {device!r} is not here: torch {torch.__version__} finds {torch.cuda.device_count()} CUDA "
                "devices; install a CUDA build of torch and its driver, or use --device cpu"
            )
        self._device = torch.device(device)
        self._threads = threads

    def load(self, package: ModelPackage) -> LoadedModel:
        """Load a package's `.pt2` file. Raises PackageError naming the cause."""
        refuse_datatypes(package, "torch")
        if self._threads:
            torch.set_num_threads(self._threads)
        check_archive(package.file)
        try:
            program = read_program(package.file)
            if self._device.type != "cpu":
                program = _moved(program, self._device)
            return TorchModel(package, program, self._device)
        except PackageError:
            raise
        except Exception as exc:  # torch raises whatever its parts raise, from KeyError to AssertionError.
            if (passing := passing_failure(exc)) is not None:
                raise passing from exc
            raise PackageError(
                f"{package.file} can't be loaded by torch {torch.__version__}: {first_line(exc)}"
            ) from exc


class TorchModel(PositionalModel):
    """One program, with its weights on one device."""

    def __init__(self, package: ModelPackage, program: ExportedProgram, device: torch.device) -> None:
        """Compare the program with the package. Raises PackageError."""
        super().__init__(package)
        self._device = device
        signature = package.manifest.file_signature
        ports = _input_ports(package, program)
        order = match_ports(package, "input", signature.inputs, ports, else_by="order")
        check_row_sizes(package, declared_rows(signature.inputs, ports, order))
        #: For each input of the program, which of the package's it is.
        self._sources = [order.index(index) for index in range(len(ports))]
        ports = _output_ports(program)
        self._picks = match_outputs(package, ports, else_by="order")
        # Guards are Python text in the file, which torch would evaluate; the signature is checked instead.
        module = program.module(check_guards=False)
        self._module: torch.nn.Module | None = module
        self._keywords = _keywords(program)
        #: Which inputs the program writes into; and what it would keep from one run to the next, as it was at first.
        self._copied = [str(name) in _written(program) for name in program.graph_signature.user_inputs]
        kept = kept_buffers(program)
        self._state = [(buffer, buffer.clone()) for name, buffer in module.named_buffers() if name in kept]

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[np.generic]]:
        assert self._module is not None
        tensors = [
            torch.tensor(arrays[source], device=self._device)
            if copied
            else torch.from_numpy(arrays[source]).to(self._device)
            for source, copied in zip(self._sources, self._copied, strict=True)
        ]
        for buffer, initial in self._state:
            # What one request leaves behind is nothing to the next.
            buffer.copy_(initial)
        positional = len(tensors) - len(self._keywords)
        with torch.inference_mode():
            result = self._module(*tensors[:positional], **dict(zip(self._keywords, tensors[positional:], strict=True)))
            flat = torch.utils._pytree.tree_leaves(result)
            # A program may return a weight or an input as it is; a copy belongs to the caller alone.
            return [np.array(flat[pick].cpu().numpy(), order="C") for pick in self._picks]

    def _free(self) -> None:
        self._module = None
        self._state = []
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def read_program(file: Path) -> ExportedProgram:
    """Read a `.pt2` file that `check_archive` passed. Raises whatever the parts of torch raise."""
    # Its import registers the operators of int8 programs.
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    # Not torch.export.load: that answers an error with the format of old versions, which unpickles.
    from torch.export.pt2_archive._package import load_pt2

    with _reading:
        return load_pt2(str(file)).exported_programs["model"]


def _moved(program: ExportedProgram, device: torch.device) -> ExportedProgram:
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


def kept_buffers(program: ExportedProgram) -> set[str]:
    """Return the names of the buffers in which a program keeps something from one run to the next."""
    signature = program.graph_signature
    written = _written(program)
    buffers = {buffer for name, buffer in signature.inputs_to_buffers.items() if name in written}
    return buffers | set(signature.buffers_to_mutate.values())


def _written(program: ExportedProgram) -> set[str]:
    """Return the program's inputs, weights and buffers among them, into whose memory some operator writes."""
    written = set()
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        for argument, value in zip(schema.arguments, node.args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                origin = value
                # A view shares the memory of what it was made of.
                while isinstance(origin, torch.fx.Node) and origin.op == "call_function" and origin.args:
                    origin = origin.args[0]
                if isinstance(origin, torch.fx.Node):
                    written.add(origin.name)
    return written


def _keywords(program: ExportedProgram) -> list[str]:
    """Return the names of arguments that the program takes by name, in its order."""
    keywords = program.call_spec.in_spec.children()[1]
    return list(keywords.context or [])


def _input_ports(package: ModelPackage, program: ExportedProgram) -> list[Port]:
    arguments, keywords = program.call_spec.in_spec.children()
    if not all(child.is_leaf() for child in (*arguments.children(), *keywords.children())):
        raise PackageError(f"{package.file} takes lists or dicts of tensors; export a module that takes tensors only")
    return [_port(name, program) for name in program.graph_signature.user_inputs]


def _output_ports(program: ExportedProgram) -> list[Port]:
    """Return the outputs in the order of `tree_leaves`; those of a dict have its keys as their names."""
    spec = program.call_spec.out_spec
    names = [str(name) for name in program.graph_signature.user_outputs]
    ports = [_port(name, program) for name in names]
    if spec.type is dict and all(child.is_leaf() for child in spec.children()):
        return [Port(str(key), port.dtype, port.shape) for key, port in zip(spec.context, ports, strict=True)]
    # Names of a graph's last nodes, such as "softmax", say nothing: the order decides.
    return [Port(f"#{number}", port.dtype, port.shape) for number, port in enumerate(ports)]


def _port(name: object, program: ExportedProgram) -> Port:
    value = value_of(name, program)
    if value is None:
        return Port(str(name))
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Port(str(name), numpy_dtype(value.dtype), shape)


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any] | None:
    """Return numpy's dtype for torch's; None when it has none."""
    kind = _DTYPES.get(dtype)
    return None if kind is None else np.dtype(kind)


def value_of(name: object, program: ExportedProgram) -> torch.Tensor | None:
    """Return the tensor of shapes that a node of the graph stands for; None when it is no tensor."""
    node = next((node for node in program.graph.nodes if node.name == name), None)
    value = None if node is None else node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None
