from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

_Part_co = TypeVar("_Part_co", covariant=True)

class _Parts(Protocol[_Part_co]):
    def add(self, **fields: object) -> _Part_co: ...
    def __iter__(self) -> Iterator[_Part_co]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> _Part_co: ...

class Int64Value(Message):
    value: int

class Any(Message):
    type_url: str
    value: bytes

class TensorShapeProto(Message):
    class Dim(Message):
        size: int
        name: str

    dim: _Parts[Dim]
    unknown_rank: bool

    def __init__(self, *, dim: Iterable[Dim] = ..., unknown_rank: bool = ...) -> None: ...

class TensorProto(Message):
    dtype: int
    tensor_shape: TensorShapeProto
    tensor_content: bytes
    half_val: MutableSequence[int]
    float_val: MutableSequence[float]
    double_val: MutableSequence[float]
    int_val: MutableSequence[int]
    string_val: MutableSequence[bytes]
    int64_val: MutableSequence[int]
    bool_val: MutableSequence[bool]
    uint32_val: MutableSequence[int]
    uint64_val: MutableSequence[int]

    def __init__(
        self,
        *,
        dtype: int = ...,
        tensor_shape: TensorShapeProto = ...,
        tensor_content: bytes = ...,
        string_val: Iterable[bytes] = ...,
    ) -> None: ...

class TensorInfo(Message):
    name: str
    dtype: int
    tensor_shape: TensorShapeProto

class SignatureDef(Message):
    inputs: MutableMapping[str, TensorInfo]
    outputs: MutableMapping[str, TensorInfo]
    method_name: str

class ModelSpec(Message):
    name: str
    version: Int64Value
    version_label: str
    signature_name: str

    def __init__(self, *, name: str = ..., version_label: str | None = ..., signature_name: str = ...) -> None: ...

class PredictRequest(Message):
    model_spec: ModelSpec
    inputs: MutableMapping[str, TensorProto]
    output_filter: MutableSequence[str]

    def __init__(self, *, model_spec: ModelSpec = ..., output_filter: Iterable[str] = ...) -> None: ...

class PredictResponse(Message):
    outputs: MutableMapping[str, TensorProto]
    model_spec: ModelSpec

class SignatureDefMap(Message):
    signature_def: MutableMapping[str, SignatureDef]

class GetModelMetadataRequest(Message):
    model_spec: ModelSpec
    metadata_field: MutableSequence[str]

    def __init__(self, *, model_spec: ModelSpec = ..., metadata_field: Iterable[str] = ...) -> None: ...

class GetModelMetadataResponse(Message):
    model_spec: ModelSpec
    metadata: MutableMapping[str, Any]

class StatusProto(Message):
    error_message: str

class ModelVersionStatus(Message):
    version: int
    state: int
    status: StatusProto

class GetModelStatusRequest(Message):
    def __init__(self, *, model_spec: ModelSpec = ...) -> None: ...

class GetModelStatusResponse(Message):
    model_version_status: _Parts[ModelVersionStatus]

DATA_TYPES: Final[dict[str, int]]
STATES: Final[dict[str, int]]
