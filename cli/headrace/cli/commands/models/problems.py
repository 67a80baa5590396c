"""Models on servers as workers serve them: whether their server gives answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.contracts.errors import BrokerUnavailable
from headrace.contracts.message import queue_name
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.problem import Problem
from headrace.contracts.settings import Settings

if TYPE_CHECKING:
    from headrace.queueing.consumer.serving import Served


def problems_with(packages: Sequence[ModelPackage], settings: Settings) -> dict[str, list[Problem]]:
    """Return by model what workers report of it, whichever version they serve.

    Nothing without a broker that answers within a second. Models in files have none, and are shown without a broker.
    """
    from headrace.queueing.consumer.serving import problems_in

    return {name: problems_in(served) for name, served in _served(packages, settings).items()}


def problems_of(package: ModelPackage, settings: Settings) -> list[Problem]:
    """Return what workers report of one version; see `problems_with`."""
    from headrace.queueing.consumer.serving import problems_in

    served = _served([package], settings).get(package.name, [])
    return problems_in(each for each in served if each.version == package.version)


def _served(packages: Sequence[ModelPackage], settings: Settings) -> dict[str, list[Served]]:
    names = [package.name for package in packages if package.manifest.server]
    if not names or settings.broker_url is None:
        return {}
    from headrace.producers.transport.connections import broker_errors, connect_for_look
    from headrace.queueing.consumer.serving import served_on

    try:
        with connect_for_look(settings.require_broker_url(), settings.key_prefix) as client, broker_errors():
            found = served_on(client, [queue_name(name) for name in names])
    except BrokerUnavailable:
        return {}
    return {name: found[queue_name(name)] for name in names}
