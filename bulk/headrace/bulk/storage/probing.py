"""A first try of an output folder, so that a job that can't write is told so before anything is computed."""

from __future__ import annotations

import secrets

from headrace.bulk.storage.base import Storage
from headrace.bulk.storage.uris import join


def probe(output: str, storage: Storage) -> None:
    """Write and delete a small hidden object in the output folder.

    Raises what stands in the way: AccessDenied, InputMissing for a bucket that doesn't exist, StorageUnavailable,
    BadLocation where nothing can be published without overwriting.
    """
    uri = join(output, f".headrace-probe-{secrets.token_hex(8)}")
    storage.put(uri, b"headrace tries whether it can write here; this object may be deleted\n")
    storage.delete(uri)
