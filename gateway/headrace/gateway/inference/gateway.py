"""The parts behind every route, opened with the first request and closed with the application."""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version

from headrace.contracts.settings import Settings, load_settings
from headrace.gateway.inference.inference import Inference
from headrace.gateway.inference.models import ServedModels
from headrace.gateway.inference.records import Records
from headrace.gateway.inference.statistics import Statistics
from headrace.gateway.inference.tracking import Tracking
from headrace.producers import AsyncClient
from headrace.producers.transport.connections import connect_for_calls_async


class Gateway:
    """One gateway: its client, what it knows of models, its requests. Belongs to one event loop.

    `await gateway.close()` ends it.
    """

    def __init__(self, settings: Settings) -> None:
        """settings: with a broker and a database. Raises ConfigurationError. Nothing is connected yet."""
        from headrace.results_store import StoreReader

        self.settings = settings
        self.client = AsyncClient(settings)
        self.models = ServedModels(settings)
        self.inference = Inference(self.client, self.models)
        self._rows = StoreReader(settings.require_database_url(), timeout_s=settings.database_timeout_s)
        self._calls = connect_for_calls_async(
            settings.require_broker_url(), settings.key_prefix, settings.broker_timeout_s
        )
        self.tracking = Tracking(self.client, self._rows, Records(self._calls))
        self.statistics = Statistics(self._rows)

    async def ping(self) -> None:
        """Raise BrokerUnavailable unless the broker answers."""
        await self.models.ping()

    async def drain(self, within_s: float) -> None:
        """Refuse new requests, and return when the others have their answers or the time is up."""
        self.inference.drain()
        await self.inference.wait_until_idle(within_s)
        await self.tracking.note(self.inference.waiting)
        self._end_waits()

    def _end_waits(self) -> None:
        self.inference.abandon_waiting()
        self.tracking.end_waits()

    async def close(self) -> None:
        """End the waits that are left, and close all connections; requests on the queue go on."""
        self.inference.drain()
        self._end_waits()
        await self.inference.close()
        await self.tracking.close()
        await self.client.close()
        await self.models.close()
        await self._calls.aclose()
        await asyncio.to_thread(self._rows.close)


class Opening:
    """The gateway of an application, opened when it is first needed: a mounted application has no start of its own."""

    def __init__(self, settings: Settings | None) -> None:
        """settings: None reads them from HEADRACE_* variables or the local stack, when the gateway is opened."""
        self._settings = settings
        self._gateway: Gateway | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force. Raises ConfigurationError."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    def open(self) -> Gateway:
        """Return the gateway. Raises ConfigurationError."""
        if self._gateway is None:
            self._gateway = Gateway(self.settings)
        return self._gateway

    @property
    def opened(self) -> Gateway | None:
        """The gateway if it was opened."""
        return self._gateway

    async def close(self) -> None:
        """Close the gateway if it was opened; the next request opens another one."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            await gateway.close()


def installed_version() -> str:
    """Return the version of headrace, "0" where it runs without being installed."""
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "0"
