"""Objects of one bucket or container."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from headrace.bulk.storage.base import (
    AlreadyExists,
    BadLocation,
    Chosen,
    InputMissing,
    ObjectInfo,
    StorageUnavailable,
)
from headrace.bulk.storage.objects.connecting import bucket_and_key, connect
from headrace.bulk.storage.objects.errors import Conflict, translated
from headrace.bulk.storage.objects.listing import Listing
from headrace.bulk.storage.objects.retrying import patiently
from headrace.bulk.storage.ordering import Visible
from headrace.bulk.storage.ranged import RangedFile
from headrace.bulk.storage.reading import InputReader, input_changed
from headrace.bulk.storage.roots import Roots
from headrace.bulk.storage.uris import canonical, relative
from headrace.contracts.errors import quoted

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode
    from obstore.store import ObjectStore

T = TypeVar("T")

#: Objects that a page of a listing has; stores answer with as many.
PAGE: Final = 1000

#: Largest object that is written: a conditional write is one request, whose body is in memory.
LARGEST_PART: Final = 256 << 20

#: The slowest upload that counts as alive, in bytes a second.
_SLOWEST: Final = 1 << 20

#: Attempts share the time-out, so that one that gets no answer is not the last.
_SHARE: Final = 0.45

#: Begins the etags that we make where a store has none; such can't be asked for.
_OURS: Final = "~"

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class BucketStorage:
    """One bucket. What is written appears whole, by one conditional request."""

    def __init__(self, bucket: str, roots: Roots, timeout_s: float) -> None:
        """bucket: its URI."""
        self._bucket = bucket
        self._roots = roots
        self._timeout_s = timeout_s
        self._clients: dict[float, ObjectStore] = {}
        self._lock = threading.Lock()

    def pages(self, uri: str, after: str = "", *, chosen: Chosen | None = None) -> Iterator[list[ObjectInfo]]:
        """List the objects below a folder in the order that the store lists them, page by page."""
        folder = self._key(uri)
        cursor = relative(canonical(uri), after)
        listing = Listing(self._client(), folder, chosen or Visible())
        objects = listing.objects(cursor, lambda call: self._patiently(uri, call), self._is_there)
        while page := list(itertools.islice(objects, PAGE)):
            yield [self._info(f"{self._bucket}/{meta['path']}", meta) for meta in page]

    def stat(self, uri: str) -> ObjectInfo:
        """Return what is known of an object. Raises InputMissing."""
        import obstore

        key = self._key(uri)
        if not key:
            raise InputMissing(f"{quoted(uri)} is a bucket, not an object")
        return self._info(uri, self._patiently(uri, lambda _: obstore.head(self._client(), key)))

    def open(self, uri: str, *, etag: str = "") -> BinaryIO:
        """Open an object for reading by ranges; each is checked to be of the same object."""
        info = self.stat(uri)
        if etag and info.etag != etag:
            raise input_changed(uri)
        return InputReader(RangedFile(uri, info.size, lambda start, stop: self._fetch(info, start, stop)))

    def publish(self, local: Path, uri: str) -> ObjectInfo:
        """Upload a scratch file by one conditional request, unless something exists there; the file is gone then."""
        size = local.stat().st_size
        if size > LARGEST_PART:
            raise BadLocation(
                f"a part of {size >> 20} MiB is too large for {quoted(uri)}: object stores take at most "
                f"{LARGEST_PART >> 20} MiB in one conditional write; use smaller shards"
            )
        info = self._create(uri, local, size)
        local.unlink(missing_ok=True)
        return info

    def put(self, uri: str, content: bytes) -> ObjectInfo:
        """Write a small object unless something exists there: then AlreadyExists."""
        return self._create(uri, content, len(content))

    def replace(self, uri: str, content: bytes, etag: str) -> ObjectInfo:
        """Replace an object if it still has this etag; else AlreadyExists."""
        try:
            known = self._known_version(uri, etag)
            self._patiently(uri, lambda _: self._write(uri, content, len(content), known))
        except Conflict:
            # An attempt without an answer may have replaced it.
            if not self._holds(uri, content):
                raise AlreadyExists(f"{quoted(uri)} was replaced by somebody else") from None
        return self.stat(uri)

    def _known_version(self, uri: str, etag: str) -> PutMode:
        """Return what the object must still be: Google goes by its version. Raises Conflict for another etag."""
        import obstore

        meta = self._patiently(uri, lambda _: obstore.head(self._client(), self._key(uri)))
        if self._info(uri, meta).etag != etag:
            raise Conflict(uri)
        return {"e_tag": etag, "version": meta["version"]} if meta["version"] else {"e_tag": etag}

    def delete(self, uri: str) -> None:
        """Remove an object; nothing happens when there is none."""
        import obstore

        try:
            self._patiently(uri, lambda _: obstore.delete(self._client(), self._key(uri)))
        except InputMissing:
            return

    def _create(self, uri: str, content: bytes | Path, size: int) -> ObjectInfo:
        """Write an object that must not exist. An attempt without an answer may have written it, which is found out."""

        def attempt(number: int) -> None:
            try:
                self._write(uri, content, size, "create")
            except AlreadyExists:
                # Stores also say so while somebody else is still writing, who may fail.
                if not self._is_there(self._key(uri)):
                    raise StorageUnavailable(f"{quoted(uri)} is being written by somebody else") from None
                if number == 0 or not self._holds(uri, content):
                    raise

        self._patiently(uri, attempt, size)
        return self.stat(uri)

    def _write(self, uri: str, content: bytes | Path, size: int, mode: PutMode) -> None:
        import obstore

        with translated(uri):
            obstore.put(self._client(size), self._key(uri), content, mode=mode, use_multipart=False)

    def _holds(self, uri: str, content: bytes | Path) -> bool:
        """Return whether an object has this content, as far as its size and etag or its bytes tell."""
        info = self.stat(uri)
        if isinstance(content, bytes):
            return info.size == len(content) and self.open(uri).read() == content
        with content.open("rb") as file:
            return info.etag.strip('"') == hashlib.file_digest(file, "md5").hexdigest()

    def _fetch(self, info: ObjectInfo, start: int, stop: int) -> memoryview:
        import obstore

        options: GetOptions = {"range": (start, stop)}
        if not info.etag.startswith(_OURS):
            options["if_match"] = info.etag

        def get(_: int) -> tuple[ObjectMeta, memoryview]:
            result = obstore.get(self._client(), self._key(info.uri), options=options)
            return result.meta, memoryview(result.bytes())

        try:
            meta, content = self._patiently(info.uri, get)
        except (Conflict, InputMissing):
            raise input_changed(info.uri) from None
        # Some servers know no If-Match.
        if self._info(info.uri, meta).etag != info.etag or len(content) != stop - start:
            raise input_changed(info.uri)
        return content

    def _is_there(self, key: str) -> bool:
        try:
            self.stat(f"{self._bucket}/{key}")
        except InputMissing:
            return False
        return True

    def _patiently(self, uri: str, call: Callable[[int], T], size: int = 0) -> T:
        def attempt(number: int) -> T:
            with translated(uri):
                return call(number)

        # No attempt begins that may end after the time-out.
        return patiently(attempt, (1 - _SHARE) * self._timeout_s + _upload_s(size))

    def _key(self, uri: str) -> str:
        bucket, key = bucket_and_key(self._roots.check(uri))
        if bucket != self._bucket:
            raise BadLocation(f"{quoted(uri)} is not in {self._bucket}")
        return key

    def _client(self, size: int = 0) -> ObjectStore:
        """Return the client for requests with a body of a size. While one is sent, no answer comes."""
        upload_s = _upload_s(size)
        with self._lock:
            if upload_s not in self._clients:
                self._clients[upload_s] = connect(self._bucket, _SHARE * self._timeout_s + upload_s)
            return self._clients[upload_s]

    def _info(self, uri: str, meta: ObjectMeta) -> ObjectInfo:
        # Lists are more exact than answers about one object.
        mtime_ns = (meta["last_modified"] - _EPOCH) // dt.timedelta(seconds=1) * 10**9
        etag = meta["e_tag"] or f"{_OURS}{meta['size']:x}-{mtime_ns:x}"
        return ObjectInfo(uri=uri, size=meta["size"], etag=etag, mtime_ns=mtime_ns)


def _upload_s(size: int) -> float:
    """Return how long an upload may take: a power of two, so that few clients serve all sizes; 0 for what is small."""
    return float(1 << (size // _SLOWEST).bit_length()) if size >= _SLOWEST else 0.0
