"""Small random ONNX models, of which it is known how they were made, and whether rows can have met in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper
from tests.anymodel import callers, cross_row, row_wise, seldom_cross_row
from tests.anymodel.bare import Bare, differences
from tests.anymodel.building import TYPES, Builder, Value
from tests.anymodel.callers import Case

Step: TypeAlias = Callable[[Builder, Value], Value | None]

MIXING_STEPS = (*cross_row.STEPS, *seldom_cross_row.STEPS)

#: Of a hundred drawings, nearly all give a model that runs; this many failures in a row are a fault of the generator.
MOST_TRIES = 60

#: What a graph must run alone to be served: rows and tempers of single requests.
TRIALS = ((1, "ordinary"), (2, "ordinary"), (5, "ordinary"), (2, "zeros"), (3, "large"))


def case_of(random: Random) -> Case:
    """Return a model that ONNX Runtime loads and runs for single requests."""
    for _ in range(MOST_TRIES):
        case = _draw(random)
        if case is not None and runs(case):
            return case
    raise AssertionError(f"{MOST_TRIES} drawings in a row gave no model that runs")


def cases() -> st.SearchStrategy[Case]:
    """Return a hypothesis strategy of models."""
    return st.builds(case_of, st.randoms(use_true_random=False))


def seeded(seed: int) -> Case:
    """Return the model of a seed, always the same."""
    return case_of(Random(seed))


def runs(case: Case) -> bool:
    """Return whether bare ONNX Runtime loads the model, runs single requests and remembers nothing of them."""
    rng = np.random.default_rng(0)
    try:
        alone = Bare(case.model)
        requests = [callers.request(case, rng, rows, temper) for rows, temper in TRIALS]
        first, *_ = [alone.answer(request) for request in requests]
        again = alone.answer(requests[0])
    except Exception:  # noqa: BLE001 — ONNX Runtime raises types of its own; any of them rules the model out.
        return False
    return not differences(first, again)


def _draw(random: Random) -> Case | None:
    choices: list[int | str] = ["n", "n", "n", "n", "n", "n", "batch", "N", 1, 2, 4]
    b = Builder(random, rows=random.choice(choices))
    values = _inputs(b)
    mixing = random.random() < 0.6
    for value in list(values):
        _grow(b, values, value, steps=random.randint(1, 3), allowed=row_wise.STEPS)
    if mixing:
        _mix(b, values)
        _grow(b, values, values[-1], steps=random.randint(0, 2), allowed=row_wise.STEPS)
    _join(b, values)
    outputs = _outputs(b, values)
    return _case(b, outputs) if outputs else None


def _inputs(b: Builder) -> list[Value]:
    count = b.random.choice([1, 1, 1, 2, 2, 3])
    return [_input(b, f"x{i}") for i in range(count)]


def _input(b: Builder, name: str) -> Value:
    kinds = ["float32"] * 8 + ["float64", "float16", "int64", "int64", "int32", "bool", "object"]
    dtype = b.random.choice(kinds)
    sizes: list[int | str] = [b.random.choice([1, 2, 3, 4, 5]) for _ in range(b.random.choice([0, 1, 1, 1, 2, 2]))]
    if sizes and b.chance(0.25):
        symbol = b.random.choice(["len", "len", f"{name}_len"])
        b.lengths[symbol] = (b.random.choice([1, 2]), 6)
        sizes[0] = symbol
    at = b.random.choice([0, 0, 0, 1]) if sizes else 0
    return b.input(name, dtype, (*sizes[:at], b.rows, *sizes[at:]))


def _grow(b: Builder, values: list[Value], value: Value, *, steps: int, allowed: Sequence[Step]) -> None:
    """Put steps that suit after a tensor; what came of it joins the others."""
    for _ in range(steps):
        for step in b.random.sample(allowed, len(allowed)):
            grown = _tried(b, step, value)
            if grown is not None:
                value = grown
                break
        values.append(value)


def _mix(b: Builder, values: list[Value]) -> None:
    """Let the rows of one tensor meet; every step is as likely as any other, if only some tensor suits it."""
    for step in b.random.sample(MIXING_STEPS, len(MIXING_STEPS)):
        for value in b.random.sample(values, len(values)):
            grown = _tried(b, step, value)
            if grown is not None:
                values.append(grown)
                return


def _tried(b: Builder, step: Step, value: Value) -> Value | None:
    before = len(b.nodes), len(b.constants), len(b.inputs)
    grown = step(b, value)
    if grown is None:
        del b.nodes[before[0] :], b.constants[before[1] :], b.inputs[before[2] :]
    else:
        b.steps.append(step.__name__)
    return grown


def _join(b: Builder, values: list[Value]) -> None:
    """Add up two tensors that agree in shape and datatype, if there are such."""
    pairs = [
        (one, other)
        for i, one in enumerate(values)
        for other in values[i + 1 :]
        if one.is_float
        and (one.dtype, one.dims, one.row) == (other.dtype, other.dims, other.row)
        and one.name != other.name
    ]
    if not pairs or b.chance(0.5):
        return
    one, other = b.random.choice(pairs)
    total = b.node("Add", one.name, other.name)
    values.append(one.now(total, mixed=one.mixed or other.mixed, exact=False))
    b.steps.append("added")


def _outputs(b: Builder, values: list[Value]) -> list[Value]:
    """Choose outputs, the last tensor among them, each under a name of its own."""
    given = {each.name for each in b.inputs}
    made = [value for value in dict.fromkeys(values) if value.name not in given]
    if not made:
        return []
    chosen = [made[-1]]
    mixed = [value for value in made if value.mixed]
    if mixed and not made[-1].mixed:
        chosen.append(mixed[-1])
    chosen += b.random.sample(made, min(len(made), b.random.choice([0, 0, 1, 2])))
    outputs = []
    for i, value in enumerate(dict.fromkeys(chosen)):
        b.nodes.append(helper.make_node("Identity", [value.name], [f"y{i}"]))
        outputs.append(value.now(f"y{i}"))
    if b.chance(0.08):
        b.nodes.append(helper.make_node("Identity", [b.noise((3,))], ["table"]))
        outputs.append(Value("table", "float32", (3,), None))
    return outputs


def _case(b: Builder, outputs: list[Value]) -> Case:
    unnamed = b.chance(0.15)
    other_names = b.chance(0.3)

    def written(dim: int | str, place: str) -> int | str | None:
        if isinstance(dim, int):
            return dim
        if unnamed or (dim == "?" and b.chance(0.5)):
            return None
        return f"unk_{place}" if other_names or dim == "?" else dim

    inputs = [
        helper.make_tensor_value_info(
            each.name, TYPES[each.dtype], [None if unnamed and isinstance(dim, str) else dim for dim in each.dims]
        )
        for each in b.inputs
    ]
    results = [
        helper.make_tensor_value_info(
            value.name, TYPES[value.dtype], [written(dim, f"{value.name}_{i}") for i, dim in enumerate(value.dims)]
        )
        for value in outputs
    ]
    graph = helper.make_graph(b.nodes, "generated", inputs, results, b.constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    mixed = any(value.mixed for value in outputs)
    whole = all(value.row is not None for value in outputs)
    # A fixed batch gains little from company where it is all there is, or must first be looked for.
    plain = isinstance(b.rows, str) or all(
        each.parameter or each.dims[0] == b.rows != each.dims[-1] for each in b.inputs
    )
    return Case(
        name="generated",
        model=model.SerializeToString(),
        inputs=tuple(b.inputs),
        rows=b.rows,
        independent=False if mixed else True if whole and plain else None,
        steps=tuple(b.steps),
        lengths=dict(b.lengths),
        finite=b.finite,
        rows_at=_told(b) if unnamed else {},
    )


def _told(b: Builder) -> dict[str, int]:
    """Return where the rows are in the inputs with several dimensions that vary."""
    return {
        each.name: each.dims.index(b.rows)
        for each in b.inputs
        if not each.parameter and sum(isinstance(dim, str) for dim in each.dims) > 1
    }


def describe(case: Case) -> str:
    """Return what a person needs to see what a generated model does."""
    graph = onnx.load_from_string(case.model)
    known = {True: "independent", False: "mixed", None: "either"}[case.independent]
    return f"{known}, rows {case.rows!r}, steps {', '.join(case.steps)}\n{onnx.printer.to_text(graph)}"
