"""Batch limits of all models on one device, kept in Redis across restarts."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

from headrace.contracts import BrokerUnavailable, ModelPackage
from headrace.queueing import translate_errors
from headrace.queueing.keys import PLAIN, keys_of
from headrace.workers.models.batch_limit import BatchLimit

if TYPE_CHECKING:
    import redis

logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Sends commands whose answers don't matter."""

    def send(self, *command: str | int) -> None:
        """Send a command to the broker; it may get lost."""
        ...


class BatchLimitStore:
    """Makes the limit of each model from what earlier processes learned on this device."""

    def __init__(self, device: str, sender: Sender) -> None:
        """sender: of what is to be remembered; a limit that gets lost is only learned again."""
        self._device = device
        self._sender = sender
        self._known: dict[str, int] = {}
        self._key = PLAIN.ceilings

    def load(self, client: redis.Redis) -> None:
        """Read the limits of earlier processes; without a broker, which may start after the worker, there are none."""
        self._key = keys_of(client).ceilings
        try:
            with translate_errors():
                found: dict[bytes, bytes] = client.hgetall(self._key)  # type: ignore[assignment]
        except BrokerUnavailable as exc:
            logger.warning("the batch limits of earlier workers were not read: %s", exc.message)
            return
        self._known = {key.decode(): int(rows) for key, rows in found.items()}

    def of(self, package: ModelPackage) -> BatchLimit:
        """Return the limit of a package's batches."""
        key = f"{package.name} {package.version} {self._device}"
        return BatchLimit(package.manifest.batching.max_rows, self._known.get(key), partial(self._remember, key))

    def _remember(self, key: str, rows: int | None) -> None:
        if rows is None:
            logger.info("batches of %s may be as large as the package says again", key)
            self._sender.send("HDEL", self._key, key)
        else:
            logger.warning("batches of %s: at most %d rows now, since larger ones were too large", key, rows)
            self._sender.send("HSET", self._key, key, rows)
