"""All models of a worker, looked up by name, version and queue."""

from __future__ import annotations

import logging
import threading
from typing import Final

from headrace.contracts import HeadraceError, ModelDirectory, ModelPackage
from headrace.contracts.package.manifest import LATEST
from headrace.runtimes.base import TransientFailure
from headrace.workers.models.batch_limit_store import BatchLimitStore
from headrace.workers.models.served_model import ServedModel

logger = logging.getLogger(__name__)

_NONE: Final[list[ServedModel]] = []


class ModelTable:
    """The models of a worker, by name and version. The intake adds them, the executor runs them."""

    def __init__(
        self,
        packages: ModelDirectory,
        *,
        device: str,
        threads: int,
        limits: BatchLimitStore | None = None,
    ) -> None:
        """packages: where packages are looked up, also such as are added while the worker runs.

        limits: of batches, as earlier processes learned them on this device.
        """
        self._limits = limits
        self._packages = packages
        self._device = device
        self._threads = threads
        self._served: dict[tuple[str, str], ServedModel] = {}
        self._by_queue: dict[str, list[ServedModel]] = {}
        self._broken: dict[tuple[str, str], HeadraceError] = {}
        self._lock = threading.Lock()

    def load_newest(self) -> list[ServedModel]:
        """Load the newest version of every model that can be loaded, and return those that were.

        A version that can't be loaded is logged, and the one before it takes its place: it may be a folder that is
        still being copied. Requests to a model without any will fail.
        """
        found = [served for name in self._packages.names() if (served := self._load_default(name)) is not None]
        return [served for served in found if served.loaded]

    def _load_default(self, name: str) -> ServedModel | None:
        for version in reversed(self._packages.versions(name)):
            try:
                served = self.get(name, version)
                served.load()
            except TransientFailure as exc:
                logger.error("model %s %s can't be loaded at present: %s", name, version, exc)  # noqa: TRY400 — its requests try again
            except HeadraceError as exc:
                logger.error("model %s %s is not served: %s", name, version, exc.message)  # noqa: TRY400 — the message is the cause
                self._broken.setdefault((name, ""), exc)
                self._forget(name, version)
                continue
            self._broken.pop((name, ""), None)
            self._served[name, ""] = served
            return served
        return None

    def _forget(self, name: str, version: str) -> None:
        """Have a package read anew when it is asked for again."""
        served = self._served.pop((name, version), None)
        if served is not None:
            self._by_queue[served.queue] = [each for each in self.of_queue(served.queue) if each is not served]

    def get(self, name: str, version: str) -> ServedModel:
        """Return a version of a model; "" and "latest" are what was the newest when the worker started.

        Raises UnknownModel or PackageError; a model none of whose packages could be loaded stays so until the worker
        restarts.
        """
        if version == LATEST:
            version = ""
        served = self._served.get((name, version))
        if served is not None:
            return served
        broken = self._broken.get((name, version))
        if broken is not None:
            raise broken
        with self._lock:
            package = self._packages.get(name, version)
            served = self._served.get((name, package.version)) or self._make(package)
            self._served[name, version] = served
            return served

    def _make(self, package: ModelPackage) -> ServedModel:
        limit = self._limits.of(package) if self._limits is not None else None
        served = ServedModel(package, device=self._device, threads=self._threads, limit=limit)
        self._served[package.name, package.version] = served
        # A list of its own, for the consuming thread may be reading the old one.
        self._by_queue[served.queue] = [*self.of_queue(served.queue), served]
        return served

    def defaults(self) -> list[ServedModel]:
        """Return the models of requests that name no version."""
        return [served for (_, version), served in list(self._served.items()) if not version]

    def of_queue(self, queue: str) -> list[ServedModel]:
        """Return the models whose requests come by a queue; not to be changed."""
        return self._by_queue.get(queue, _NONE)

    def all(self) -> list[ServedModel]:
        """List the models, each once."""
        return list(dict.fromkeys(self._served.values()))

    def close(self) -> None:
        """Free all models."""
        for served in self.all():
            served.close()
