"""The calls that describe the server and its models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from headrace.contracts.errors import BrokerUnavailable, UnknownModel
from headrace.gateway.inference import repository
from headrace.gateway.inference.gateway import Gateway, installed_version
from headrace.gateway.oip.description import model_config as config_of
from headrace.gateway.oip.description import model_metadata as metadata_of
from headrace.gateway.oip.description import server_metadata as metadata_of_server
from headrace.gateway.rpc.request import read_message
from headrace.runtimes.remote.messages import oip


async def server_live(gateway: Gateway, received: bytes) -> Message:  # noqa: ARG001 — the form of a call
    """Return that the process answers at all."""
    read_message(oip.ServerLiveRequest, received)
    return oip.ServerLiveResponse(live=True)


async def server_ready(gateway: Gateway, received: bytes) -> Message:
    """Return whether the broker answers and the gateway is not shutting down."""
    read_message(oip.ServerReadyRequest, received)
    if gateway.inference.draining:
        return oip.ServerReadyResponse(ready=False)
    try:
        await gateway.ping()
    except BrokerUnavailable:
        return oip.ServerReadyResponse(ready=False)
    return oip.ServerReadyResponse(ready=True)


async def server_metadata(gateway: Gateway, received: bytes) -> Message:  # noqa: ARG001 — the form of a call
    """Return name, version and extensions of the server."""
    read_message(oip.ServerMetadataRequest, received)
    return _filled(oip.ServerMetadataResponse(), metadata_of_server(installed_version()))


async def model_ready(gateway: Gateway, received: bytes) -> Message:
    """Return whether workers serve a model and get answers of it; a model that there isn't is not ready."""
    asked = read_message(oip.ModelReadyRequest, received)
    try:
        found = await gateway.models.describe(asked.name, asked.version)
    except UnknownModel:
        return oip.ModelReadyResponse(ready=False)
    return oip.ModelReadyResponse(ready=found.ready)


async def model_metadata(gateway: Gateway, received: bytes) -> Message:
    """Return a model's versions, inputs and outputs."""
    asked = read_message(oip.ModelMetadataRequest, received)
    found = await gateway.models.describe(asked.name, asked.version)
    described = metadata_of(found.name, found.versions, found.platform, found.signature, ())
    return _filled(oip.ModelMetadataResponse(), described)


async def model_config(gateway: Gateway, received: bytes) -> Message:
    """Return a model as Triton's configuration has it."""
    asked = read_message(oip.ModelConfigRequest, received)
    found = await gateway.models.describe(asked.name, asked.version)
    config = config_of(found.name, found.versions, found.platform, found.signature, found.max_rows)
    return _filled(oip.ModelConfigResponse(), {"config": config})


async def model_statistics(gateway: Gateway, received: bytes) -> Message:
    """Return counts and times of a model, or of all without a name, since this process began."""
    asked = read_message(oip.ModelStatisticsRequest, received)
    models, counted = gateway.models, gateway.statistics
    if asked.name:
        stats = await repository.statistics_of(models, counted, asked.name, asked.version)
    else:
        stats = await repository.all_statistics(models, counted)
    return _filled(oip.ModelStatisticsResponse(), {"model_stats": stats})


async def repository_index(gateway: Gateway, received: bytes) -> Message:
    """Return every version of every model and its state."""
    asked = read_message(oip.RepositoryIndexRequest, received)
    entries = await repository.repository_index(gateway.models, only_ready=asked.ready)
    return _filled(oip.RepositoryIndexResponse(), {"models": entries})


def _filled(message: Message, fields: Mapping[str, Any]) -> Message:
    """Return a message with the fields that it has of those of the protocol's JSON."""
    return ParseDict(dict(fields), message, ignore_unknown_fields=True)
