"""The public names of the room, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import headrace.producers


def test_public_names() -> None:
    assert headrace.producers.__all__ == [
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
        "PoisonRequest",
        "QueueFull",
        "ResultTimeout",
        "SignatureMismatch",
        "StoreUnavailable",
        "SubmissionInterrupted",
        "UnknownModel",
    ]
    assert all(hasattr(headrace.producers, name) for name in headrace.producers.__all__)


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import headrace.producers, sys; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert not loaded & {"onnxruntime", "onnx", "torch", "sqlalchemy", "celery", "psycopg", "alembic"}
