"""All models together: the repository's index and the statistics, as every protocol reports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from headrace.contracts.errors import UnknownModel
from headrace.gateway.inference.models import ServedModels
from headrace.gateway.inference.statistics import Statistics
from headrace.gateway.oip.description import repository_entry
from headrace.gateway.oip.statistics import model_statistics


async def repository_index(models: ServedModels, *, only_ready: bool) -> list[Mapping[str, str]]:
    """Return every version of every model and its state. Raises BrokerUnavailable."""
    entries = []
    for name in await models.names():
        try:
            found = await models.describe(name)
        except UnknownModel:
            continue  # it went away meanwhile
        for version in found.versions:
            ready = found.ready and version == found.version
            reason = "" if ready else found.reason if not found.ready else "loaded when a request asks for it"
            if ready or not only_ready:
                entries.append(repository_entry(name, version, ready=ready, reason=reason))
    return entries


async def statistics_of(
    models: ServedModels, counted: Statistics, model: str, version: str = ""
) -> list[dict[str, Any]]:
    """Return the statistics of a model's versions, or of one version, since this process began.

    Raises UnknownModel, BrokerUnavailable, Failure.
    """
    found = await models.describe(model, version)
    return await _counted(counted, {found.name: [found.version] if version else found.versions})


async def all_statistics(models: ServedModels, counted: Statistics) -> list[dict[str, Any]]:
    """Return the statistics of every version of every model. Raises BrokerUnavailable, Failure."""
    names: dict[str, Sequence[str]] = {}
    for name in await models.names():
        with suppress(UnknownModel):  # it went away meanwhile
            names[name] = (await models.describe(name)).versions
    return await _counted(counted, names)


async def _counted(counted: Statistics, versions: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    await counted.update(versions)
    return [
        model_statistics(name, version, counted.sums(name, version), counted.last_ms(name, version))
        for name, each in versions.items()
        for version in each
    ]
