"""Loading of torch networks by reference: `module:factory`, a user's function that returns a `torch.nn.Module`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from headrace.compression.errors import CompressionError, DataError, MissingLibrary
from headrace.contracts import Tensors
from headrace.contracts.errors import quoted

if TYPE_CHECKING:
    from torch import nn

    from headrace.compression.networks.network import Network


def need_torch(what: str) -> None:
    """Raise MissingLibrary naming the extra when torch isn't installed. what: that needs it."""
    try:
        import torch  # noqa: F401
    except ImportError as exc:
        raise MissingLibrary(what, "torch") from exc


def load_network(
    reference: str,
    *,
    example: Tensors,
    outputs: Sequence[str] = (),
    name: str = "",
    shapes: Sequence[Sequence[int]] = (),
) -> Network:
    """Load a torch network: call the factory that a reference names, and try its module on the example rows.

    **This imports and runs the code that the reference names**, with all rights of this process: load only code that
    you trust.

    reference: `package.module:factory`, looked for in the current folder first, or `path/to/file.py:factory`. The
    factory takes no arguments and gives a torch.nn.Module with its weights. example: real rows of every input, at
    least one; inputs are matched by the names of the parameters of `forward`, or else by their order. outputs: names
    in the order in which the module gives them; by default the keys of the dict that it gives, else `output`, or
    `output_0`, `output_1` … name: of the model; the factory's by default. shapes: of every input in the order of
    `example`, without rows, -1 where any size must do.
    Raises CompressionError for a fault of the reference, the factory or the module, DataError when the
    example has no rows, MissingLibrary without torch.
    """
    need_torch("loading a network")
    from headrace.compression.networks.network import Network

    _check_example(example)
    module = _call(reference, _find(reference))
    module, order = _match_inputs(reference, module, list(example))
    by_name = dict(zip(example, map(tuple, shapes), strict=True)) if shapes else {}
    network = Network(
        name=name or _name_of(reference),
        module=module,
        example={key: example[key] for key in order},
        outputs=(),
        provenance={"source": reference},
        origin=reference,
        shapes=tuple(by_name[key] for key in order) if by_name else (),
    )
    return _try_out(reference, network, tuple(outputs))


def _check_example(example: Tensors) -> None:
    rows = {key: len(array) if array.ndim else 0 for key, array in example.items()}
    if not rows or 0 in rows.values() or len(set(rows.values())) > 1:
        raise DataError(f"the example must hold the same number of rows of every input, at least one; it has {rows}")


def _name_of(reference: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", reference.rpartition(":")[2]).strip("-_") or "model"


def _find(reference: str) -> Callable[[], object]:
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        raise CompressionError(
            f"{quoted(reference)} is no reference to a network; write module:factory, or path/to/file.py:factory"
        )
    found: Any = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise CompressionError(f"{where} has no {attribute!r}; {_callables_of(found)}")
        found = getattr(found, part)
    if not callable(found):
        raise CompressionError(
            f"{reference} is a {type(found).__name__}, not a factory; name a function that gives a torch.nn.Module"
        )
    return found  # type: ignore[no-any-return]


def _callables_of(found: object) -> str:
    """List the callables of a module, one of which may have been meant."""
    own = [
        name
        for name, value in vars(found).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == found.__name__  # type: ignore[attr-defined]
    ]
    return f"it has: {', '.join(own)}" if own else "it defines nothing that could be called"


def _load_module(name: str) -> ModuleType:
    with _first_on_path(Path.cwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as exc:
            # A module that is there may lack one of its own imports, which is another story.
            if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
                raise CompressionError(
                    f"there is no module {exc.name!r} in {Path.cwd()} or among the installed ones; "
                    "go to the folder that holds it, or give path/to/file.py:factory"
                ) from exc
            raise _import_failed(name, exc) from exc
        except (Exception, SystemExit) as exc:  # anything that the user's code does at import
            raise _import_failed(name, exc) from exc


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise CompressionError(f"{path} does not exist; give path/to/file.py:factory")
    name = f"headrace_factory_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _first_on_path(path.absolute().parent):
        before = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses and pickle look their module up there
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as exc:  # anything that the user's code does at import
            if before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = before
            raise _import_failed(str(path), exc) from exc
    return module


def _import_failed(what: str, exc: BaseException) -> CompressionError:
    return CompressionError(f"{what} can't be imported: {_said(exc)}; mend it, or install what it needs")


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Put a folder first on the import path, as running a script there does."""
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)


def _call(reference: str, factory: Callable[[], object]) -> nn.Module:
    from torch import nn

    try:
        inspect.signature(factory).bind()
    except TypeError as exc:
        raise CompressionError(f"{reference} must be callable without arguments, but {exc}") from exc
    except ValueError:
        pass  # functions in C may have no signature; then the call shows it
    try:
        made = factory()
    except (Exception, SystemExit) as exc:  # anything that the user's code does
        raise CompressionError(f"{reference} raised {_said(exc)}") from exc
    if not isinstance(made, nn.Module):
        raise CompressionError(f"{reference} gave a {type(made).__name__}; it must give a torch.nn.Module")
    with suppress(NotImplementedError):  # programs that torch.export made have no modes
        made.eval()
    return made


def _match_inputs(reference: str, module: nn.Module, names: list[str]) -> tuple[nn.Module, list[str]]:
    """Return the order of the module's arguments, and a module that takes them by position."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    named = [each for each in parameters if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}]
    positional = [each for each in parameters if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}]
    takes_more = any(each.kind == each.VAR_POSITIONAL for each in parameters)
    matching = [each.name for each in named if each.name in names]
    unknown = [name for name in names if name not in matching]
    needed = dict.fromkeys(each.name for each in (*positional, *named) if each.default is each.empty)
    if not matching and (takes_more or len(names) <= len(positional)) and len(needed) <= len(names):
        return module, names
    lacking = [name for name in needed if name not in names]
    if unknown or lacking:
        problem = f"does not take {unknown[0]!r}" if unknown else f"needs {lacking[0]!r} too"
        raise CompressionError(
            f"forward of {reference} {problem}; its parameters are: {', '.join(each.name for each in parameters)}; "
            f"the example rows have: {', '.join(names)}"
        )
    if [each.name for each in positional][: len(matching)] == matching:
        return module, matching
    return _by_name(module, matching), matching


def _by_name(module: nn.Module, names: list[str]) -> nn.Module:
    """Wrap a module of which not the first parameters are given."""
    from torch import Tensor, nn

    class ByName(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, *inputs: Tensor) -> object:
            return self.network(**dict(zip(names, inputs, strict=True)))

    return ByName().eval()


def _try_out(reference: str, network: Network, outputs: tuple[str, ...]) -> Network:
    """Run the example rows, then one of them, and name the outputs. Raises CompressionError."""
    import dataclasses

    rows = len(next(iter(network.example.values())))
    result = _run(reference, network, rows)
    network = dataclasses.replace(network, outputs=_name_outputs(reference, result, outputs))
    for count in dict.fromkeys((rows, 1)):
        for name, tensor in network.named(result if count == rows else _run(reference, network, count)).items():
            if tensor.ndim == 0 or len(tensor) != count:
                raise CompressionError(
                    f"output {name!r} of {reference} has the shape {list(tensor.shape)} for {count} rows; its first "
                    "dimension must be the rows"
                )
    return network


def _run(reference: str, network: Network, rows: int) -> object:
    import torch

    try:
        with torch.no_grad():
            return network.module(*network.arguments({key: array[:rows] for key, array in network.example.items()}))
    except DataError:
        raise
    except Exception as exc:  # anything that the user's code does
        shapes = ", ".join(f"{key} {array.dtype} {[rows, *array.shape[1:]]}" for key, array in network.example.items())
        raise CompressionError(f"{reference} fails on {rows} of the example rows ({shapes}): {_said(exc)}") from exc


def _name_outputs(reference: str, result: object, outputs: tuple[str, ...]) -> tuple[str, ...]:
    from collections.abc import Mapping

    from headrace.compression.networks.network import flatten

    tensors = flatten(result, outputs if isinstance(result, Mapping) else ())
    if isinstance(result, Mapping):
        names = outputs or tuple(map(str, result))
    else:
        names = outputs or (("output",) if len(tensors) == 1 else tuple(f"output_{i}" for i in range(len(tensors))))
    if len(names) != len(tensors) or len(set(names)) != len(names):
        raise CompressionError(
            f"{reference} gives {len(tensors)} outputs, which {', '.join(map(repr, names))} can't name; "
            "give each a name of its own"
        )
    return names


def _said(exc: BaseException) -> str:
    """Return the class of an error and the first line of its message."""
    text = str(exc).strip()
    return f"{type(exc).__name__}: {text.splitlines()[0]}" if text else type(exc).__name__
