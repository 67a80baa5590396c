"""Texts as token ids, without a network and without more threads than allowed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace.contracts.errors import ConfigurationError, PackageError
from headrace.contracts.package.text_recipe import Tokenizer

if TYPE_CHECKING:
    import tokenizers

#: Texts that are encoded at once: their encodings, some hundred bytes a token, are held until their ids are copied.
_TEXTS: Final = 1024


class Tokens(msgspec.Struct, frozen=True):
    """The tokens of several texts, one after the other. lengths: of each text."""

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    lengths: NDArray[np.int64]


class TextEncoder:
    """Encodes texts by a tokenizer file. cut: texts are cut to the limit; longer ones are left whole otherwise."""

    def __init__(self, folder: Path, recipe: Tokenizer, limit: int, *, cut: bool, threads: int = 1) -> None:
        """folder: of the package. limit: most tokens of a text; 0 is no bound.

        Raises PackageError for a file that is no tokenizer, ConfigurationError without the library.
        """
        self._special = recipe.special_tokens
        self._tokenizer = _load(folder / recipe.file, threads)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if cut and limit:
            self._tokenizer.enable_truncation(limit)
        self.pad_id: Final = self._pad_id(recipe)
        probe = self._tokenizer.encode("a", add_special_tokens=self._special)
        #: Ids of the sequence are asked for only where some aren't 0.
        self._has_types = any(probe.type_ids)

    def _pad_id(self, recipe: Tokenizer) -> int:
        if not recipe.pad_token:
            return recipe.pad_id
        found = self._tokenizer.token_to_id(recipe.pad_token)
        if found is None:
            raise PackageError(f"[tokenizer] pad_token {recipe.pad_token!r} is no token of {recipe.file}")
        return int(found)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of texts."""
        ids: list[NDArray[np.int64]] = []
        types: list[NDArray[np.int64]] = []
        lengths: list[int] = []
        for start in range(0, len(texts), _TEXTS):
            part = texts[start : start + _TEXTS]
            encodings = self._tokenizer.encode_batch_fast(list(part), add_special_tokens=self._special)
            each = [encoding.ids for encoding in encodings]
            ids.append(np.array([number for some in each for number in some], np.int64))
            lengths += map(len, each)
            if self._has_types:
                types.append(np.array([number for one in encodings for number in one.type_ids], np.int64))
        flat = np.concatenate(ids) if ids else np.empty(0, np.int64)
        return Tokens(flat, np.concatenate(types) if types else np.zeros(len(flat), np.int64), np.array(lengths, int))


def _load(path: Path, threads: int) -> tokenizers.Tokenizer:
    # Both are read when the library is loaded or first used. Its threads would take cores from the model, and warn
    # in processes that are forked later.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if threads > 1 else "false")
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    try:
        import tokenizers
    except ImportError as exc:
        raise ConfigurationError(
            f'text needs tokenizers, which is not installed ({exc}); pip install "headrace[bulk]"'
        ) from exc
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    # The library raises plain Exceptions.
    except Exception as exc:
        raise PackageError(f"{path} can't be read as a tokenizer.json: {exc}") from exc
