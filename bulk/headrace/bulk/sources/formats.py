"""Formats of input files: told by the name, each with its source."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from headrace.bulk.sources.arrays.npy import Npy
from headrace.bulk.sources.arrays.npz import Npz
from headrace.bulk.sources.base import Source, UnknownFormat
from headrace.bulk.sources.images import Images
from headrace.bulk.sources.ipc import Ipc
from headrace.bulk.sources.parquet import Parquet
from headrace.bulk.sources.text.blocks import without_compression
from headrace.bulk.sources.text.csv_file import Csv
from headrace.bulk.sources.text.json_lines import JsonLines, OpenAiBatch
from headrace.contracts.errors import quoted

#: Formats by the suffix of a file's name, in small letters.
SUFFIXES: Final = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".arrows": "arrow",
    ".npy": "npy",
    ".npz": "npz",
    ".jpg": "image",
    ".jpeg": "image",
    ".png": "image",
    ".webp": "image",
    ".bmp": "image",
    ".gif": "image",
    ".tif": "image",
    ".tiff": "image",
}

_SOURCES: Final[dict[str, Callable[[pa.Schema | None], Source]]] = {
    "parquet": lambda _: Parquet(),
    "csv": lambda _: Csv(),
    "tsv": lambda _: Csv("\t"),
    "jsonl": JsonLines,
    "openai": lambda _: OpenAiBatch(),
    "arrow": lambda _: Ipc(),
    "npy": lambda _: Npy(),
    "npz": lambda _: Npz(),
    "image": lambda _: Images(),
}

#: Names of formats, as `--input-format` takes them.
FORMATS: Final = tuple(_SOURCES)


def format_of(uri: str) -> str:
    """Return the format of a file by its name. Raises UnknownFormat, naming the suffixes that are known."""
    name = without_compression(posixpath.basename(uri).lower())
    suffix = posixpath.splitext(name)[1]
    found = SUFFIXES.get(suffix)
    if found is None:
        raise UnknownFormat(
            f"the format of {quoted(uri)} can't be told by its name; known are {', '.join(SUFFIXES)};"
            " name the format with --input-format"
        )
    return found


def source_of(uri: str, input_format: str = "", schema: pa.Schema | None = None) -> Source:
    """Return the source for a file. input_format: "" is told by the name.

    schema: types of columns, for formats that have none of their own. Raises UnknownFormat.
    """
    name = input_format or format_of(uri)
    if name not in _SOURCES:
        raise UnknownFormat(f"there is no input format {quoted(name)}; known are {', '.join(FORMATS)}")
    return _SOURCES[name](schema)
