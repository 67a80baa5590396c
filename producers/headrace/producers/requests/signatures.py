"""The signatures of models, for checking inputs before they are sent: those that workers serve, else those on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from headrace.contracts.errors import PackageError, UnknownModel
from headrace.contracts.package.manifest import LATEST, MANIFEST, ModelDirectory, ModelPackage, version_key
from headrace.contracts.package.signature import Signature
from headrace.queueing.consumer.serving import Served

#: A cached answer is read again after this time even if no folder changed: the manifest of a new version
#: may be written after its folder, which the folder's own time does not show. Costs 0.3 ms each time.
MAX_AGE_S: Final = 5.0

#: What workers serve is asked for again after this time, by the next request. Costs one round trip a second and model.
SERVED_AGE_S: Final = 1.0


class Known(NamedTuple):
    """The signature that a request is checked against.

    signature: None when only the worker can check it. version: what the request asks for; "" for the worker's default.
    checked: the version that the signature is of.
    """

    signature: Signature | None
    version: str
    checked: str


class _Entry(NamedTuple):
    signature: Signature | None
    version: str
    stamp: tuple[int, ...]
    manifest: Path | None
    read_at: float


def agreed(served: Sequence[Served]) -> tuple[Served, bool]:
    """Return the version that requests without one are checked against, and whether they must name it.

    Where signatures are equal any worker may answer. Else it is the oldest version: while workers are restarted one
    after the other those that serve the newer one can load it, for it is nearly always still there, but not the other
    way round.
    """
    in_order = sorted(served, key=lambda each: (version_key(each.version), each.version))
    if all(each.signature == in_order[0].signature for each in in_order):
        return in_order[-1], False
    return in_order[0], True


class _Workers:
    """Versions of one model that workers serve, and when they were last asked."""

    __slots__ = ("asked_at", "served")

    def __init__(self, asked_at: float) -> None:
        self.asked_at = asked_at
        self.served: Sequence[Served] = ()


class Catalog:
    """Signatures of what workers serve; while none is known to serve a model, those of a model directory.

    A directory that is absent, unreadable or empty knows nothing.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """root: the model directory; need not exist. clock: seconds that never go back."""
        self._root = root
        self._directory = ModelDirectory(root)
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._workers: dict[str, _Workers] = {}

    def due(self, model: str) -> bool:
        """Return whether it is time to ask what workers serve of a model; of several threads one is told so."""
        now = self._clock()
        workers = self._workers.get(model)
        if workers is None:
            self._workers[model] = _Workers(now)
            return True
        if now - workers.asked_at < SERVED_AGE_S:
            return False
        workers.asked_at = now
        return True

    def learn(self, model: str, served: Sequence[Served]) -> None:
        """Take note of what workers serve of a model now; nothing when no worker is known to."""
        workers = self._workers.get(model)
        if workers is None:
            workers = self._workers[model] = _Workers(self._clock())
        workers.served = served

    def resolve(self, model: str, version: str = "") -> Known:
        """Return the signature that a request to a model is checked against, and the version it asks for.

        version: what the caller asks for; "" or "latest" for what workers serve. Raises like `signature` where no
        worker is known to serve the model.
        """
        workers = self._workers.get(model)
        served = workers.served if workers is not None else ()
        if served and version in {"", LATEST}:
            chosen, names_it = agreed(served)
            return Known(chosen.signature, chosen.version if names_it else "", chosen.version)
        for each in served:
            if each.version == version:
                return Known(each.signature, version, version)
        try:
            signature = self.signature(model, version)
        except UnknownModel:
            if not served:
                raise
            return Known(None, version, "")  # not here, but perhaps where the workers are
        return Known(signature, version, self._entries[model, version].version)

    def signature(self, model: str, version: str = "") -> Signature | None:
        """Return the signature of a model on disk, or None when this process can't know it.

        Raises UnknownModel when the directory holds models, but not this one; PackageError when its package is wrong.
        """
        entry = self._entries.get((model, version))
        if entry is not None and self._clock() - entry.read_at < MAX_AGE_S and self._fresh(model, entry):
            return entry.signature
        entry = self._read(model, version)
        self._entries[model, version] = entry
        return entry.signature

    def _fresh(self, model: str, entry: _Entry) -> bool:
        return entry.manifest is None or self._stamp(model, entry.manifest) == entry.stamp

    def _stamp(self, model: str, manifest: Path) -> tuple[int, ...]:
        try:
            return ((self._root / model).stat().st_mtime_ns, manifest.stat().st_mtime_ns)
        except OSError:
            return ()

    def _read(self, model: str, version: str) -> _Entry:
        now = self._clock()
        try:
            package = self._directory.get(model, version) if version else self._newest(model)
        except UnknownModel:
            if self._holds_models():
                raise
            return _Entry(None, "", (), None, now)
        except OSError:
            return _Entry(None, "", (), None, now)
        manifest = package.folder / MANIFEST
        return _Entry(package.manifest.signature, package.version, self._stamp(model, manifest), manifest, now)

    def _newest(self, model: str) -> ModelPackage:
        """Return the newest package that is whole, as far as a look shows, since that is what a worker would serve."""
        for version in reversed(self._directory.versions(model)):
            with suppress(PackageError, OSError):
                package = self._directory.get(model, version)
                package.size_bytes  # noqa: B018 — looks at each file
                return package
        return self._directory.get(model)

    def _holds_models(self) -> bool:
        try:
            return bool(self._directory.names())
        except OSError:
            return False
