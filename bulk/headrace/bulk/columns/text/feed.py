"""A column of text as token ids, attention mask and type ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.bulk.columns.feeds import FedRows
from headrace.bulk.columns.findings import Findings
from headrace.bulk.columns.kinds import is_text, plain
from headrace.bulk.columns.text.encoding import TextEncoder, Tokens
from headrace.bulk.columns.values.layout import within
from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.package.text_recipe import Tokenizer
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import dtype_of


class TextFeed:
    """Encodes texts and makes the inputs of the tokenizer of them."""

    def __init__(
        self, column: str, recipe: Tokenizer, inputs: Sequence[TensorSpec], encoder: TextEncoder, fill: str | None
    ) -> None:
        """inputs: all of the model. fill: the text that stands in for nulls."""
        self.columns = (column,)
        self.float_columns = ()
        self._column = column
        self._encoder = encoder
        self._limit = recipe.limit(inputs)
        self._fill = fill
        self._padding = Padding(recipe, inputs, encoder.pad_id)

    def feed(self, table: pa.RecordBatch, findings: Findings) -> FedRows:
        """Encode all texts of a table."""
        texts = self._texts(plain(table.column(self._column)), findings)
        tokens = self._encoder.encode([text or "" for text in texts])
        for at in np.flatnonzero(tokens.lengths == 0).tolist():
            findings.refuse([at], "EmptyText", f"column {self._column!r} has no token")
        if self._limit:
            for at in np.flatnonzero(tokens.lengths > self._limit).tolist():
                message = (
                    f"column {self._column!r} has {tokens.lengths[at]} tokens, but the model takes {self._limit}; "
                    "--truncate cut scores the beginning"
                )
                findings.refuse([at], "TextTooLong", message)
        return TextRows(tokens, self._padding)

    def _texts(self, array: pa.Array, findings: Findings) -> list[str | None]:
        """Return the text of each row; None where there is none."""
        if not is_text(array.type):
            array = pa.nulls(len(array), pa.string())
        if array.null_count and self._fill is not None:
            array = array.fill_null(self._fill)
        if array.null_count:
            findings.nulls(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)), f"column {self._column!r}")
        try:
            texts: list[str | None] = array.to_pylist()
        except UnicodeDecodeError:
            texts = [self._text(cell, at, findings) for at, cell in enumerate(array)]
        return texts

    def _text(self, cell: pa.Scalar, at: int, findings: Findings) -> str | None:
        try:
            text: str | None = cell.as_py()
        except UnicodeDecodeError as exc:
            findings.refuse([at], "BadValue", f"column {self._column!r} is no UTF-8: {exc.reason}")
            return None
        return text


class Padding:
    """How token ids of several texts become tensors."""

    def __init__(self, recipe: Tokenizer, inputs: Sequence[TensorSpec], pad_id: int) -> None:
        """inputs: all of the model."""
        specs: Final = {spec.name: spec for spec in inputs}
        self._recipe = recipe
        self._specs = specs
        self._pad_id = pad_id
        self._size = specs[recipe.ids].shape[0]
        self._limit = recipe.limit(inputs)
        #: Whether texts of different lengths may share a batch: the model must be told which tokens are none.
        self.allowed: Final = bool(recipe.attention_mask) or self._size != -1

    def width(self, longest: int) -> int:
        """Return the number of tokens that texts are padded to. longest: tokens of the longest of them."""
        if self._size != -1:
            return self._size
        if not self.allowed:
            return longest
        multiple = self._recipe.pad_multiple
        padded = -(-longest // multiple) * multiple
        return min(padded, self._limit) if self._limit else padded

    def tensors(self, ids: NDArray[np.int64], types: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensors:
        """Return the inputs of texts, whose tokens follow each other."""
        real = np.arange(self.width(int(lengths.max(initial=0)))) < lengths[:, None]
        made = {
            self._recipe.ids: self._padded(self._recipe.ids, ids, real, self._pad_id),
            self._recipe.attention_mask: real,
            self._recipe.type_ids: self._padded(self._recipe.type_ids, types, real, 0),
        }
        return {
            name: np.moveaxis(array.astype(dtype_of(spec.datatype), copy=False), 0, spec.rows_at)
            for name, array in made.items()
            if array is not None and (spec := self._specs.get(name))
        }

    def _padded(
        self, name: str, values: NDArray[np.int64], real: NDArray[np.bool_], fill: int
    ) -> NDArray[np.int64] | None:
        if not name:
            return None
        array = np.full(real.shape, fill, dtype_of(self._specs[name].datatype))
        array[real] = values
        return array


class TextRows:
    """The tokens of the texts of a table."""

    symbols = ()

    def __init__(self, tokens: Tokens, padding: Padding) -> None:
        """tokens: of all rows."""
        self._tokens = tokens
        self._padding = padding
        self._starts = np.cumsum(tokens.lengths) - tokens.lengths
        self.lengths: NDArray[np.int64] | None = tokens.lengths if padding.allowed else None
        self.dims: NDArray[np.int64] | None = None if padding.allowed else tokens.lengths[:, None]

    def take(self, rows: NDArray[np.int64]) -> Tensors:
        """Return the inputs of some rows, padded to the longest of them."""
        lengths = self._tokens.lengths[rows]
        if self.dims is not None and len(lengths) and (lengths != lengths[0]).any():
            raise ValueError("texts of different lengths can't share a batch of a model without an attention mask")
        where = within(self._starts[rows], lengths)
        return self._padding.tensors(self._tokens.ids[where], self._tokens.types[where], lengths)
