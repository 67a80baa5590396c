"""The public API of each room, name by name: whoever changes it changes this list, and the changelog."""

from __future__ import annotations

import importlib

import pytest

PUBLIC = {
    "headrace.contracts": [
        "BrokerUnavailable",
        "Cancelled",
        "ConfigurationError",
        "DeadlineExceeded",
        "HeadraceError",
        "InferenceFailed",
        "InvalidRequest",
        "ModelDirectory",
        "ModelPackage",
        "PackageError",
        "PayloadTooLarge",
        "QueueFull",
        "ResultTimeout",
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
    ],
    "headrace.queueing": [
        "Channel",
        "ClaimingConsumer",
        "Command",
        "DeadLetter",
        "Delivery",
        "LeaseKeeper",
        "OVERSIZE_HEADER",
        "QueueStats",
        "Transport",
        "connect",
        "dead_letters",
        "dead_message",
        "headrace_url",
        "queue_stats",
        "redis_url",
        "run_commands",
        "translate_errors",
    ],
    "headrace.results_store": [
        "BatchRows",
        "ModelCount",
        "PartitionSize",
        "Prediction",
        "Row",
        "StoreReader",
        "StoreRejected",
        "StoreStats",
        "StoreWriter",
        "check_schema",
        "current_revision",
        "ensure_partitions",
        "error_json",
        "migrate",
        "prune",
    ],
    "headrace.producers": [
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
        "InvalidRequest",
        "PackageError",
        "PartlySubmitted",
        "PayloadTooLarge",
        "QueueFull",
        "ResultTimeout",
        "SignatureMismatch",
        "StoreUnavailable",
        "SubmissionInterrupted",
        "UnknownModel",
    ],
    "headrace.workers": ["run_workers"],
    "headrace.compression": [],
    "headrace.cli": [],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_a_room_exports_exactly_its_public_names(module: str) -> None:
    room = importlib.import_module(module)
    assert sorted(getattr(room, "__all__", [])) == PUBLIC[module]
    assert [name for name in PUBLIC[module] if not hasattr(room, name)] == []
