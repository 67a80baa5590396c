"""Publication of parts: create-only, and adopted when an earlier attempt of the same shard was first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import below
from headrace.bulk.sinks.output.owner import Card, card_at, has_footer, put_card
from headrace.bulk.storage.base import AlreadyExists, InputMissing, ObjectInfo, Storage, StorageUnavailable
from headrace.results_store.jobs.records import BadRow


class PublishedPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part under its final name, and what came of the attempt that wrote it, which is the one to be committed.

    adopted: that was an earlier attempt. identity: the rows that the part accounts for, which may then be fewer or more
    than were offered. bad: the bad rows among them.
    """

    name: str
    etag: str
    size_bytes: int
    adopted: bool
    identity: PartIdentity
    bad: list[BadRow]


def publish_part(
    storage: Storage, local: Path, folder: str, name: str, identity: PartIdentity, bad: Sequence[BadRow] = ()
) -> PublishedPart:
    """Publish a closed local part, and remove the local file; adopt what an earlier attempt published in its place.

    folder: URI of the output. bad: the bad rows of this attempt, for the one that may have to adopt the part. Raises
    OutputTaken if what exists under the name is of another job; any error leaves the local file, so that it can be
    published again.
    """
    card = Card(identity, list(bad))
    if card.bad or not has_footer(name):
        put_card(storage, folder, local, card)
    try:
        info = storage.publish(local, below(folder, name))
        published = _published(name, info, card, adopted=False)
    except AlreadyExists:
        published = _adopted(storage, folder, name, identity)
    local.unlink(missing_ok=True)
    return published


def _adopted(storage: Storage, folder: str, name: str, mine: PartIdentity) -> PublishedPart:
    uri = below(folder, name)
    try:
        theirs = card_at(storage, folder, name)
        info = storage.stat(uri)
    except InputMissing as error:
        raise StorageUnavailable(f"{uri} existed and is gone; the shard is run again") from error
    if theirs is None:
        raise OutputTaken(f"{uri} exists and is no part of a headrace job; choose another output")
    if not theirs.identity.same_slice(mine):
        job = theirs.identity.job
        raise OutputTaken(f"{uri} is of job {job}; choose another output, or --restart to replace that job")
    return _published(name, info, theirs, adopted=True)


def _published(name: str, info: ObjectInfo, card: Card, *, adopted: bool) -> PublishedPart:
    return PublishedPart(
        name=name, etag=info.etag, size_bytes=info.size, adopted=adopted, identity=card.identity, bad=card.bad
    )
