"""Messages of the Open Inference Protocol v2; `oip.pyi` has their types."""

from __future__ import annotations

from typing import Final

from headrace.runtimes.remote.messages.loading import Messages

_MESSAGES: Final = Messages("oip")

ServerLiveRequest = _MESSAGES.message("inference.ServerLiveRequest")
ServerLiveResponse = _MESSAGES.message("inference.ServerLiveResponse")
ServerReadyRequest = _MESSAGES.message("inference.ServerReadyRequest")
ServerReadyResponse = _MESSAGES.message("inference.ServerReadyResponse")
ServerMetadataRequest = _MESSAGES.message("inference.ServerMetadataRequest")
ServerMetadataResponse = _MESSAGES.message("inference.ServerMetadataResponse")
ModelReadyRequest = _MESSAGES.message("inference.ModelReadyRequest")
ModelReadyResponse = _MESSAGES.message("inference.ModelReadyResponse")
ModelMetadataRequest = _MESSAGES.message("inference.ModelMetadataRequest")
ModelMetadataResponse = _MESSAGES.message("inference.ModelMetadataResponse")
InferTensorContents = _MESSAGES.message("inference.InferTensorContents")
ModelInferRequest = _MESSAGES.message("inference.ModelInferRequest")
ModelInferResponse = _MESSAGES.message("inference.ModelInferResponse")
ModelConfigRequest = _MESSAGES.message("inference.ModelConfigRequest")
ModelConfigResponse = _MESSAGES.message("inference.ModelConfigResponse")
ModelStatisticsRequest = _MESSAGES.message("inference.ModelStatisticsRequest")
ModelStatisticsResponse = _MESSAGES.message("inference.ModelStatisticsResponse")
RepositoryIndexRequest = _MESSAGES.message("inference.RepositoryIndexRequest")
RepositoryIndexResponse = _MESSAGES.message("inference.RepositoryIndexResponse")
