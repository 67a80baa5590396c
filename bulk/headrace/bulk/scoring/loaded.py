"""Models that are loaded in this process, whatever number of scorers were unpickled in it."""

from __future__ import annotations

import os
import threading
from typing import Final, TypeAlias

from headrace.contracts.package.manifest import ModelPackage
from headrace.runtimes.base import LoadedModel
from headrace.runtimes.loading import load_model

#: Process, folder and checksum of the package, device, threads. A process that was forked loads its own.
_Key: TypeAlias = tuple[int, str, str, str, int]


class LoadedModels:
    """The models of this process: engines unpickle a scorer for each task, and the model is loaded once."""

    def __init__(self) -> None:
        """Without a model."""
        self._models: dict[_Key, LoadedModel] = {}
        #: Held while a model is loaded or runs: a model runs one batch at a time.
        self.lock: Final = threading.Lock()

    def get(self, package: ModelPackage, device: str, threads: int) -> LoadedModel:
        """Return a model, loaded if it isn't; the lock is held. Raises PackageError, ConfigurationError."""
        key = _key(package, device, threads)
        if key not in self._models:
            package.verify()
            self._models[key] = load_model(package, device, threads)
        return self._models[key]

    def close(self, package: ModelPackage, device: str, threads: int) -> None:
        """Free a model, if it is loaded; the lock is held."""
        model = self._models.pop(_key(package, device, threads), None)
        if model is not None:
            model.close()


def _key(package: ModelPackage, device: str, threads: int) -> _Key:
    return os.getpid(), str(package.folder), package.manifest.checksum, device, threads


LOADED: Final = LoadedModels()
