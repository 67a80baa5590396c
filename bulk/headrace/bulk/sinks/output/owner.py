"""Whose a published part is: the footer of Parquet, the card of a text format.

CSV and JSON lines have no place for metadata that every reader passes over. So a card lies beside them, in a hidden
folder, and is published before its part. Its name holds the checksum of the part: however attempts of a shard
overlap, die or come back, the part that won finds its own card, and a card without a part means nothing.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.bulk.sinks.output.identity import PartIdentity, identity_of
from headrace.bulk.sinks.output.names import CARDS, below
from headrace.bulk.storage.base import AlreadyExists, InputMissing, Storage

#: Hexadecimal digits of a part's SHA-256 in the name of its card: enough for the attempts at one part.
_DIGITS: Final = 32

_BLOCK_BYTES: Final = 1 << 20


def put_card(storage: Storage, folder: str, local: Path, identity: PartIdentity) -> None:
    """Publish the card of a local part that is about to be published."""
    with local.open("rb") as file:
        uri = _card(folder, checksum_of(file))
    with suppress(AlreadyExists):  # of an attempt that wrote the same bytes
        storage.put(uri, msgspec.json.encode(identity))


def identity_at(storage: Storage, folder: str, name: str) -> PartIdentity | None:
    """Return the identity of a published part, None if no job of headrace wrote it. Raises InputMissing."""
    if name.endswith(".parquet"):
        return _footer(storage, below(folder, name))
    with storage.open(below(folder, name)) as file:
        card = _card(folder, checksum_of(file))
    try:
        with storage.open(card) as file:
            return msgspec.json.decode(file.read(), type=PartIdentity)
    except (InputMissing, msgspec.DecodeError):
        return None


def _footer(storage: Storage, uri: str) -> PartIdentity | None:
    with storage.open(uri) as file:
        try:
            metadata = pq.read_metadata(pa.PythonFile(file, mode="r")).metadata or {}
        except pa.ArrowInvalid:
            return None
    return identity_of({key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"})


def _card(folder: str, checksum: str) -> str:
    return below(folder, f"{CARDS}/{checksum}.json")


def checksum_of(file: BinaryIO) -> str:
    """Return what identifies the content of a file."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()[:_DIGITS]
