"""Submitting requests and bulk jobs and getting their results, blocking (`Client`) or with asyncio (`AsyncClient`)."""

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
from headrace.producers.jobs.async_job import AsyncJob
from headrace.producers.jobs.errors import JobCancelled, JobFailed, JobMoved, JobTimeout
from headrace.producers.jobs.job import Job
from headrace.producers.jobs.order import ScoreOptions

__all__ = [
    "AsyncClient",
    "AsyncHandle",
    "AsyncJob",
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
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobMoved",
    "JobTimeout",
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
    "ScoreOptions",
    "SignatureMismatch",
    "StoreUnavailable",
    "SubmissionInterrupted",
    "UnknownModel",
]
