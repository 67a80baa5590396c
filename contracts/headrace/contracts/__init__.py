"""What crosses a process: messages, tensors, model packages, settings and errors."""

from headrace.contracts.errors import (
    BrokerUnavailable,
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    HeadraceError,
    InferenceFailed,
    InputRefused,
    InvalidRequest,
    ModelOutOfMemory,
    NotRegistered,
    OutputMismatch,
    PackageError,
    PayloadTooLarge,
    PoisonRequest,
    QueueFull,
    ResultTimeout,
    RuntimeTrouble,
    SignatureMismatch,
    StoreUnavailable,
    UnknownModel,
)
from headrace.contracts.package import ModelDirectory, ModelPackage, read_package
from headrace.contracts.settings import Settings, load_settings
from headrace.contracts.signature import Signature, TensorSpec
from headrace.contracts.states import State
from headrace.contracts.tensors import Tensors, decode_tensors, encode_tensors

__all__ = [
    "BrokerUnavailable",
    "Cancelled",
    "ConfigurationError",
    "DeadlineExceeded",
    "HeadraceError",
    "InferenceFailed",
    "InputRefused",
    "InvalidRequest",
    "ModelDirectory",
    "ModelOutOfMemory",
    "ModelPackage",
    "NotRegistered",
    "OutputMismatch",
    "PackageError",
    "PayloadTooLarge",
    "PoisonRequest",
    "QueueFull",
    "ResultTimeout",
    "RuntimeTrouble",
    "Settings",
    "Signature",
    "SignatureMismatch",
    "State",
    "StoreUnavailable",
    "TensorSpec",
    "Tensors",
    "UnknownModel",
    "decode_tensors",
    "encode_tensors",
    "load_settings",
    "read_package",
]
