"""Whose a published part is, and what else is known of it: the footer of Parquet, and cards.

CSV and JSON lines have no place for metadata that every reader passes over, and the bad rows of an attempt are too
large for one. So a card lies beside a part, in a hidden folder, and is published before it. Its name is the checksum
of the part: however attempts of a shard overlap, die or come back, the part that won finds its own card, and a card
without a part means nothing.
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
from headrace.results_store.jobs.records import BadRow

#: Hexadecimal digits of a part's SHA-256 in the name of its card: enough for the attempts at one part.
_DIGITS: Final = 32

_BLOCK_BYTES: Final = 1 << 20


class Card(msgspec.Struct, frozen=True):
    """A card of a part. bad: the bad rows of the attempt that wrote it."""

    identity: PartIdentity
    bad: list[BadRow] = []


def put_card(storage: Storage, folder: str, local: Path, card: Card) -> None:
    """Publish the card of a local part that is about to be published."""
    with local.open("rb") as file:
        uri = _card_of(folder, checksum_of(file))
    with suppress(AlreadyExists):  # of an attempt that wrote the same bytes
        storage.put(uri, msgspec.json.encode(card))


def card_at(storage: Storage, folder: str, name: str) -> Card | None:
    """Return what is known of a published part, None if no job of headrace wrote it. Raises InputMissing."""
    if not has_footer(name):
        return _card_of_content(storage, folder, name)
    footer = _footer(storage, below(folder, name))
    if footer is None:
        return None
    if not footer.rows_bad:
        return Card(footer)
    return _card_of_content(storage, folder, name) or Card(footer)


def identity_at(storage: Storage, folder: str, name: str) -> PartIdentity | None:
    """Return the identity of a published part, None if no job of headrace wrote it. Raises InputMissing."""
    if has_footer(name):
        return _footer(storage, below(folder, name))
    card = _card_of_content(storage, folder, name)
    return card.identity if card else None


def read_card(storage: Storage, uri: str) -> Card | None:
    """Return a card, None if there is none or it is something else."""
    try:
        with storage.open(uri) as file:
            return msgspec.json.decode(file.read(), type=Card)
    except (InputMissing, msgspec.DecodeError):
        return None


def has_footer(name: str) -> bool:
    """Return whether parts of this name have a place for metadata."""
    return name.endswith(".parquet")


def _card_of_content(storage: Storage, folder: str, name: str) -> Card | None:
    with storage.open(below(folder, name)) as file:
        return read_card(storage, _card_of(folder, checksum_of(file)))


def _footer(storage: Storage, uri: str) -> PartIdentity | None:
    with storage.open(uri) as file:
        try:
            metadata = pq.read_metadata(pa.PythonFile(file, mode="r")).metadata or {}
        except pa.ArrowInvalid:
            return None
    return identity_of(
        {key.decode(errors="replace"): value.decode(errors="replace") for key, value in metadata.items()}
    )


def _card_of(folder: str, checksum: str) -> str:
    return below(folder, f"{CARDS}/{checksum}.json")


def checksum_of(file: BinaryIO) -> str:
    """Return what identifies the content of a file."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()[:_DIGITS]
