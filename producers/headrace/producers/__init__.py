"""Submitting requests and getting their results, blocking (`Client`) or with asyncio (`AsyncClient`)."""

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
from headrace.producers.async_client import AsyncClient
from headrace.producers.async_handle import AsyncHandle
from headrace.producers.client import Client
from headrace.producers.errors import PartlyKept, PartlySubmitted, SubmissionInterrupted
from headrace.producers.handle import Handle

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "BrokerUnavailable",
    "Cancelled",
    "Client",
    "ConfigurationError",
    "DeadlineExceeded",
    "Handle",
    "HeadraceError",
    "InferenceFailed",
    "InputRefused",
    "InvalidRequest",
    "ModelOutOfMemory",
    "OutputMismatch",
    "PackageError",
    "PartlyKept",
    "PartlySubmitted",
    "PayloadTooLarge",
    "PoisonRequest",
    "QueueFull",
    "RequestLost",
    "ResultTimeout",
    "RuntimeTrouble",
    "SignatureMismatch",
    "StoreUnavailable",
    "SubmissionInterrupted",
    "UnknownModel",
]
