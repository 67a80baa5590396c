"""Which columns of a table are which inputs of a model."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec
import pyarrow as pa

from headrace.bulk.columns.base import ColumnMismatch
from headrace.bulk.columns.fitness import image_problem, stacked_problem, tensor_problem, text_problem
from headrace.bulk.columns.kinds import is_list, is_number, is_text, nesting, plain_type
from headrace.contracts.errors import quoted
from headrace.contracts.package.manifest import Manifest
from headrace.contracts.package.signature import TensorSpec

#: How many columns an error lists.
_LISTED: Final = 12

#: The column that is preferred where several can be an input whose name none has.
INPUT: Final = "input"

Kind: TypeAlias = Literal["tensor", "stacked", "image", "text"]


class Match(msgspec.Struct, frozen=True):
    """Columns that are an input, or, as text, all inputs that the tokenizer makes. note: why, if nobody said it."""

    target: str
    columns: tuple[str, ...]
    kind: Kind
    note: str = ""


class Matcher:
    """Finds the columns of a model's inputs."""

    def __init__(self, manifest: Manifest, schema: pa.Schema, mapping: Mapping[str, str], kept: Sequence[str]) -> None:
        """mapping: column, or several with commas between → input. kept: columns that are not taken on a guess.

        Raises ColumnMismatch for a column or an input that does not exist.
        """
        self._tokenizer = manifest.tokenizer or None
        self._schema = schema
        self._kept = frozenset(kept)
        self._specs = {spec.name: spec for spec in manifest.inputs}
        self._alone = all(spec.per_request for spec in manifest.inputs)
        self._mapped = self._checked(mapping)

    def matches(self) -> list[Match]:
        """Return the columns of each input. Raises ColumnMismatch for an input without one, or of the wrong type."""
        targets = self._targets()
        found = {target: match for target in targets if (match := self._said(target))}
        missing = [target for target in targets if target not in found and not self._optional(target)]
        for target in missing:
            self._refuse_parameter(target)
            found[target] = self._guess(target, found, alone=len(missing) == 1)
        return list(found.values())

    def _checked(self, mapping: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        """Return target → its columns."""
        known = [*self._specs, *([self._tokenizer.column] if self._tokenizer else [])]
        mapped: dict[str, tuple[str, ...]] = {}
        for text, target in mapping.items():
            if target not in known:
                raise ColumnMismatch(
                    f"--map {text}={target}: the model has no input {quoted(target)}{_close(target, known)}; "
                    f"its inputs are {_listed(known)}"
                )
            if target in mapped:
                raise ColumnMismatch(
                    f"--map names columns for {target!r} twice; give them in one, in order: "
                    f"--map {','.join((*mapped[target], text))}={target}"
                )
            columns = (text,) if text in self._schema.names else tuple(part.strip() for part in text.split(","))
            for column in columns:
                check_column(self._schema, column, "--map")
            mapped[target] = columns
        return mapped

    def _targets(self) -> list[str]:
        """Return what columns are needed for: inputs, and the text that the tokenizer turns into several of them."""
        tokenizer = self._tokenizer
        if tokenizer is None or all(map(self._is_tokenized, tokenizer.inputs)):
            return list(self._specs)
        return [tokenizer.column, *(name for name in self._specs if name not in tokenizer.inputs)]

    def _is_tokenized(self, name: str) -> bool:
        """Return whether a column holds an input of the tokenizer as it is."""
        columns = self._mapped.get(name) or ((name,) if name in self._schema.names else ())
        return bool(columns) and is_list(plain_type(self.type_of(columns[0])))

    def _optional(self, target: str) -> bool:
        return target in self._specs and self._specs[target].optional

    def _refuse_parameter(self, target: str) -> None:
        spec = self._specs.get(target)
        if spec and spec.per_request and not self._alone:
            raise ColumnMismatch(
                f"input {target!r} has no dimension for rows, so no column holds it; set it in the package: "
                f"headrace models add FILE --set {target}=VALUE"
            )

    def _said(self, target: str) -> Match | None:
        """Return the match of a target that the mapping or a column's name tells."""
        columns = self._mapped.get(target)
        if columns is None and self._tokenizer and target == self._tokenizer.column:
            columns = self._mapped.get(self._tokenizer.ids)
        if columns is None and target in self._schema.names and not self._is_parameter(target):
            columns = (target,)
        if columns is None:
            return None
        self._refuse_parameter(target)
        for column in columns:
            check_column(self._schema, column, "the model")
        problem = self._problem(target, columns)
        if problem:
            raise ColumnMismatch(problem)
        return Match(target, columns, self._kind(target, columns))

    def _is_parameter(self, target: str) -> bool:
        spec = self._specs.get(target)
        return spec is not None and spec.per_request and not self._alone and spec.optional

    def _kind(self, target: str, columns: Sequence[str]) -> Kind:
        if len(columns) > 1:
            return "stacked"
        if target not in self._specs:
            return "text"
        depth, leaf = nesting(self.type_of(columns[0]))
        return "image" if self._specs[target].decode and not (depth or is_number(leaf)) else "tensor"

    def _problem(self, target: str, columns: Sequence[str]) -> str:
        """Return why columns can't be a target; "" if they can."""
        spec = self._specs.get(target)
        name, kind = columns[0], self.type_of(columns[0])
        if spec is None:
            several = f"the text {target!r} is one column, not {len(columns)}"
            return several if len(columns) > 1 else text_problem(name, kind)
        if spec.any_shape or spec.sequence:
            return f"input {target!r} takes tensors that no column can hold: {spec.describe()}"
        if len(columns) > 1:
            return stacked_problem([(column, self.type_of(column)) for column in columns], spec)
        return image_problem(name, kind, spec) if spec.decode else tensor_problem(name, kind, spec)

    def type_of(self, column: str) -> pa.DataType:
        """Return the type of a column, or of a field of a struct."""
        return self._schema.field(self._schema.names.index(column)).type

    def _guess(self, target: str, found: Mapping[str, Match], *, alone: bool) -> Match:
        """Return the only columns that can be the target. Raises ColumnMismatch if there are none, or others too."""
        taken = {column for match in found.values() for column in match.columns}
        free = [name for name in dict.fromkeys(self._schema.names) if name not in taken | self._kept]
        suitable = [name for name in free if not self._problem(target, (name,))]
        # Text may hold numbers and lists too, but is not taken for them where a column of such is.
        suitable = [name for name in suitable if not is_text(plain_type(self.type_of(name)))] or suitable
        # Requests in OpenAI's batch files are in a column of this name.
        suitable = [name for name in suitable if name == INPUT] or suitable
        spec = self._specs.get(target)
        stacks = spec is not None and self._stacks(free, spec)
        if alone and len(suitable) == 1 and not stacks:
            check_column(self._schema, suitable[0], "the model")
            note = f"column {suitable[0]!r} is taken for {target!r}, as no other fits so well"
            return Match(target, (suitable[0],), self._kind(target, suitable), note)
        if alone and stacks and len(suitable) != 1:
            note = f"the {len(free)} columns {free[0]!r} to {free[-1]!r}, in their order, are taken for {target!r}"
            return Match(target, tuple(free), "stacked", note)
        raise ColumnMismatch(self._missing(target, free, suitable))

    def _stacks(self, free: Sequence[str], spec: TensorSpec) -> bool:
        """Return whether all columns that are left are the elements of an input, and nothing else is possible."""
        scalars = all(
            is_number(kind) or is_text(kind) for name in free for kind in [plain_type(self.type_of(name))]
        )  # fmt: skip
        plain = not (spec.decode or spec.per_request) and spec.datatype != "BYTES"
        return len(free) > 1 and plain and scalars and -1 not in spec.shape and len(free) == math.prod(spec.shape)

    def _missing(self, target: str, free: Sequence[str], suitable: Sequence[str]) -> str:
        spec = self._specs.get(target)
        what = f"the input {spec.describe()}" if spec else f"the text {target!r}"
        close = difflib.get_close_matches(target, suitable or free, 1, 0.5)
        names = ",".join(suitable) if not suitable else suitable[0]
        example = close[0] if close else names or "COLUMN"
        problem = self._problem(target, (close[0],)) if close else ""
        line = f"no column is {what}{_close(target, free)}; "
        if problem:
            return f"{line}but {problem}"
        if spec and len(suitable) != 1 and math.prod(spec.shape) > 1 and not close and _numbers(self._schema, free):
            example = "F1,F2,…"
        return f"{line}the columns are {_listed(self._schema.names)}; say which with --map {example}={target}"


def check_column(schema: pa.Schema, column: str, option: str) -> None:
    """Refuse a column that the input has not, or has twice. option: where it was named. Raises ColumnMismatch."""
    count = Counter(schema.names)[column]
    if not count:
        raise ColumnMismatch(
            f"{option} names the column {quoted(column)}, which the input has not{_close(column, schema.names)}; "
            f"its columns are {_listed(schema.names)}"
        )
    if count > 1:
        raise ColumnMismatch(f"the input has {count} columns called {column!r}; give each a name of its own")


def _close(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(quoted, names[:_LISTED]))
    rest = len(names) - _LISTED
    return f"{shown} and {rest} more" if rest > 0 else shown or "none"


def _numbers(schema: pa.Schema, names: Sequence[str]) -> bool:
    return sum(is_number(plain_type(schema.field(schema.names.index(name)).type)) for name in names) > 1
