"""The contracts between processes: messages, tensors, model packages, settings and errors.

Settings are loaded when they are first used: pydantic takes a third of the time of all imports here, and what only
computes or connects needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

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
    RequestLost,
    ResultTimeout,
    RuntimeTrouble,
    SignatureMismatch,
    StoreUnavailable,
    UnknownModel,
)
from headrace.contracts.package.manifest import ModelDirectory, ModelPackage, read_package
from headrace.contracts.package.signature import Signature, TensorSpec
from headrace.contracts.states import State
from headrace.contracts.tensors.codec import Tensors, decode_tensors, encode_tensors

if TYPE_CHECKING:
    from headrace.contracts.settings import Settings, load_settings

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
    "RequestLost",
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

_SETTINGS: Final = frozenset({"Settings", "load_settings"})


def __getattr__(name: str) -> object:
    if name not in _SETTINGS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.settings"), name)
    globals()[name] = value
    return value
