"""Publication of parts: create-only, and adopted when an earlier attempt of the same shard was first."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.bulk.sinks.base import OutputTaken
from headrace.bulk.sinks.output.identity import PartIdentity
from headrace.bulk.sinks.output.names import below
from headrace.bulk.sinks.output.owner import identity_at, put_card
from headrace.bulk.storage.base import AlreadyExists, InputMissing, ObjectInfo, Storage, StorageUnavailable


class PublishedPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part under its final name. adopted: an earlier attempt wrote it. identity: what the published part says of
    itself; the rows that it accounts for are those of that attempt, which may be fewer or more than were offered.
    """

    name: str
    etag: str
    size_bytes: int
    adopted: bool
    identity: PartIdentity


def publish_part(storage: Storage, local: Path, folder: str, name: str, identity: PartIdentity) -> PublishedPart:
    """Publish a closed local part, and remove the local file; adopt what an earlier attempt published in its place.

    folder: URI of the output. Raises OutputTaken if what exists under the name is of another job; any error leaves the
    local file, so that it can be published again.
    """
    if not name.endswith(".parquet"):
        put_card(storage, folder, local, identity)
    try:
        info = storage.publish(local, below(folder, name))
        published = _published(name, info, identity, adopted=False)
    except AlreadyExists:
        published = _adopted(storage, folder, name, identity)
    local.unlink(missing_ok=True)
    return published


def _adopted(storage: Storage, folder: str, name: str, mine: PartIdentity) -> PublishedPart:
    try:
        theirs = identity_at(storage, folder, name)
        info = storage.stat(below(folder, name))
    except InputMissing as error:
        raise StorageUnavailable(f"{below(folder, name)} existed and is gone; the shard is run again") from error
    uri = below(folder, name)
    if theirs is None:
        raise OutputTaken(f"{uri} exists and is no part of a headrace job; choose another output")
    if not theirs.same_slice(mine):
        raise OutputTaken(f"{uri} is of job {theirs.job}; choose another output, or --restart to replace that job")
    return _published(name, info, theirs, adopted=True)


def _published(name: str, info: ObjectInfo, identity: PartIdentity, *, adopted: bool) -> PublishedPart:
    return PublishedPart(name=name, etag=info.etag, size_bytes=info.size, adopted=adopted, identity=identity)
