"""Refuses `.pt2` archives that would run code while they are read.

`torch.export.load` unpickles, without asking, weights and constants that the archive says are pickled, custom objects,
and example inputs that its safe unpickler refuses; it evaluates shape expressions as Python, builds Python source from
the graph's names, and loads native code. An archive that passes needs none of that. Written against torch 2.13.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from headrace.contracts import PackageError
from headrace.contracts.errors import quoted

#: Everything that `torch.export.save` writes for one program of plain tensors.
_RECORDS: Final = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|extra/.*|"
    r"data/weights/(?:weight_\d+|model_weights_config\.json)|"
    r"data/constants/(?:tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
)

#: What else may lie in an archive, by the start of its name, and what it is.
_REFUSED: Final = {
    "data/aotinductor/": "compiled native code",
    "data/constants/custom_obj_": "a pickled object",
    "data/constants/opaque_obj_": "a pickled object",
    "data/weights/model.pt": "pickled weights, as old versions of torch wrote them",
    "data/constants/model.pt": "pickled constants, as old versions of torch wrote them",
}

#: Registered operators, and the arithmetic of sizes; torch looks anything else up by attribute, whatever it is.
_OPERATORS: Final = re.compile(
    r"torch\.ops\.[a-z]\w*\.(?:_?[A-Za-z0-9]\w*|__i?(?:and|or|xor|lshift|rshift)__)(?:\.[A-Za-z]\w*)?|"
    r"torch\._?sym_[a-z]+|math\.(?:trunc|ceil|floor)|"
    r"_operator\.(?:eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift|rshift|getitem)"
)

#: sympy's names, and torch's additions to them, that describe sizes.
_SIZE_FUNCTION: Final = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Abs|And|Or|Not|Equality|Unequality|Eq|Ne|Lt|Le|Gt|Ge|"
    r"StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|FloorDiv|ModularIndexing|Where|PythonMod|CleanDiv|CeilToInt|"
    r"FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt|"
    r"RoundToInt|RoundDecimal|ToFloat|Identity|IsNonOverlappingAndDenseIndicator"
)
_SIZE_SYMBOL: Final = re.compile(r"(?:s|u|zuf|zf)\d+|true|false|oo|int_oo")

#: Syntax of size expressions beyond calls, names and constants.
_SIZE_SYNTAX: Final = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.keyword, ast.Load),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)

#: Containers that inputs and outputs may be in; others make torch import the module they name.
_CONTAINERS: Final = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})

#: Keys of `model.json` whose text torch only keeps, quotes, or (guards) evaluates in a check that is left out here.
_QUOTED_KEYS: Final = frozenset({"metadata", "guards_code", "torch_version", "as_string", "as_strings", "verifiers"})
_PLAIN: Final = re.compile(r"-?[\w.\[\]]*")


def check_archive(file: Path) -> None:
    """Raise PackageError naming what in a `.pt2` archive would run code, or why it can't be read."""
    from torch.export.pt2_archive import PT2ArchiveReader

    try:
        reader = PT2ArchiveReader(str(file))
        names = reader.get_file_names()
        for name in names:
            _check_record(file, name)
        for config in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
            _check_payloads(file, json.loads(reader.read_bytes(config)))
        _check_examples(file, reader.read_bytes("data/sample_inputs/model.pt"))
        program = json.loads(reader.read_bytes("models/model.json"))
    except (RuntimeError, AssertionError, ValueError, RecursionError) as exc:
        raise PackageError(f"{file} is no .pt2 program: {(str(exc).splitlines() or ['not readable'])[0]}") from exc
    for key, text in _texts(program):
        _check_text(file, key, text)


def _check_record(file: Path, name: str) -> None:
    if _RECORDS.fullmatch(name):
        return
    what = next((what for start, what in _REFUSED.items() if name.startswith(start)), "something else than a program")
    raise _unsafe(file, f"it holds {what} ({quoted(name)})")


def _check_payloads(file: Path, config: dict[str, Any]) -> None:
    for name, payload in config["config"].items():
        if payload.get("use_pickle"):
            raise _unsafe(file, f"tensor {quoted(name)} is pickled; export plain tensors")


def _check_examples(file: Path, pickled: bytes) -> None:
    from pickle import UnpicklingError

    import torch

    if not pickled:
        return  # exported without example inputs
    try:
        torch.load(io.BytesIO(pickled), weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as exc:
        raise _unsafe(file, "its example inputs are objects other than tensors") from exc


def _texts(node: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Return every text of a JSON document with the key it stands under; keys count as texts too."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item, key)
    elif isinstance(node, dict):
        for name, item in node.items():
            yield "", name
            if name not in _QUOTED_KEYS:
                yield from _texts(item, name)


def _check_text(file: Path, key: str, text: str) -> None:
    if key in {"target", "as_operator"}:
        fits = _OPERATORS.fullmatch(text) is not None
    elif key == "expr_str":
        fits = _is_size(text)
    elif key in {"in_spec", "out_spec"}:
        fits = not text or _is_plain_tree(json.loads(text))
    else:
        fits = _PLAIN.fullmatch(text) is not None
    if not fits:
        raise _unsafe(file, f"it says {quoted(text)} where a program has no such thing")


def _is_size(text: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return all(_is_size_part(node, id(node) in called) for node in ast.walk(tree))


def _is_size_part(node: ast.AST, called: bool) -> bool:
    if isinstance(node, ast.Name):
        return (_SIZE_FUNCTION if called else _SIZE_SYMBOL).fullmatch(node.id) is not None
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or re.fullmatch(r"[\w.+-]*", node.value) is not None
    return isinstance(node, _SIZE_SYNTAX)


def _is_plain_tree(node: object) -> bool:
    """Check a serialised structure of inputs or outputs: [protocol, node], a node having type, context, children."""
    if isinstance(node, list):
        return all(_is_plain_tree(item) for item in node)
    if isinstance(node, dict):
        kind, context = node.get("type"), node.get("context")
        plain = kind is None or (kind in _CONTAINERS and _is_plain_context(context))
        return plain and _is_plain_tree(node.get("children_spec", []))
    return isinstance(node, int)


def _is_plain_context(context: object) -> bool:
    """Return whether a container's context is its keys, all of them text; objects in it would be looked up."""
    if not isinstance(context, str):
        return context is None
    keys = json.loads(context)
    return keys is None or (isinstance(keys, list) and all(isinstance(key, str | int) for key in keys))


def _unsafe(file: Path, why: str) -> PackageError:
    return PackageError(f"{file} is refused, since reading it could run code: {why}; export it anew with torch.export")
