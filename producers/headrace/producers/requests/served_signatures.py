"""Asks the broker which signatures workers serve, so that requests are checked against what will run them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import queue_name
from headrace.producers.requests.signatures import Catalog
from headrace.producers.transport.connections import broker_errors
from headrace.queueing.consumer import serving

if TYPE_CHECKING:
    import redis
    import redis.asyncio


class CatalogRefresh:
    """Keeps a catalog up to date with what workers serve."""

    def __init__(self, client: redis.Redis, catalog: Catalog) -> None:
        """client: whose calls give up soon."""
        self._client = client
        self._catalog = catalog

    def __call__(self, model: str) -> None:
        """Ask what workers serve unless that is known; a broker that doesn't answer in a second changes nothing."""
        if not self._catalog.due(model):
            return
        try:
            with broker_errors():
                found = serving.served(self._client, queue_name(model))
        except BrokerUnavailable:
            return
        self._catalog.learn(model, found)


class AsyncCatalogRefresh:
    """The asyncio twin of `CatalogRefresh`."""

    def __init__(self, client: redis.asyncio.Redis, catalog: Catalog) -> None:
        """client: whose calls give up soon."""
        self._client = client
        self._catalog = catalog

    async def __call__(self, model: str) -> None:
        """Ask what workers serve; see `CatalogRefresh`."""
        if not self._catalog.due(model):
            return
        try:
            with broker_errors():
                found = await serving.served_async(self._client, queue_name(model))
        except BrokerUnavailable:
            return
        self._catalog.learn(model, found)
