"""Which nodes a step leaves out: by name, by operator, or by a pattern of either."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, TypeVar

from headrace.compression.errors import CompressionError

if TYPE_CHECKING:
    import onnx

    from headrace.compression.steps import Step

    StepType = TypeVar("StepType", bound=Step)

#: How many names of nodes an error lists.
_NAMED: Final = 3


def advice(names: Iterable[str]) -> str:
    """Return the option that leaves nodes out, ready for a shell. A comma in a name is written as any letter."""
    return f"--exclude {shlex.quote(','.join(name.replace(',', '?') for name in names))}"


def chosen_nodes(model: onnx.ModelProto, exclude: Sequence[str]) -> set[str]:
    """Return the names of the nodes that a step may change.

    exclude: names of nodes or of operators, such as `Softmax`, or patterns of them, such as `/decoder/*`. Raises
    CompressionError for what the model hasn't.
    """
    left: set[str] = set()
    for pattern in exclude:
        found = {node.name for node in model.graph.node if _fits(pattern, node.name) or _fits(pattern, node.op_type)}
        if not found:
            raise CompressionError(_unknown(pattern, model))
        left |= found
    return {node.name for node in model.graph.node} - left


def with_exclude(step: StepType, exclude: Sequence[str]) -> StepType:
    """Return a step that leaves nodes out, beside those that it does already; as it is if it knows no such thing."""
    if not exclude or not can_exclude(step):
        return step
    return dataclasses.replace(step, exclude=(*getattr(step, "exclude"), *exclude))  # type: ignore[type-var]  # noqa: B009


def can_exclude(step: Step) -> bool:
    """Whether a step can leave nodes out."""
    return any(option.name == "exclude" for option in dataclasses.fields(step))  # type: ignore[arg-type]


def _fits(pattern: str, name: str) -> bool:
    # A name may hold what is a pattern elsewhere, such as brackets.
    return pattern == name or fnmatchcase(name, pattern)


def _unknown(pattern: str, model: onnx.ModelProto) -> str:
    operators = sorted({node.op_type for node in model.graph.node})
    names = [node.name for node in model.graph.node]
    close = [name for name in names if pattern in name or name in pattern][:_NAMED]
    close += difflib.get_close_matches(pattern, names, _NAMED - len(close)) if len(close) < _NAMED else []
    hint = f"nodes of a similar name are {', '.join(map(repr, dict.fromkeys(close)))}; " if close else ""
    return (
        f"the model has neither a node nor an operator named {pattern!r} to exclude, once its constants are folded; "
        f"{hint}its operators are {', '.join(operators)}"
    )
