"""The signatures of the models that this process can see, for checking inputs before they are sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from headrace.contracts.errors import UnknownModel
from headrace.contracts.package import MANIFEST, ModelDirectory
from headrace.contracts.signature import Signature

#: A cached answer is read again after this time even if no folder changed: the manifest of a new version
#: may be written after its folder, which the folder's own time does not show. Costs 0.3 ms each time.
MAX_AGE_S: Final = 5.0


class _Entry(NamedTuple):
    signature: Signature | None
    stamp: tuple[int, ...]
    manifest: Path | None
    read_at: float


class Catalog:
    """Gives signatures from a model directory; a directory that is absent, unreadable or empty knows nothing."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """root: the model directory; need not exist. clock: seconds that never go back."""
        self._root = root
        self._directory = ModelDirectory(root)
        self._clock = clock
        self._entries: dict[tuple[str, str], _Entry] = {}

    def signature(self, model: str, version: str = "") -> Signature | None:
        """Give the signature of a model, or None when this process can't know it.

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
            package = self._directory.get(model, version)
        except UnknownModel:
            if self._holds_models():
                raise
            return _Entry(None, (), None, now)
        except OSError:
            return _Entry(None, (), None, now)
        manifest = package.folder / MANIFEST
        return _Entry(package.manifest.signature, self._stamp(model, manifest), manifest, now)

    def _holds_models(self) -> bool:
        try:
            return bool(self._directory.names())
        except OSError:
            return False
