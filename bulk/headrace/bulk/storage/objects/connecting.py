"""Connections to object stores, with the credentials of the worker's environment."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from headrace.bulk.storage.base import BadLocation
from headrace.bulk.storage.uris import AZURE_HOSTS, split

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_AZURE_SCHEMES: Final = ("az", "abfs", "abfss")

#: Variables that name the server; one that is `http://` is meant to be spoken to without TLS.
_ENDPOINTS: Final = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ENDPOINT",
    "GOOGLE_BASE_URL",
)

_SWITCHES: Final = ("AWS_ALLOW_HTTP", "AZURE_STORAGE_USE_EMULATOR", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")

#: No server that is there takes longer to accept a connection.
_CONNECT_S: Final = 5.0

#: Longest time for one request, which reads at most some MB or writes one part; progress is watched by `silence_s`.
_REQUEST_S: Final = 3600.0


def is_object_store(uri: str) -> bool:
    """Return whether obstore serves a canonical location."""
    location = split(uri)
    return location.scheme in ("s3", "gs", *_AZURE_SCHEMES) or (
        location.scheme == "https" and location.host.endswith(AZURE_HOSTS)
    )


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return the URI of the bucket, and the key of the object in it."""
    location = split(uri)
    if location.scheme != "https":
        return f"{location.scheme}://{location.host}", location.path
    container, _, key = location.path.partition("/")
    if not container:
        raise BadLocation("an address of Azure names no container; write https://ACCOUNT.blob.core.windows.net/NAME")
    return f"https://{location.host}/{container}", key.rstrip("/")


def connect(bucket: str, silence_s: float) -> ObjectStore:
    """Return a client of one bucket. silence_s: without an answer, after which a request fails. It retries nothing."""
    from obstore.store import AzureStore, GCSStore, S3Store

    location = split(bucket)
    options: ClientConfig = {
        "allow_http": _may_be_plain(),
        "connect_timeout": timedelta(seconds=min(_CONNECT_S, silence_s)),
        "read_timeout": timedelta(seconds=silence_s),
        "timeout": timedelta(seconds=_REQUEST_S),
    }
    # Retries are ours, so that all errors are told apart in one place and a list goes on where it broke off.
    retries: RetryConfig = {"max_retries": 0, "retry_timeout": timedelta(seconds=silence_s)}
    if location.scheme == "s3":
        return S3Store(location.host, client_options=options, retry_config=retries)
    if location.scheme == "gs":
        return GCSStore(location.host, client_options=options, retry_config=retries)
    if location.scheme == "az":
        return AzureStore(location.host, client_options=options, retry_config=retries)
    return AzureStore.from_url(bucket, client_options=options, retry_config=retries)


def _may_be_plain() -> bool:
    return any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS) or any(
        os.environ.get(name, "").lower() in ("1", "true", "yes") for name in _SWITCHES
    )
