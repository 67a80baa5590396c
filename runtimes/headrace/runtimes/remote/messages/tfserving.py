"""Messages of TensorFlow Serving; `tfserving.pyi` has their types."""

from __future__ import annotations

from typing import Final

from headrace.runtimes.remote.messages.loading import Messages

_MESSAGES: Final = Messages("tfserving")

TensorShapeProto = _MESSAGES.message("tensorflow.TensorShapeProto")
TensorProto = _MESSAGES.message("tensorflow.TensorProto")
TensorInfo = _MESSAGES.message("tensorflow.TensorInfo")
SignatureDef = _MESSAGES.message("tensorflow.SignatureDef")
ModelSpec = _MESSAGES.message("tensorflow.serving.ModelSpec")
PredictRequest = _MESSAGES.message("tensorflow.serving.PredictRequest")
PredictResponse = _MESSAGES.message("tensorflow.serving.PredictResponse")
SignatureDefMap = _MESSAGES.message("tensorflow.serving.SignatureDefMap")
GetModelMetadataRequest = _MESSAGES.message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _MESSAGES.message("tensorflow.serving.GetModelMetadataResponse")
GetModelStatusRequest = _MESSAGES.message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = _MESSAGES.message("tensorflow.serving.GetModelStatusResponse")

#: Name → number of `tensorflow.DataType` and of the states of a version.
DATA_TYPES: Final = _MESSAGES.numbers("tensorflow.DataType")
STATES: Final = _MESSAGES.numbers("tensorflow.serving.ModelVersionStatus.State")
