"""The models that can be asked for: those that workers serve, and those of the model directory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from headrace.contracts.errors import BrokerUnavailable, PackageError, UnknownModel, quoted
from headrace.contracts.message import TASK_PREFIX, queue_name
from headrace.contracts.package.manifest import LATEST, ModelDirectory, ModelPackage, version_key
from headrace.contracts.package.signature import Signature
from headrace.contracts.settings import Settings
from headrace.gateway.inference.failure import Failure, Kind
from headrace.producers.requests.signatures import agreed
from headrace.producers.transport.connections import broker_errors, connect_for_look_async
from headrace.queueing import connect_to
from headrace.queueing.consumer import serving
from headrace.queueing.consumer.serving import Served

#: What workers serve of a model is asked for again after this time; one round trip a second and model.
_SERVED_AGE_S: Final = 1.0

#: The list of all models is made again after this time, since it takes a look through all keys of the broker.
_LIST_AGE_S: Final = 2.0


#: Questions to the broker at a time; each has a connection of its own, and anybody may ask for any name.
_ASKING: Final = 8


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A model in one version. versions: all that are known, the oldest first. package: where it is on disk here.

    served: whether a worker takes its requests. problem: why the workers get no answers of it at present, or "".
    """

    name: str
    version: str
    versions: tuple[str, ...]
    signature: Signature
    package: ModelPackage | None
    served: bool
    problem: str

    @property
    def ready(self) -> bool:
        """Whether requests get answers now."""
        return self.served and not self.problem

    @property
    def reason(self) -> str:
        """Why requests get no answers now, "" if they do."""
        if self.ready:
            return ""
        if self.served:
            return f"the workers of model {self.name!r} report: {self.problem}"
        return f"no worker serves model {self.name!r} at present; start one with `headrace worker`"

    @property
    def platform(self) -> str:
        """The runtime of the model; "headrace" where it isn't known here."""
        return self.package.manifest.runtime if self.package else "headrace"

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of an output's last dimension, as far as they are known here."""
        return tuple(self.package.manifest.labels) if self.package else ()

    @property
    def max_rows(self) -> int:
        """Most rows of a batch, 0 where that isn't known here."""
        return self.package.manifest.batching.max_rows if self.package else 0

    def check_ready(self) -> None:
        """Raise Failure unless requests get answers now."""
        if not self.ready:
            raise Failure(Kind.MODEL_UNAVAILABLE if self.served else Kind.NO_WORKER, self.reason)


class ServedModels:
    """Knows which models there are; belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        """settings: with a broker; the model directory need not exist."""
        self._settings = settings
        self._directory = ModelDirectory(settings.models)
        self._looks = connect_for_look_async(settings.require_broker_url(), settings.key_prefix)
        self._served: dict[str, tuple[float, list[Served]]] = {}
        self._agreed: dict[str, tuple[list[Served], Signature]] = {}
        self._known: set[str] = set()
        self._names: list[str] = []
        self._named_at = -_LIST_AGE_S
        self._naming = asyncio.Lock()
        self._asking = asyncio.Semaphore(_ASKING)

    async def check(self, model: str) -> None:
        """Refuse a model that nobody serves or ever served. Raises UnknownModel, Failure(NO_WORKER), BrokerUnavailable.

        Versions are left to the workers, which may have some that they have not loaded.
        """
        if model in self._known:
            # A broker that is away is noticed at once, by the submission.
            with suppress(BrokerUnavailable):
                await self.served(model)
            return
        if await self.served(model) or self._versions_on_disk(model):
            self._known.add(model)
            return
        names = await self.names()
        if names:
            raise UnknownModel(f"there is no model {quoted(model)}; there are: {', '.join(names)}")
        raise Failure(
            Kind.NO_WORKER, "no worker serves any model at present; start one with `headrace worker --models DIR`"
        )

    async def served(self, model: str) -> list[Served]:
        """Return what workers serve of a model. Raises BrokerUnavailable."""
        asked_at, found = self._served.get(model, (-_SERVED_AGE_S, []))
        now = time.monotonic()
        if now - asked_at < _SERVED_AGE_S:
            return found
        if found:
            # One request asks; the others go by what was known.
            self._served[model] = (now, found)
        async with self._asking:
            with broker_errors():
                found = await serving.served_async(self._looks, queue_name(model))
        if found or model in self._known:
            self._served[model] = (now, found)
            self._known.add(model)
        return found

    def version_answering(self, model: str, version: str) -> str:
        """Return the version that answers a request, "" where it isn't known: workers may serve several."""
        if version not in {"", LATEST}:
            return version
        _, found = self._served.get(model, (0.0, []))
        versions = {each.version for each in found}
        return versions.pop() if len(versions) == 1 else ""

    async def signature(self, model: str, version: str = "") -> Signature | None:
        """Return the signature that a request is answered with, None where it isn't known here.

        What is on disk alone is left out: a worker may have another version. Raises BrokerUnavailable.
        """
        found = await self.served(model)
        if not found:
            return None
        if version in {"", LATEST}:
            known = self._agreed.get(model)
            if known is None or known[0] is not found:
                known = self._agreed[model] = (found, agreed(found)[0].signature)
            return known[1]
        return next((each.signature for each in found if each.version == version), None)

    async def names(self) -> list[str]:
        """Return the names of all models that workers serve or the model directory holds. Raises BrokerUnavailable."""
        async with self._naming:
            if time.monotonic() - self._named_at >= _LIST_AGE_S:
                self._names = await asyncio.to_thread(self._look_for_names)
                self._named_at = time.monotonic()
        return self._names

    async def describe(self, model: str, version: str = "") -> Description:
        """Return a model in a version, or in the one that requests without a version get.

        Raises UnknownModel, BrokerUnavailable.
        """
        found = await self.served(model)
        on_disk = self._versions_on_disk(model)
        versions = tuple(
            sorted({*on_disk, *(each.version for each in found)}, key=lambda each: (version_key(each), each))
        )
        if not versions:
            names = await self.names()
            raise UnknownModel(f"there is no model {quoted(model)}; there are: {', '.join(names) or 'none'}")
        chosen = version if version not in {"", LATEST} else agreed(found)[0].version if found else on_disk[-1]
        if chosen not in versions:
            raise UnknownModel(f"model {model!r} has no version {quoted(version)}; it has: {', '.join(versions)}")
        package = self._package(model, chosen) if chosen in on_disk else None
        signature = _signature(chosen, found, package)
        if signature is None:
            raise UnknownModel(
                f"version {chosen} of model {model!r} can't be read; see `headrace models check {model}`"
            )
        return Description(
            name=model,
            version=chosen,
            versions=versions,
            signature=signature,
            package=package,
            served=bool(found),
            problem="; ".join(map(str, serving.problems_in(found))),
        )

    async def ping(self) -> None:
        """Raise BrokerUnavailable unless the broker answers."""
        with broker_errors():
            await self._looks.ping()

    async def close(self) -> None:
        """Close the connection."""
        await self._looks.aclose()

    def _look_for_names(self) -> list[str]:
        with broker_errors(), connect_to(self._settings) as client:
            queues = serving.queues_consumed(client)
            served = serving.served_on(client, queues) if queues else {}
        names = {queue.removeprefix(TASK_PREFIX) for queue, found in served.items() if found}
        with suppress(OSError):
            names.update(self._directory.names())
        return sorted(names)

    def _versions_on_disk(self, model: str) -> list[str]:
        try:
            return self._directory.versions(model)
        except (PackageError, OSError):
            return []

    def _package(self, model: str, version: str) -> ModelPackage | None:
        try:
            return self._directory.get(model, version)
        except (PackageError, UnknownModel, OSError):
            return None


def _signature(version: str, served: Sequence[Served], package: ModelPackage | None) -> Signature | None:
    for each in served:
        if each.version == version:
            return each.signature
    return None if package is None else package.manifest.signature
