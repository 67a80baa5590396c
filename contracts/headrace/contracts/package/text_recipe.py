"""`[tokenizer]` of a package: how a text becomes token ids, and which inputs take them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.contracts.errors import PackageError, quoted
from headrace.contracts.package.signature import TensorSpec


class Tokenizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tokenizer of a package, and its inputs.

    file: a `tokenizer.json` of Hugging Face's tokenizers, one of the package's `files`. column: what the text is
    called, as inputs are by their names. ids, attention_mask, type_ids: the inputs that take the token ids, ones for
    tokens and zeros for padding, and the ids of the sequence; "" where the model has none. max_length: most tokens of a
    text, special ones included; 0 is no bound. pad_id: id of the token that shorter texts of a batch are filled up
    with, or pad_token: its text. pad_multiple: lengths of batches are multiples of this. special_tokens: whether those
    of the tokenizer, such as [CLS], are added.
    """

    file: str
    ids: str
    attention_mask: str = ""
    type_ids: str = ""
    column: str = "text"
    max_length: int = 0
    pad_id: int = 0
    pad_token: str = ""
    pad_multiple: int = 1
    special_tokens: bool = True

    def __post_init__(self) -> None:
        """Refuse impossible numbers and names."""
        if self.max_length < 0 or self.pad_id < 0 or self.pad_multiple < 1:
            raise PackageError("[tokenizer] needs max_length and pad_id of at least 0, and pad_multiple of at least 1")
        if not self.ids or not self.column:
            raise PackageError("[tokenizer] needs ids, the input that takes the token ids, and column, a name")
        if len(set(self.inputs)) != len(self.inputs):
            raise PackageError("[tokenizer] names one input twice among ids, attention_mask and type_ids")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that are made of the text."""
        return tuple(name for name in (self.ids, self.attention_mask, self.type_ids) if name)

    def check(self, inputs: Sequence[TensorSpec]) -> None:
        """Refuse inputs that can't hold tokens. Raises PackageError."""
        by_name = {spec.name: spec for spec in inputs}
        lengths = {}
        for name in self.inputs:
            spec = by_name.get(name)
            if spec is None:
                raise PackageError(f"[tokenizer] names {quoted(name)}, but the inputs are {', '.join(by_name)}")
            if spec.datatype not in {"INT32", "INT64"} or len(spec.shape) != 1 or spec.per_request:
                raise PackageError(f"[tokenizer] {name!r} must be INT32 or INT64, [tokens]: {spec.describe()}")
            lengths[name] = spec.shape[0]
        if len(set(lengths.values())) > 1:
            raise PackageError(f"[tokenizer] the inputs differ in their number of tokens: {lengths}")
        fixed = lengths[self.ids]
        if fixed != -1 and self.max_length > fixed:
            raise PackageError(f"[tokenizer] max_length is {self.max_length}, but {self.ids!r} takes {fixed} tokens")

    def limit(self, inputs: Sequence[TensorSpec]) -> int:
        """Return the most tokens of a text; 0 is no bound."""
        fixed = next(spec.shape[0] for spec in inputs if spec.name == self.ids)
        return self.max_length or max(fixed, 0)
