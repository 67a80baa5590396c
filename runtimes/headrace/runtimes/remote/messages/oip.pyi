from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

_Part_co = TypeVar("_Part_co", covariant=True)

class _Parts(Protocol[_Part_co]):
    def add(self, **fields: object) -> _Part_co: ...
    def __iter__(self) -> Iterator[_Part_co]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> _Part_co: ...

class ServerLiveRequest(Message): ...

class ServerLiveResponse(Message):
    live: bool

    def __init__(self, *, live: bool = ...) -> None: ...

class ServerReadyRequest(Message): ...

class ServerReadyResponse(Message):
    ready: bool

    def __init__(self, *, ready: bool = ...) -> None: ...

class ServerMetadataRequest(Message): ...

class ServerMetadataResponse(Message):
    name: str
    version: str
    extensions: MutableSequence[str]

class ModelReadyRequest(Message):
    name: str
    version: str

    def __init__(self, *, name: str = ..., version: str = ...) -> None: ...

class ModelReadyResponse(Message):
    ready: bool

    def __init__(self, *, ready: bool = ...) -> None: ...

class ModelMetadataRequest(Message):
    name: str
    version: str

    def __init__(self, *, name: str = ..., version: str = ...) -> None: ...

class ModelMetadataResponse(Message):
    class TensorMetadata(Message):
        name: str
        datatype: str
        shape: MutableSequence[int]

    name: str
    versions: MutableSequence[str]
    platform: str
    inputs: _Parts[TensorMetadata]
    outputs: _Parts[TensorMetadata]

class InferParameter(Message):
    bool_param: bool
    int64_param: int
    string_param: str
    double_param: float
    uint64_param: int

class InferTensorContents(Message):
    bool_contents: MutableSequence[bool]
    int_contents: MutableSequence[int]
    int64_contents: MutableSequence[int]
    uint_contents: MutableSequence[int]
    uint64_contents: MutableSequence[int]
    fp32_contents: MutableSequence[float]
    fp64_contents: MutableSequence[float]
    bytes_contents: MutableSequence[bytes]

class ModelInferRequest(Message):
    class InferInputTensor(Message):
        name: str
        datatype: str
        shape: MutableSequence[int]
        parameters: MutableMapping[str, InferParameter]
        contents: InferTensorContents

    class InferRequestedOutputTensor(Message):
        name: str
        parameters: MutableMapping[str, InferParameter]

    model_name: str
    model_version: str
    id: str
    parameters: MutableMapping[str, InferParameter]
    inputs: _Parts[InferInputTensor]
    outputs: _Parts[InferRequestedOutputTensor]
    raw_input_contents: MutableSequence[bytes]

    def __init__(
        self,
        *,
        model_name: str = ...,
        model_version: str = ...,
        id: str = ...,  # noqa: A002 - the field is called so
        raw_input_contents: Iterable[bytes] = ...,
    ) -> None: ...

class ModelInferResponse(Message):
    class InferOutputTensor(Message):
        name: str
        datatype: str
        shape: MutableSequence[int]
        contents: InferTensorContents

    model_name: str
    model_version: str
    id: str
    outputs: _Parts[InferOutputTensor]
    raw_output_contents: MutableSequence[bytes]

class ModelConfigRequest(Message):
    name: str
    version: str

    def __init__(self, *, name: str = ..., version: str = ...) -> None: ...

class ModelInput(Message):
    name: str
    data_type: int
    dims: MutableSequence[int]
    optional: bool

class ModelVersionPolicy(Message):
    class Specific(Message):
        versions: MutableSequence[int]

    specific: Specific

class ModelConfig(Message):
    name: str
    platform: str
    version_policy: ModelVersionPolicy
    max_batch_size: int
    input: _Parts[ModelInput]
    backend: str

class ModelConfigResponse(Message):
    config: ModelConfig

class ModelStatisticsRequest(Message):
    name: str
    version: str

    def __init__(self, *, name: str = ..., version: str = ...) -> None: ...

class StatisticDuration(Message):
    count: int
    ns: int

class InferStatistics(Message):
    success: StatisticDuration
    fail: StatisticDuration
    queue: StatisticDuration

class ModelStatistics(Message):
    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics

class ModelStatisticsResponse(Message):
    model_stats: _Parts[ModelStatistics]

class RepositoryIndexRequest(Message):
    ready: bool

    def __init__(self, *, ready: bool = ...) -> None: ...

class RepositoryIndexResponse(Message):
    class ModelIndex(Message):
        name: str
        version: str
        state: str
        reason: str

    models: _Parts[ModelIndex]
